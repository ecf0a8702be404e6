"""The words that options take, bounds of their numbers, and the colours that classes have.

A command line needs them before it knows whether anything is to be computed, so this module
imports nothing.
"""

DEFAULT_MODEL = "nuclei"
"""The model of those that come with gsd that is used where none is named."""
FIELD_RANKINGS = ("random", "variety", "model")
"""By what fields to annotate are chosen."""
PRECISIONS = ("auto", "float32", "bfloat16")
MODEL_FORMATS = ("torchscript", "onnx", "pt2", "bioimageio")
"""What a model file is written as."""
VIEWS = (1, 2, 4, 8)
"""How many ways of looking at a tile can be averaged."""
ON_ERROR = ("fail", "blank")
"""What can be done about a damaged piece of a slide: end with an error, or take it for glass."""
FIELD_CLASS = "Region*"
"""QuPath's own class for what is no tissue class, but a part of the slide."""

MPP_RANGE = (0.01, 100.0)
"""Range of um/px outside which a resolution that a user gives is taken for a mistake."""
SIZE_MULTIPLE = 8
"""Networks see heights and widths that are multiples of this, if they do not tell another."""
LARGEST_TILE = 4096
"""Pixels of a side: a tile of so many, and what a model gives for it, takes a GiB."""
INPUT_SCALINGS = {"minus_one_one": (1 / 127.5, -1.0), "zero_one": (1 / 255, 0.0)}
"""Factor and shift from grey levels 0..255 to what a network sees."""

ARCHITECTURES = {
    "paper": "the published network, 31.3 M parameters",
    "small": "half the width, 7.9 M parameters; for laptops",
    "fast": "half the resolution, a quarter of the pixels, 5.9 M parameters",
    "fastest": "most layers at a quarter of the resolution, 7.5 M parameters",
    "tiny": "0.8 M parameters; for trying things out",
}
DEFAULT_ARCHITECTURE = "small"
ENCODER_ARCHITECTURE = {"vit": "that of --encoder, frozen, and a small decoder"}
"""Of stage 2 alone."""
ENCODER_WIDTH = 32
FRESH_WEIGHTS = ("torch", "normal")
INIT_LAYERS = ("all", "encoder")
"""What of a network that a run starts from is taken along; its output head as it fits."""
DECAYS = ("cosine", "none")
"""What becomes of the learning rate."""
SCHEDULES = ("quadratic", "linear", "sigmoid", "cosine")
"""Of noise."""
AUGMENTATIONS = ("none", "paper", "default", "strong")
LOSSES = ("multi", "structural_similarity", "focal", "cross_entropy")
"""Of stage 2: the multi-loss, either of its parts, and what most train with."""
LOSS_FORMS = ("scalar", "pixel")
"""Of the structural similarity loss."""

_BACKGROUND_COLOR = (255, 255, 255)
_CLASS_COLORS = (
    (0, 200, 70),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (230, 25, 75),
)
"""Green first, the complement of the stains; they repeat after the eighth class."""


def class_color(index: int) -> tuple[int, int, int]:
    """(red, green, blue), 0 to 255, of the class ``index``; 0 is the background."""
    return _CLASS_COLORS[(index - 1) % len(_CLASS_COLORS)] if index else _BACKGROUND_COLOR
