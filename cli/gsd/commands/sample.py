"""``gsd sample``: images drawn by a stage-1 network."""

from pathlib import Path
from typing import Any

import click

from genselfdiff.text import counted
from gsd.options import FILE, one_device, overwriting, verbosity
from gsd.output import say


@click.command(
    epilog="""\b
Examples:
  gsd sample run1 -o grid.png --count 16 --steps 50
  gsd sample run1 -o restored.png --from slide.svs --t 300
"""
)
@click.argument("run", type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="PNG file to write.")
@click.option(
    "--from",
    "image",
    type=FILE,
    help="Noise tiles of this image or slide and restore them, instead of drawing from noise.",
)
@click.option(
    "--t", type=int, default=300, show_default=True, help="With --from: time step to noise up to."
)
@click.option(
    "--image-mpp",
    type=float,
    help="With --from: um/px of the image, where its file does not say; default: that of stage 1.",
)
@click.option("--count", type=int, help="Number of images; default: 16, of restored tiles 4.")
@click.option("--size", type=int, help="Side in pixels; default: the tile size of the run.")
@click.option("--steps", type=int, default=50, show_default=True, help="Steps of DDIM.")
@click.option("--ancestral", is_flag=True, help="Sample through all time steps instead of DDIM.")
@click.option("--seed", type=int, default=0, show_default=True)
@overwriting
@one_device
@verbosity
def sample(
    run: Path,
    output: Path,
    image: Path | None,
    t: int,
    image_mpp: float | None,
    count: int | None,
    size: int | None,
    steps: int,
    seed: int,
    ancestral: bool,
    **options: Any,
) -> None:
    """See what the stage-1 run RUN has learnt: images drawn from noise, or restored tiles.

    With --from, each row has a tile as it is, with noise, and restored; its peak signal-to-noise
    ratio is printed before and after.
    """
    if image is not None and size is not None:
        raise click.UsageError("--size: tiles are restored in the run's own size")
    from genselfdiff.training.sample import NoisedTiles, Sampling, restore_tiles, sample_run

    if count is None:
        count = 16 if image is None else 4
    sampling = Sampling(count, steps, seed, ancestral)
    if image is None:
        sample_run(run, output, sampling, size=size, **options)
        say(f"{output}: {counted(count, 'image')}")
        return
    found = restore_tiles(run, output, NoisedTiles(image, t, image_mpp), sampling, **options)
    for number, pair in enumerate(zip(found.noised, found.restored, strict=True), 1):
        say("tile {}: {:.1f} dB with noise, {:.1f} dB restored".format(number, *pair))
    say(f"{output}: {counted(count, 'tile')} of {image.name}")
