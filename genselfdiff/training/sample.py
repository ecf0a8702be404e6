"""Images drawn from a stage-1 network."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from genselfdiff.diffusion import NoiseSchedule, sample_ancestral, sample_ddim
from genselfdiff.errors import InputError
from genselfdiff.files import atomic_file, refuse_existing
from genselfdiff.inference.device import choose_device
from genselfdiff.models import DEFAULT_ARCHITECTURE, create_model, load_initial_weights
from genselfdiff.training.config import PretrainConfig
from genselfdiff.training.run_folder import RunFolder, read_checkpoint


def sample_run(
    run: str | Path,
    output: str | Path,
    *,
    count: int = 16,
    size: int | None = None,
    steps: int = 50,
    seed: int = 0,
    ancestral: bool = False,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Draw ``count`` images with the best checkpoint of a stage-1 run and save them as one grid.

    ``size`` is the side in pixels, a multiple of 8 (None: the tile size of the run); ``steps``
    those of DDIM, while the ancestral sampler takes all T.

    Raises:
        ModelError: not a stage-1 run.
        InputError: a number out of range.
        OutputError: the picture exists and not ``overwrite``, or cannot be written.
    """
    output = Path(output)
    if output.suffix.lower() != ".png":
        raise InputError(f"{output}: give the name of a PNG file")
    refuse_existing(output, overwrite)
    folder = RunFolder(run)
    config = PretrainConfig.read(folder.config)
    size = config.tile_size if size is None else size
    if count < 1 or size < 8 or size % 8:
        raise InputError(
            f"--count {count} must be at least 1, and --size {size} a positive multiple of 8"
        )
    if not 1 <= steps <= config.timesteps:
        raise InputError(f"{steps} steps: between 1 and the {config.timesteps} of the run")
    network = create_model(config.architecture or DEFAULT_ARCHITECTURE, width=config.width)
    checkpoint = read_checkpoint(folder.best)
    load_initial_weights(network, checkpoint.weights, origin=folder.best, head=True)
    network.to(choose_device(device)).eval()
    schedule = NoiseSchedule.create(config.schedule, config.timesteps)
    images = draw_samples(
        network,
        schedule,
        count=count,
        size=size,
        steps=steps,
        seed=seed,
        ancestral=ancestral,
    )
    save_grid(images, output)


def draw_samples(
    network: nn.Module,
    schedule: NoiseSchedule,
    *,
    count: int,
    size: int,
    steps: int,
    seed: int,
    ancestral: bool = False,
) -> torch.Tensor:
    """(count, 3, size, size) float32 in [-1, 1], from noise that depends on ``seed`` alone."""
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, size, size, generator=generator).to(
        device, memory_format=torch.channels_last
    )
    if ancestral:
        return sample_ancestral(network, schedule, noise, generator)
    return sample_ddim(network, schedule, noise, steps)


def save_grid(images: torch.Tensor, path: Path) -> None:
    """Save (N, 3, H, W) in [-1, 1] as one picture, as square as can be.

    Raises:
        OutputError: it cannot be written.
    """
    pixels = ((images.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    count, _, height, width = pixels.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    canvas = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, image in enumerate(pixels):
        y, x = divmod(index, columns)
        canvas[y * height : (y + 1) * height, x * width : (x + 1) * width] = image.transpose(
            1, 2, 0
        )
    with atomic_file(path) as temporary:
        Image.fromarray(canvas).save(temporary, format="PNG")
