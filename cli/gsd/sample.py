"""``gsd sample``: images drawn by a stage-1 network."""

from pathlib import Path

import click

from genselfdiff.training.sample import sample_run
from gsd.options import verbosity


@click.command(
    epilog="""\b
Example:
  gsd sample run1 -o grid.png --count 16 --steps 50
"""
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="PNG file to write."
)
@click.option("--count", type=int, default=16, show_default=True, help="Number of images.")
@click.option("--size", type=int, help="Side in pixels; default: the tile size of the run.")
@click.option("--steps", type=int, default=50, show_default=True, help="Steps of DDIM.")
@click.option("--ancestral", is_flag=True, help="Sample through all time steps instead of DDIM.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@click.option("--device", help="cpu, cuda, cuda:N or mps; default: the best there is.")
@verbosity
def sample(
    run: Path,
    output: Path,
    count: int,
    size: int | None,
    steps: int,
    ancestral: bool,
    seed: int,
    overwrite: bool,
    device: str | None,
) -> None:
    """Draw images with the stage-1 run RUN, to see what it has learnt."""
    sample_run(
        run,
        output,
        count=count,
        size=size,
        steps=steps,
        seed=seed,
        ancestral=ancestral,
        device=device,
        overwrite=overwrite,
    )
    click.echo(f"{output}: {count} images")
