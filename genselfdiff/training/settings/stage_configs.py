"""The settings of a training run of either stage.

The command line makes its options of them: what loads torch or codecs is imported where it is used.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from genselfdiff.choices import (
    ARCHITECTURES,
    AUGMENTATIONS,
    DEFAULT_ARCHITECTURE,
    ENCODER_ARCHITECTURE,
    ENCODER_WIDTH,
    INIT_LAYERS,
    INPUT_SCALINGS,
    LOSS_FORMS,
    LOSSES,
    ON_ERROR,
    SCHEDULES,
)
from genselfdiff.errors import InputError, ModelError
from genselfdiff.settings import About, check_mpp
from genselfdiff.text import shown
from genselfdiff.training.settings.run_config import NO_INIT, RunConfig, read_config

LONGEST_SCHEDULE = 1 << 20
"""No machine has the memory for more: a number that large has a digit too many."""


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """Stage 1.

    The fields say what they are. Beside that:

    Attributes:
        data: images, slides and folders.
        timesteps: T.
        on_error: see `open_slide`.

    Raises:
        InputError: a setting is out of range.
    """

    init: str = field(
        default=NO_INIT,
        metadata=About(
            "Run folder or checkpoint of stage 1, or a .pth of the authors' code, to start from."
        ).metadata,
    )
    data: tuple[str, ...] = ()
    mpp: float | None = field(
        default=None,
        metadata=About(
            "Resolution to train at, in um/px; 0.5 suits 20x. Slides and images are resampled to"
            " it.",
            check=check_mpp,
        ).metadata,
    )
    image_mpp: float | None = field(
        default=None,
        metadata=About(
            "Resolution of the images whose files do not say it, in um/px; the file's own wins.",
            check=check_mpp,
        ).metadata,
    )
    schedule: str = field(
        default="quadratic", metadata=About("Noise schedule.", choices=SCHEDULES).metadata
    )
    timesteps: int = field(default=1000, metadata=About(least=1, most=LONGEST_SCHEDULE).metadata)
    p2_k: float = field(default=1.0, metadata=About("Of P2 weighting.", least=0).metadata)
    p2_gamma: float = field(
        default=1.0,
        metadata=About("Of P2 weighting; 0 weights all time steps alike.", least=0).metadata,
    )
    validation_tiles: int = field(default=32, metadata=About(least=1).metadata)
    sample_every: int = field(
        default=1000,
        metadata=About(
            "Steps between sample pictures, drawn at the next validation; 0: none.", least=0
        ).metadata,
    )
    on_error: str = field(
        default="blank",
        metadata=About(
            "What a damaged tile of a slide does: end with an error, or count as glass.",
            choices=ON_ERROR,
        ).metadata,
    )

    stage = "pretrain"
    local = (*RunConfig.local, "data")

    @property
    def network_mpp(self) -> float | None:
        """um/px that the network sees."""
        return self.mpp


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """Stage 2.

    The fields say what they are. Beside that:

    Attributes:
        classes: empty: counted in the masks, and named as those of a shipped model ``init`` with as
            many.
        instances: the network learns the cores of objects beside the classes, see
            `genselfdiff.data.labelled.cores`.
        val: as `split_pairs` takes it; drawn with the seed. The run folder keeps the stems that
            were chosen.
        group: as `groups_of` takes it.
        fold: (k, n); None: as ``val`` says.
        train_images: drawn with the seed; None: all.
        augmentation: policy of `genselfdiff.data.labelled.augment`.
        encoder_shape: fields of the `VitShape` of the encoder, filled in from it.
        origin: settings of the run ``init``, filled in from it; kept for the exported model.
        attributions: what the model ``init`` owes to others, filled in from it; kept as well.

    Raises:
        InputError: a setting is out of range.
    """

    init: str = field(
        default=NO_INIT,
        metadata=About(
            "What to start from: a name of 'gsd models', a run folder or checkpoint of an earlier"
            " run, a .pth of the authors' code, or none to train from scratch."
        ).metadata,
    )
    start_share: float | None = field(
        default=None,
        metadata=About(
            "Share of the weights of --init in those that are validated and exported, so that a"
            " model forgets less of what it knew. Default: 0.5 for a model of 'gsd models' that"
            " finds the same, else 0.",
            least=0,
            below=1,
            refusal="{name} must be at least 0 and below 1",
        ).metadata,
    )
    init_layers: str = field(
        default="all",
        metadata=About(
            "What is taken of --init; encoder: all before the decoder, which starts afresh, as does"
            " the output head.",
            choices=INIT_LAYERS,
        ).metadata,
    )
    architecture: str | None = field(
        default=None,
        metadata=About(
            "; ".join(f"{n}: {what}" for n, what in (ARCHITECTURES | ENCODER_ARCHITECTURE).items())
            + f". Default: that of --init or --encoder, else {DEFAULT_ARCHITECTURE}.",
            choices=ARCHITECTURES | ENCODER_ARCHITECTURE,
        ).metadata,
    )
    encoder: str | None = field(
        default=None,
        metadata=About(
            "Weights of a pathology foundation model (UNI, Virchow, H-optimus, Phikon, ...) that"
            " you have: a vision transformer, as a file or a folder of the Hugging Face Hub. It"
            " stays as it is; a small decoder learns."
        ).metadata,
    )
    images: str = field(default="", metadata=About("Folder of labelled images.").metadata)
    masks: str = field(
        default="",
        metadata=About("Folder of integer masks with the same file names, suffix aside.").metadata,
    )
    classes: tuple[str, ...] = field(
        default=(),
        metadata=About(
            "Names of the classes, comma-separated, background first; names with commas in double"
            " quotes."
        ).metadata,
    )
    foreground: bool = field(
        default=False, metadata=About("Read every non-zero mask value as class 1.").metadata
    )
    instances: bool = field(
        default=False,
        metadata=About(
            "With --foreground: mask values are numbers of objects, and the network learns to tell"
            " apart those that touch."
        ).metadata,
    )
    val: str | tuple[str, ...] | None = field(
        default=None,
        metadata=About(
            "Validation images: names, groups or patterns, comma-separated, or a file with one a"
            " line; default: a fifth of the images."
        ).metadata,
    )
    group: str | None = field(
        default=None,
        metadata=About(
            "What says which images are of one patient or slide, and go to one side together: a"
            " regular expression for the beginning of their names, or a .csv with the columns name,"
            " group."
        ).metadata,
    )
    fold: tuple[int, int] | None = field(
        default=None,
        metadata=About(
            "Of N parts of the images the K-th validates: N runs, with the same --seed, see them"
            " all."
        ).metadata,
    )
    train_images: int | None = field(
        default=None,
        metadata=About(
            "Train on so many of the images only, to learn what more labels bring; the fewer are"
            " among the more.",
            least=1,
        ).metadata,
    )
    mpp: float | None = field(
        default=None,
        metadata=About(
            "Resolution of the labelled images in um/px, where their files do not say it; an error"
            " where they say another.",
            check=check_mpp,
        ).metadata,
    )
    resample_to: float | None = field(
        default=None,
        metadata=About(
            "Resolution to train at, in um/px: images and masks are resampled to it. Default: that"
            " of the model of 'gsd models' that --init names, else of the images, which must be"
            " that of stage 1.",
            check=check_mpp,
        ).metadata,
    )
    ignore_label: int | None = field(
        default=None,
        metadata=About(
            "Mask value that counts neither in the loss nor in the scores.",
            least=0,
            most=255,
            refusal="{name} {value} must be between 0 and 255",
        ).metadata,
    )
    augmentation: str = field(default="default", metadata=About(choices=AUGMENTATIONS).metadata)
    loss: str = field(
        default="multi",
        metadata=About(
            "multi: structural similarity plus focal loss, as published; or either of them alone,"
            " or cross entropy, to compare it with.",
            choices=LOSSES,
        ).metadata,
    )
    loss_form: str = field(
        default="scalar",
        metadata=About(
            "Of the structural similarity loss; scalar: as in the authors' code; pixel: the"
            " published equation.",
            choices=LOSS_FORMS,
        ).metadata,
    )
    sync_loss: bool = field(
        default=False,
        metadata=About(
            "With several processes: the multi-loss takes its sums over all their tiles, as one"
            " process with the same --batch-size would; else each normalises alone."
        ).metadata,
    )
    input_scaling: str = field(
        default="minus_one_one",
        metadata=About(
            "minus_one_one: as in stage 1; zero_one: as in the authors' code.",
            choices=INPUT_SCALINGS,
        ).metadata,
    )
    encoder_shape: dict[str, Any] | None = None
    origin: dict[str, Any] | None = None
    attributions: tuple[str, ...] = ()

    stage = "finetune"
    local = (*RunConfig.local, "encoder", "images", "masks", "val", "group", "attributions")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.instances and not self.foreground:
            raise InputError(
                "instances: need foreground masks, whose values are numbers of objects"
            )
        if self.instances and self.ignore_label is not None:
            self._require_no_label_of_cores(self.ignore_label)
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
    def has_encoder(self) -> bool:
        """Whether the network is a frozen encoder and a decoder, no U-Net."""
        return self.architecture in ENCODER_ARCHITECTURE

    def with_network(self) -> Self:
        """See ``RunConfig``."""
        from genselfdiff.models.encoders.vision_transformer import STRIDE

        if self.architecture is None or not self.has_encoder:
            return super().with_network()
        return self._with_sizes(self.architecture, STRIDE, ENCODER_WIDTH)

    @property
    def kept_start(self) -> float:
        """Share of the weights of the start in those that are validated and exported."""
        return self.start_share or 0.0

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


def read_run_config(path: Path) -> PretrainConfig | FinetuneConfig:
    """The settings of a run of either stage; errors as of `RunConfig.read`."""
    stages = {kind.stage: kind for kind in (PretrainConfig, FinetuneConfig)}
    stage = read_config(path)["stage"]
    if stage not in stages:
        raise ModelError(f"{path}: unknown stage {stage!r}: made by a newer gsd?")
    return stages[stage].read(path)
