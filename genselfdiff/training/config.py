"""Settings of a training run: written into its folder, read back to resume and to export.

The command line makes its options of them: what loads torch or codecs is imported where it is used.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import tomli_w

from genselfdiff.choices import (
    ARCHITECTURES,
    AUGMENTATIONS,
    DECAYS,
    DEFAULT_ARCHITECTURE,
    FRESH_WEIGHTS,
    INPUT_SCALINGS,
    LARGEST_TILE,
    LOSS_FORMS,
    ON_ERROR,
    PRECISIONS,
    SCHEDULES,
    SIZE_MULTIPLE,
)
from genselfdiff.errors import InputError, ModelError
from genselfdiff.files import atomic_file
from genselfdiff.input_files import read_toml
from genselfdiff.setting_types import require_type
from genselfdiff.text import shown

NO_INIT = "none"

LARGEST_WIDTH = 1 << 10
LONGEST_SCHEDULE = 1 << 20
"""Bounds beyond which no machine has the memory: a number that large has a digit too many."""


@dataclass(frozen=True)
class RunConfig:
    """What both stages have in common; the names are those of the command line's options.

    Attributes:
        init: run folder or checkpoint to start from, name of a shipped model, or "none".
        architecture: name given to `create_model`; None: that of ``init``, else "small".
        width: channels of the first level; None: the architecture's own.
        fresh_weights: of what ``init`` does not give: "torch": its default; "normal": convolutions
            and gains of norms normal with mean 0 and deviation 0.01 (authors' code).
        tile_size: side of the training tiles in pixels; a multiple of 8.
        batch_size: tiles an optimiser step, those of all processes together.
        accumulate: parts in which a process computes its share of a batch, one after the other, to
            save memory.
        steps: optimiser steps of the whole run.
        learning_rate: at its highest.
        warm_up: share of the steps over which the learning rate rises linearly.
        decay: "cosine": afterwards it falls to zero along half a cosine; "none": it stays.
        beta1: of Adam; beta2 is 0.999.
        clip_norm: gradients are scaled down to this norm; 0: never.
        ema: decay of the moving average of the weights, which is what is validated and kept as
            best; approached from below, so that a short run is not the average of its beginning;
            0: no average.
        seed: of weights, tiles, augmentation, time steps and noise.
        log_every: steps between lines of ``metrics.jsonl``.
        validate_every: steps between validations.
        keep_every: steps between checkpoints that stay; 0: none do but the latest and the best.
        precision: "auto", "float32" or "bfloat16" (autocast).
        device: "cpu", "cuda", "mps"; None: the best there is.
        workers: processes that prepare tiles beside each training process; None: none on a CPU,
            a few for a GPU.
        tensorboard: write events for TensorBoard too.

    Raises:
        InputError: a setting is out of range.
    """

    init: str = NO_INIT
    architecture: str | None = None
    width: int | None = None
    fresh_weights: str = "torch"
    tile_size: int = 256
    batch_size: int = 8
    accumulate: int = 1
    steps: int = 2000
    learning_rate: float = 2e-4
    warm_up: float = 0.05
    decay: str = "cosine"
    beta1: float = 0.9
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    log_every: int = 10
    validate_every: int = 200
    keep_every: int = 0
    precision: str = "auto"
    device: str | None = None
    workers: int | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for setting in fields(self):
            require_type(setting.name, getattr(self, setting.name), setting.type)
        self._require_at_least(1, "batch_size", "accumulate", "steps")
        self._require_at_least(1, "log_every", "validate_every")
        self._require_at_least(0, "seed", "keep_every", "clip_norm")
        if self.workers is not None:
            self._require_at_least(0, "workers")
        self._require_one_of(PRECISIONS, "precision")
        self._require_one_of(DECAYS, "decay")
        self._require_one_of(FRESH_WEIGHTS, "fresh_weights")
        self._require_share("warm_up", "beta1", "ema")
        if not SIZE_MULTIPLE <= self.tile_size <= LARGEST_TILE or self.tile_size % SIZE_MULTIPLE:
            raise InputError(
                f"tile_size {self.tile_size} must be a multiple of {SIZE_MULTIPLE} from"
                f" {SIZE_MULTIPLE} to {LARGEST_TILE}"
            )
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate {self.learning_rate:g} must be above 0")
        if self.architecture is not None:
            self._require_one_of(ARCHITECTURES, "architecture")
        if self.width is not None:
            self._require_at_least(8, "width")
            self._require_at_most(LARGEST_WIDTH, "width")
        if self.batch_size % self.accumulate:
            raise InputError(
                f"batch_size {self.batch_size} cannot be computed in {self.accumulate} equal parts"
                " (accumulate)"
            )

    @property
    def network_mpp(self) -> float | None:
        """um/px that the network sees."""
        raise NotImplementedError

    def _require_share(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 0 and below 1")

    def _require_at_least(self, least: int, *names: str) -> None:
        for name in names:
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)}")

    def _require_at_most(self, most: int, name: str) -> None:
        if getattr(self, name) > most:
            raise InputError(f"{name} must be at most {most}, not {getattr(self, name)}")

    def _require_one_of(self, choices: Collection[str], name: str) -> None:
        if getattr(self, name) not in choices:
            raise InputError(
                f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)}"
            )

    def _require_resolution(self, name: str) -> None:
        if getattr(self, name) is not None:
            from genselfdiff.slides.resolution import check_mpp

            check_mpp(getattr(self, name), name)

    def with_network(self) -> Self:
        """The same with architecture and width filled in.

        Raises:
            InputError: the tile size does not suit the architecture.
        """
        from genselfdiff.models import architecture

        name = self.architecture or DEFAULT_ARCHITECTURE
        shape = architecture(name)
        multiple = shape.size_multiple
        if self.tile_size % multiple:
            raise InputError(
                f"tile_size {self.tile_size} must be a multiple of {multiple} with architecture"
                f" {name}"
            )
        return replace(self, architecture=name, width=self.width or shape.width)

    def shareable(self) -> dict[str, Any]:
        """What is set, as JSON has it, without names of files and of this machine's devices.

        Attributions are left out: a model tells them itself.
        """
        given = {name: value for name, value in self._given().items() if name not in self.local}
        return dict(json.loads(json.dumps(given)))

    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def write(self, path: Path) -> None:
        """Write as TOML, which ``gsd train --config`` takes for another run.

        Names of files that are no UTF-8 keep their bytes.
        """
        text = tomli_w.dumps({"stage": type(self).stage, **self._given()})
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
        unknown = content.keys() - {field.name for field in fields(cls)}
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


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """Stage 1.

    Attributes:
        data: images, slides and folders.
        mpp: um/px to train at.
        image_mpp: um/px of images that do not carry a resolution.
        schedule: one of `SCHEDULES`.
        timesteps: T.
        p2_k, p2_gamma: of the P2 weighting; gamma 0 weights all time steps alike.
        validation_tiles: tiles in each validation.
        sample_every: steps between sample pictures; 0: none.
        on_error: what becomes of stored tiles of a slide that are damaged: see `open_slide`.

    Raises:
        InputError: a setting is out of range.
    """

    data: tuple[str, ...] = ()
    mpp: float | None = None
    image_mpp: float | None = None
    schedule: str = "quadratic"
    timesteps: int = 1000
    p2_k: float = 1.0
    p2_gamma: float = 1.0
    validation_tiles: int = 32
    sample_every: int = 1000
    on_error: str = "blank"

    stage = "pretrain"
    local = (*RunConfig.local, "data")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_at_least(1, "timesteps", "validation_tiles")
        self._require_at_most(LONGEST_SCHEDULE, "timesteps")
        self._require_at_least(0, "sample_every")
        self._require_one_of(SCHEDULES, "schedule")
        self._require_one_of(ON_ERROR, "on_error")
        self._require_resolution("mpp")
        self._require_resolution("image_mpp")
        self._require_at_least(0, "p2_k", "p2_gamma")

    @property
    def network_mpp(self) -> float | None:
        """um/px that the network sees."""
        return self.mpp


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """Stage 2.

    Attributes:
        images, masks: folders.
        classes: names, background first; empty: counted in the masks, and named as those of a
            shipped model ``init`` with as many.
        foreground: every non-zero mask value is class 1.
        instances: mask values are numbers of objects, and the network learns their cores beside the
            classes (`data.labelled.cores`), so that objects that touch can be told apart.
        val: names of the validation images as `split_pairs` takes them; None: a fifth, drawn with
            the seed. The run folder keeps the stems that were chosen.
        group: what says which images belong together, as `groups_of` takes it; None: none do.
        fold: (k, n): the k-th of n parts validates; None: as ``val`` says.
        train_images: of the images left for training so many, drawn with the seed, the fewer
            among the more; None: all.
        mpp: um/px of the labelled images.
        resample_to: um/px to train at; None: that of the shipped model ``init``, else of the
            labelled images.
        ignore_label: mask value that counts neither in the loss nor in the scores; None: none.
        augmentation: policy of `genselfdiff.data.labelled.augment`.
        loss_form: "scalar" or "pixel".
        sync_loss: the multi-loss takes its sums over the batches of all processes.
        input_scaling: "minus_one_one" (as in stage 1) or "zero_one" (as in the authors' code).
        origin: settings of the run ``init``, filled in from it; kept for the exported model.
        attributions: what the model ``init`` owes to others, filled in from it; kept as well.

    Raises:
        InputError: a setting is out of range.
    """

    images: str = ""
    masks: str = ""
    classes: tuple[str, ...] = ()
    foreground: bool = False
    instances: bool = False
    val: str | tuple[str, ...] | None = None
    group: str | None = None
    fold: tuple[int, int] | None = None
    train_images: int | None = None
    mpp: float | None = None
    resample_to: float | None = None
    ignore_label: int | None = None
    augmentation: str = "default"
    loss_form: str = "scalar"
    sync_loss: bool = False
    input_scaling: str = "minus_one_one"
    origin: dict[str, Any] | None = None
    attributions: tuple[str, ...] = ()

    stage = "finetune"
    local = (*RunConfig.local, "images", "masks", "val", "group", "attributions")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_one_of(AUGMENTATIONS, "augmentation")
        self._require_one_of(LOSS_FORMS, "loss_form")
        self._require_one_of(INPUT_SCALINGS, "input_scaling")
        self._require_resolution("mpp")
        self._require_resolution("resample_to")
        if self.train_images is not None:
            self._require_at_least(1, "train_images")
        if self.instances and not self.foreground:
            raise InputError(
                "instances: need foreground masks, whose values are numbers of objects"
            )
        if self.instances and self.ignore_label is not None:
            self._require_no_label_of_cores(self.ignore_label)
        if self.ignore_label is not None and not 0 <= self.ignore_label <= 255:
            raise InputError(f"ignore_label {self.ignore_label} must be between 0 and 255")
        if self.classes:
            self._require_class_names()
        try:
            json.dumps(self.origin, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"origin cannot be written as JSON: {error}") from error

    @property
    def network_mpp(self) -> float | None:
        """um/px that the network sees."""
        return self.resample_to

    @property
    def outputs(self) -> int:
        """How many the network gives: one a class, and of cores two."""
        return len(self.classes) + 2 * self.instances

    def _require_no_label_of_cores(self, ignore_label: int) -> None:
        from genselfdiff.data.labelled.images import CORE_LABEL

        if ignore_label in (1, CORE_LABEL):
            raise InputError(
                f"ignore_label {ignore_label}: with instances choose a value from"
                f" {CORE_LABEL + 1} on"
            )

    def _require_class_names(self) -> None:
        names = self.classes
        if not 2 <= len(names) <= 256 or len(set(names)) < len(names) or "" in names:
            raise InputError(
                f"classes {', '.join(names)!r}: name 2 to 256 different ones, background first"
            )
        if self.foreground and len(names) != 2:
            raise InputError(f"foreground masks have two classes, but {len(names)} are named")
        unseen = next((name for name in names if shown(name) != name), None)
        if unseen is not None:
            raise InputError(
                f"classes: {unseen} holds characters that cannot be shown: name it otherwise"
            )
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
    if not path.exists():
        raise ModelError(f"{path.parent}: not a run folder of gsd train (no {path.name} in it)")
    try:
        content = read_toml(path, errors="surrogateescape")
    except InputError as error:
        raise ModelError(f"{error}: restore it or train again") from error
    if not isinstance(content.get("stage"), str):
        raise ModelError(f"{path}: not the settings of a gsd run")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}


def read_run_config(path: Path) -> PretrainConfig | FinetuneConfig:
    """The settings of a run of either stage; errors as of `RunConfig.read`."""
    stages = {kind.stage: kind for kind in (PretrainConfig, FinetuneConfig)}
    stage = read_config(path)["stage"]
    if stage not in stages:
        raise ModelError(f"{path}: unknown stage {stage!r}: made by a newer gsd?")
    return stages[stage].read(path)
