"""What both stages have in common: kept in a run's folder, read back to resume and to export."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import tomli_w

from genselfdiff.choices import (
    ARCHITECTURES,
    DECAYS,
    DEFAULT_ARCHITECTURE,
    FRESH_WEIGHTS,
    LARGEST_TILE,
    PRECISIONS,
    SIZE_MULTIPLE,
)
from genselfdiff.errors import InputError, ModelError
from genselfdiff.files import atomic_file
from genselfdiff.input_files import read_toml
from genselfdiff.settings import About, require_settings, require_types

CONFIG = "config.toml"
"""Of the settings, in a run's folder."""

NO_INIT = "none"

LARGEST_WIDTH = 1 << 10
"""No machine has the memory for more: a number that large has a digit too many."""


def _check_tile_size(side: int, name: str) -> None:
    if not SIZE_MULTIPLE <= side <= LARGEST_TILE or side % SIZE_MULTIPLE:
        raise InputError(
            f"{name} {side} must be a multiple of {SIZE_MULTIPLE} from {SIZE_MULTIPLE} to"
            f" {LARGEST_TILE}"
        )


def _share(text: str) -> About:
    return About(text, least=0, below=1, refusal="{name} must be at least 0 and below 1")


@dataclass(frozen=True)
class RunConfig:
    """What both stages have in common; the names are those of the command line's options.

    The fields say what they are. Beside that:

    Attributes:
        init: "none", a run folder or checkpoint, or the name of a shipped model.
        architecture: None: that of ``init``, else "small".
        width: None: the architecture's own.
        fresh_weights: "torch": its default; "normal": convolutions and gains of norms normal with
            mean 0 and deviation 0.01.
        decay: "cosine": half of one, after the warm-up.
        beta1: beta2 is 0.999.
        ema: approached from below, so that a short run is not the average of its beginning.
        seed: of weights, tiles, augmentation, time steps and noise.
        precision: "bfloat16" is autocast.

    Raises:
        InputError: a setting is out of range.
    """

    init: str = NO_INIT
    architecture: str | None = field(
        default=None,
        metadata=About(
            "; ".join(f"{name}: {what}" for name, what in ARCHITECTURES.items())
            + f". Default: that of --init, else {DEFAULT_ARCHITECTURE}.",
            choices=ARCHITECTURES,
        ).metadata,
    )
    width: int | None = field(
        default=None,
        metadata=About(
            "Channels of the first level, a multiple of 8.", least=8, most=LARGEST_WIDTH
        ).metadata,
    )
    fresh_weights: str = field(
        default="torch",
        metadata=About(
            "What --init does not give; normal: as in the authors' code.", choices=FRESH_WEIGHTS
        ).metadata,
    )
    tile_size: int = field(
        default=256,
        metadata=About(
            f"Side of the training tiles in pixels, a multiple of {SIZE_MULTIPLE} up to"
            f" {LARGEST_TILE}.",
            check=_check_tile_size,
        ).metadata,
    )
    batch_size: int = field(
        default=8,
        metadata=About(
            "Tiles for each optimiser step, those of all processes together.", least=1
        ).metadata,
    )
    accumulate: int = field(
        default=1,
        metadata=About(
            "Parts in which a batch is computed, one after the other, to save memory; the"
            " multi-loss of stage 2 then takes its sums over each part alone.",
            least=1,
        ).metadata,
    )
    steps: int = field(
        default=2000, metadata=About("Optimiser steps of the whole run.", least=1).metadata
    )
    learning_rate: float = field(
        default=2e-4,
        metadata=About(
            "At its highest.", above=0, refusal="{name} {value:g} must be above 0"
        ).metadata,
    )
    warm_up: float = field(
        default=0.05,
        metadata=_share("Share of the steps over which the learning rate rises.").metadata,
    )
    decay: str = field(
        default="cosine",
        metadata=About(
            "cosine: the learning rate falls to zero afterwards; none: it stays.", choices=DECAYS
        ).metadata,
    )
    beta1: float = field(default=0.9, metadata=_share("Of Adam.").metadata)
    clip_norm: float = field(
        default=1.0,
        metadata=About("Norm that gradients are scaled down to; 0: never.", least=0).metadata,
    )
    ema: float = field(
        default=0.999,
        metadata=_share(
            "Decay of the moving average of the weights, which is validated and exported; 0: none."
        ).metadata,
    )
    seed: int = field(default=0, metadata=About(least=0).metadata)
    log_every: int = field(
        default=10, metadata=About("Steps between lines of metrics.jsonl.", least=1).metadata
    )
    validate_every: int = field(
        default=200,
        metadata=About("Steps between validations; each leaves a checkpoint.", least=1).metadata,
    )
    keep_every: int = field(
        default=0,
        metadata=About(
            "Steps between checkpoints that stay; 0: the latest and the best.", least=0
        ).metadata,
    )
    icc: bool = field(
        default=False,
        metadata=About(
            "Read colours as the ICC profiles of the files mean them, in sRGB, not as they are"
            " stored."
        ).metadata,
    )
    precision: str = field(
        default="auto",
        metadata=About("auto: bfloat16 where it is fast.", choices=PRECISIONS).metadata,
    )
    device: str | None = field(
        default=None,
        metadata=About("cpu, cuda, cuda:N or mps; default: the best there is.").metadata,
    )
    workers: int | None = field(
        default=None,
        metadata=About(
            "Processes that prepare tiles beside each training process; default: none on a CPU, up"
            " to 4 for a GPU.",
            least=0,
        ).metadata,
    )
    tensorboard: bool = field(
        default=False, metadata=About("Write events for TensorBoard too.").metadata
    )

    def __post_init__(self) -> None:
        require_types(self)
        require_settings(self)
        if self.batch_size % self.accumulate:
            raise InputError(
                f"batch_size {self.batch_size} cannot be computed in {self.accumulate} equal parts"
                " (accumulate)"
            )

    @property
    def network_mpp(self) -> float | None:
        """um/px that the network sees."""
        raise NotImplementedError

    @property
    def kept_start(self) -> float:
        """Share of the weights of the start in those that are validated and exported."""
        return 0.0

    def with_network(self) -> Self:
        """The same with architecture and width filled in.

        Raises:
            InputError: the tile size does not suit the architecture.
        """
        from genselfdiff.models.registry import architecture

        name = self.architecture or DEFAULT_ARCHITECTURE
        shape = architecture(name)
        return self._with_sizes(name, shape.size_multiple, shape.width)

    def _with_sizes(self, name: str, multiple: int, width: int) -> Self:
        if self.tile_size % multiple:
            raise InputError(
                f"tile_size {self.tile_size} must be a multiple of {multiple} with architecture"
                f" {name}"
            )
        return replace(self, architecture=name, width=self.width or width)

    def shareable(self) -> dict[str, Any]:
        """What is set, as JSON has it, without names of files and of this machine's devices.

        Attributions are left out: a model tells them itself.
        """
        shared = {name: value for name, value in self._set().items() if name not in self.local}
        return dict(json.loads(json.dumps(shared)))

    def _set(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def write(self, path: Path) -> None:
        """Write as TOML, which ``gsd train --config`` takes for another run.

        Names of files that are no UTF-8 keep their bytes.
        """
        text = tomli_w.dumps({"stage": type(self).stage, **self._set()})
        with atomic_file(path) as temporary:
            temporary.write_bytes(text.encode(errors="surrogateescape"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: no such file, or not settings of this stage.
        """
        content = read_config(path)
        stage = content.pop("stage")
        if stage != cls.stage:
            raise ModelError(
                f"{path.parent}: a run of `gsd train {stage}`, not of `gsd train {cls.stage}`"
            )
        unknown = content.keys() - {part.name for part in fields(cls)}
        if unknown:
            raise ModelError(
                f"{path}: unknown setting {sorted(unknown)[0]!r}: made by a newer gsd?"
            )
        try:
            config = cls(**content)
        except InputError as error:
            raise ModelError(f"{path}: damaged: {error}") from error
        for name in ("architecture", "width", "mpp", "resample_to"):  # filled in, then written
            if getattr(config, name, name) is None:
                raise ModelError(f"{path}: damaged: it does not tell {name}")
        return config

    stage = ""
    local: ClassVar[tuple[str, ...]] = ("init", "device", "workers", "tensorboard")


def read_config(path: Path) -> dict[str, Any]:
    """The settings in ``path`` as a plain dict with the key "stage".

    Raises:
        ModelError: no such file, or not the settings of a run.
    """
    if not path.exists():
        raise ModelError(f"{path.parent}: not a run folder of gsd train (no {path.name} in it)")
    try:
        content = read_toml(path, errors="surrogateescape")
    except InputError as error:
        raise ModelError(f"{error}: restore it or train again") from error
    if not isinstance(content.get("stage"), str):
        raise ModelError(f"{path}: not the settings of a gsd run")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
