"""What a stage-1 network has learnt, to be seen: images drawn from noise, and tiles restored."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from genselfdiff.data.tiles import UnlabelledTiles, open_sources
from genselfdiff.diffusion import NoiseSchedule, sample_ancestral, sample_ddim
from genselfdiff.errors import InputError
from genselfdiff.files import atomic_file, refuse_existing, refuse_inputs
from genselfdiff.kernels import add_noise
from genselfdiff.machine import choose_device
from genselfdiff.models.segmenter import size_multiple_of
from genselfdiff.models.weights import load_initial_weights
from genselfdiff.settings import require_type
from genselfdiff.training.networks import noise_predictor
from genselfdiff.training.run_folder import RunFolder, read_checkpoint
from genselfdiff.training.settings.stage_configs import PretrainConfig


@dataclass(frozen=True)
class Sampling:
    """How images are made of noise.

    Attributes:
        count: how many.
        steps: those of DDIM.
        seed: what the noise depends on, and nothing else.
        ancestral: by the ancestral sampler, which takes all T steps, instead of DDIM.

    Raises:
        InputError: ``count`` or ``seed`` is out of range.
    """

    count: int
    steps: int = 50
    seed: int = 0
    ancestral: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (("--count", self.count, 1), ("--seed", self.seed, 0)):
            require_type(name, value, int)
            if value < least:
                raise InputError(f"{name} {value} must be at least {least}")


@dataclass(frozen=True)
class NoisedTiles:
    """Tissue tiles with noise on them.

    Attributes:
        image: the image or slide that they are of.
        t: the time step that they are noised up to.
        mpp: um/px of the image where its file does not tell; None: that of the run's images.
    """

    image: str | Path
    t: int
    mpp: float | None = None


def sample_run(
    run: str | Path,
    output: str | Path,
    sampling: Sampling,
    *,
    size: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Draw images with the best checkpoint of a stage-1 run and save them as one grid.

    ``size`` is their side in pixels, a multiple of what the network needs: 8, 16 or 32 (None: the
    tile size of the run).

    Raises:
        ModelError: not a stage-1 run.
        InputError: a number out of range.
        OutputError: the picture exists and not ``overwrite``, is read, or cannot be written.
    """
    output = _picture(output, overwrite)
    refuse_inputs([output], RunFolder(run).files())
    config, network = _trained(run, device)
    size = config.tile_size if size is None else size
    multiple = size_multiple_of(network)
    if size < multiple or size % multiple:
        raise InputError(
            f"--size {size} must be a positive multiple of {multiple} for this network"
        )
    schedule = NoiseSchedule.create(config.schedule, config.timesteps)
    save_grid(draw_samples(network, schedule, sampling, size), output)


@dataclass(frozen=True)
class Restoration:
    """How near tiles come to what they were, as peak signal-to-noise ratio in dB, by tile.

    Attributes:
        noised: of the tiles with noise.
        restored: of what the network makes of them.
    """

    noised: tuple[float, ...]
    restored: tuple[float, ...]


def restore_tiles(
    run: str | Path,
    output: str | Path,
    noised: NoisedTiles,
    sampling: Sampling,
    *,
    device: str | None = None,
    overwrite: bool = False,
) -> Restoration:
    """Let the best checkpoint of a stage-1 run restore tiles that noise was added to.

    The picture has a row for each tile: as it is, with noise, restored. What it brings back where
    noise has covered it is what stage 1 has learnt.

    Raises:
        ModelError: not a stage-1 run.
        InputError: the image cannot be used, or a number is out of range.
        OutputError: the picture exists and not ``overwrite``, is read, or cannot be written.
    """
    output = _picture(output, overwrite)
    refuse_inputs([output], [Path(noised.image), *RunFolder(run).files()])
    config, network = _trained(run, device)
    assert config.mpp is not None
    t, count = noised.t, sampling.count
    schedule = NoiseSchedule.create(config.schedule, config.timesteps)
    if not 0 <= t < schedule.timesteps:
        raise InputError(f"--t {t}: the time steps of the run are 0 to {schedule.timesteps - 1}")
    dataset = UnlabelledTiles(
        open_sources(
            [noised.image],
            mpp=config.mpp,
            image_mpp=noised.mpp or config.image_mpp,
            icc=config.icc,
        ),
        mpp=config.mpp,
        tile_size=config.tile_size,
        seed=sampling.seed,
        length=count,
        flips=False,
    )
    tiles = torch.stack([dataset[number] for number in range(count)])
    times = torch.full((count,), t)
    noisy, _ = add_noise(tiles, times, schedule.alpha_bars, seed=sampling.seed)
    start = noisy.to(next(network.parameters()).device, memory_format=torch.channels_last)
    if sampling.ancestral:
        generator = torch.Generator().manual_seed(sampling.seed)
        restored = sample_ancestral(network, schedule, start, generator, start=t)
    else:
        restored = sample_ddim(network, schedule, start, sampling.steps, start=t)
    original = tiles / 127.5 - 1
    rows = torch.stack((original, noisy, restored.cpu()), dim=1)
    save_grid(rows.flatten(0, 1), output, columns=3)
    return Restoration(_quality(noisy, original), _quality(restored.cpu(), original))


def _quality(images: torch.Tensor, originals: torch.Tensor) -> tuple[float, ...]:
    """Peak signal-to-noise ratio in dB of images in [-1, 1]."""
    errors = ((images.clamp(-1, 1) - originals) / 2).square().flatten(1).mean(1)
    return tuple((-10 * errors.clamp(min=1e-12).log10()).tolist())


def _picture(output: str | Path, overwrite: bool) -> Path:
    output = Path(output)
    if output.suffix.lower() != ".png":
        raise InputError(f"{output}: give the name of a PNG file")
    refuse_existing(output, overwrite)
    return output


def _trained(run: str | Path, device: str | None) -> tuple[PretrainConfig, nn.Module]:
    """Settings and the best network of a stage-1 run."""
    folder = RunFolder(run)
    config = PretrainConfig.read(folder.config)
    network = noise_predictor(config)
    weights = folder.weights_of(None)
    load_initial_weights(network, read_checkpoint(weights).weights, origin=weights, head=True)
    return config, network.to(choose_device(device)).eval()


def draw_samples(
    network: nn.Module, schedule: NoiseSchedule, sampling: Sampling, size: int
) -> torch.Tensor:
    """(count, 3, size, size) float32 in [-1, 1], drawn from noise."""
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(sampling.seed)
    noise = torch.randn(sampling.count, 3, size, size, generator=generator).to(
        device, memory_format=torch.channels_last
    )
    if sampling.ancestral:
        return sample_ancestral(network, schedule, noise, generator)
    return sample_ddim(network, schedule, noise, sampling.steps)


def save_grid(images: torch.Tensor, path: Path, columns: int | None = None) -> None:
    """Save (N, 3, H, W) in [-1, 1] as one picture, without ``columns`` as square as can be.

    Raises:
        OutputError: it cannot be written.
    """
    pixels = ((images.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    count, _, height, width = pixels.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    canvas = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, image in enumerate(pixels):
        y, x = divmod(index, columns)
        canvas[y * height : (y + 1) * height, x * width : (x + 1) * width] = image.transpose(
            1, 2, 0
        )
    with atomic_file(path) as temporary:
        Image.fromarray(canvas).save(temporary, format="PNG")
