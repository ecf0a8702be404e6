"""Settings of a training run: written into its folder, read back to resume and to export."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from genselfdiff.errors import InputError, ModelError
from genselfdiff.files import write_text


@dataclass(frozen=True)
class RunConfig:
    """What both stages have in common.

    Attributes:
        architecture: name given to `create_model`.
        width: channels of the first level; None: the architecture's own.
        mpp: um/px that the network sees; None only for images of unknown resolution.
        tile_size: side of the training tiles in pixels; a multiple of 8.
        batch_size: tiles a step.
        steps: optimiser steps of the whole run.
        learning_rate: at its highest; warmed up linearly, then let down to zero along a cosine.
        seed: of weights, tiles, augmentation, time steps and noise.
        validate_every: steps between validations.
        precision: "auto", "float32" or "bfloat16" (autocast).
        device: "cpu", "cuda", "mps"; None: the best there is.
        workers: processes that prepare tiles beside the training process.
    """

    architecture: str = "small"
    width: int | None = None
    mpp: float | None = None
    tile_size: int = 256
    batch_size: int = 8
    steps: int = 2000
    learning_rate: float = 2e-4
    seed: int = 0
    validate_every: int = 200
    precision: str = "auto"
    device: str | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "validate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.tile_size < 8 or self.tile_size % 8:
            raise InputError(f"tile size {self.tile_size} must be a positive multiple of 8")
        if not self.learning_rate > 0:
            raise InputError(f"learning rate {self.learning_rate:g} must be above 0")
        if self.mpp is not None and not 0.01 <= self.mpp <= 100:
            raise InputError(f"mpp {self.mpp:g} must be between 0.01 and 100 um/px")

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_text(path, json.dumps({"stage": type(self).stage, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: no such file, or not settings of this stage.
        """
        content = read_config(path)
        if content.pop("stage") != cls.stage:
            raise ModelError(f"{path}: not a run of `gsd train {cls.stage}`")
        unknown = content.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ModelError(
                f"{path}: unknown setting {sorted(unknown)[0]!r}: made by a newer gsd?"
            )
        return cls(**content)

    stage = ""


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """Stage 1.

    Attributes:
        data: images, slides and folders.
        image_mpp: um/px of images that do not carry a resolution.
        schedule: one of `SCHEDULES`.
        timesteps: T.
        p2_k, p2_gamma: of the P2 weighting; gamma 0 weights all time steps alike.
        validation_tiles: tiles in each validation.
        sample_every: steps between sample pictures; 0: none.
    """

    data: tuple[str, ...] = ()
    image_mpp: float | None = None
    schedule: str = "quadratic"
    timesteps: int = 1000
    p2_k: float = 1.0
    p2_gamma: float = 1.0
    validation_tiles: int = 32
    sample_every: int = 1000

    stage = "pretrain"


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """Stage 2.

    Attributes:
        images, masks: folders.
        init: run folder of stage 1, an authors' checkpoint, or "none".
        classes: names, background first; empty: counted in the masks.
        foreground: every non-zero mask value is class 1.
        val: names of the validation images; None: a fifth, drawn with the seed.
        image_mpp: um/px of the labelled images.
        augmentation: policy of `genselfdiff.data.augment`.
        loss_form: "scalar" or "pixel".
        input_scaling: "minus_one_one" (as in stage 1) or "zero_one" (as in the authors' code).
    """

    images: str = ""
    masks: str = ""
    init: str = "none"
    classes: tuple[str, ...] = ()
    foreground: bool = False
    val: str | None = None
    image_mpp: float | None = None
    augmentation: str = "default"
    loss_form: str = "scalar"
    input_scaling: str = "minus_one_one"

    stage = "finetune"


def read_config(path: Path) -> dict[str, Any]:
    """The settings in ``path`` as a plain dict with the key "stage".

    Raises:
        ModelError: no such file, or not the settings of a run.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{path.parent}: not a run folder of gsd train (no {path.name} in it)"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path}: damaged, not JSON: restore it or train again") from error
    if not isinstance(content, dict) or "stage" not in content:
        raise ModelError(f"{path}: not the settings of a gsd run")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
