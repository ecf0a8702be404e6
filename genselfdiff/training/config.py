"""Settings of a training run: written into its folder, read back to resume and to export."""

import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from genselfdiff.data.augment import POLICIES
from genselfdiff.diffusion import SCHEDULES
from genselfdiff.errors import InputError, ModelError
from genselfdiff.files import write_text
from genselfdiff.inference.model_file import INPUT_SCALINGS
from genselfdiff.inference.predictor import PRECISIONS
from genselfdiff.kernels.multi_loss.reference import FORMS
from genselfdiff.models import ARCHITECTURES, DEFAULT_ARCHITECTURE
from genselfdiff.slides.resolution import check_mpp


@dataclass(frozen=True)
class RunConfig:
    """What both stages have in common.

    Attributes:
        architecture: name given to `create_model`; None: that of stage 1, else "small".
        width: channels of the first level; None: the architecture's own.
        mpp: um/px that the network sees; None: that of stage 1, else of the labelled images.
        tile_size: side of the training tiles in pixels; a multiple of 8.
        batch_size: tiles a step.
        steps: optimiser steps of the whole run.
        learning_rate: at its highest; warmed up linearly, then let down to zero along a cosine.
        seed: of weights, tiles, augmentation, time steps and noise.
        validate_every: steps between validations.
        precision: "auto", "float32" or "bfloat16" (autocast).
        device: "cpu", "cuda", "mps"; None: the best there is.
        workers: processes that prepare tiles beside the training process.

    Raises:
        InputError: a setting is out of range.
    """

    architecture: str | None = None
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
        self._require_at_least(1, "batch_size", "steps", "validate_every")
        self._require_at_least(0, "seed", "workers")
        self._require_one_of(PRECISIONS, "precision")
        if self.tile_size < 8 or self.tile_size % 8:
            raise InputError(f"tile_size {self.tile_size} must be a positive multiple of 8")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"learning_rate {self.learning_rate:g} must be above 0")
        self._require_resolution("mpp")
        if self.architecture is not None:
            self._require_one_of(ARCHITECTURES, "architecture")
        if self.width is not None:
            self._require_at_least(8, "width")

    def _require_at_least(self, least: int, *names: str) -> None:
        for name in names:
            if not getattr(self, name) >= least:  # NaN is not
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)}")

    def _require_one_of(self, choices: Collection[str], name: str) -> None:
        if getattr(self, name) not in choices:
            raise InputError(
                f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)}"
            )

    def _require_resolution(self, name: str) -> None:
        if getattr(self, name) is not None:
            check_mpp(getattr(self, name), name)

    def with_network(self) -> Self:
        """The same with architecture and width filled in."""
        name = self.architecture or DEFAULT_ARCHITECTURE
        return replace(self, architecture=name, width=self.width or ARCHITECTURES[name].width)

    def shareable(self) -> dict[str, Any]:
        """The settings as JSON has them, without names of files and of this machine's devices."""
        settings = {name: value for name, value in asdict(self).items() if name not in self.local}
        return dict(json.loads(json.dumps(settings)))

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
        stage = content.pop("stage")
        if stage != cls.stage:
            raise ModelError(
                f"{path.parent}: a run of `gsd train {stage}`, not of `gsd train {cls.stage}`"
            )
        unknown = content.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ModelError(
                f"{path}: unknown setting {sorted(unknown)[0]!r}: made by a newer gsd?"
            )
        try:
            return cls(**content)
        except (TypeError, InputError) as error:
            raise ModelError(f"{path}: damaged: {error}") from error

    stage = ""
    local: ClassVar[tuple[str, ...]] = ("device", "workers")


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

    Raises:
        InputError: a setting is out of range.
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
    local = (*RunConfig.local, "data")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_at_least(1, "timesteps", "validation_tiles")
        self._require_at_least(0, "sample_every")
        self._require_one_of(SCHEDULES, "schedule")
        self._require_resolution("image_mpp")
        self._require_at_least(0, "p2_k", "p2_gamma")


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """Stage 2.

    Attributes:
        images, masks: folders.
        init: run folder of stage 1, an authors' checkpoint, or "none".
        classes: names, background first; empty: counted in the masks.
        foreground: every non-zero mask value is class 1.
        val: names of the validation images as `split_pairs` takes them; None: a fifth, drawn with
            the seed. The run folder keeps the stems that were chosen.
        group: what says which images belong together, as `groups_of` takes it; None: none do.
        fold: (k, n): the k-th of n parts validates; None: as ``val`` says.
        image_mpp: um/px of the labelled images.
        ignore_label: mask value that counts neither in the loss nor in the scores; None: none.
        augmentation: policy of `genselfdiff.data.augment`.
        loss_form: "scalar" or "pixel".
        input_scaling: "minus_one_one" (as in stage 1) or "zero_one" (as in the authors' code).
        stage1: settings of the stage-1 run, filled in from ``init``; kept for the exported model.

    Raises:
        InputError: a setting is out of range.
    """

    images: str = ""
    masks: str = ""
    init: str = "none"
    classes: tuple[str, ...] = ()
    foreground: bool = False
    val: str | tuple[str, ...] | None = None
    group: str | None = None
    fold: tuple[int, int] | None = None
    image_mpp: float | None = None
    ignore_label: int | None = None
    augmentation: str = "default"
    loss_form: str = "scalar"
    input_scaling: str = "minus_one_one"
    stage1: dict[str, Any] | None = None

    stage = "finetune"
    local = (*RunConfig.local, "images", "masks", "val", "group", "init")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_one_of(POLICIES, "augmentation")
        self._require_one_of(FORMS, "loss_form")
        self._require_one_of(INPUT_SCALINGS, "input_scaling")
        self._require_resolution("image_mpp")
        if self.ignore_label is not None and not 0 <= self.ignore_label <= 255:
            raise InputError(f"ignore_label {self.ignore_label} must be between 0 and 255")
        if self.classes:
            self._require_class_names()

    def _require_class_names(self) -> None:
        names = self.classes
        if not 2 <= len(names) <= 256 or len(set(names)) < len(names) or "" in names:
            raise InputError(
                f"classes {', '.join(names)!r}: name 2 to 256 different ones, background first"
            )
        if self.foreground and len(names) != 2:
            raise InputError(f"foreground masks have two classes, but {len(names)} are named")
        if self.ignore_label is not None and self.ignore_label < len(names):
            raise InputError(
                f"ignore_label {self.ignore_label} is class {names[self.ignore_label]!r}:"
                f" choose a value from {len(names)} on"
            )


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
