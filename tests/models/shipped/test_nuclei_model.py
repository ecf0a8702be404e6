"""The weights that come with gsd: what they find stays what it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genselfdiff.choices import DEFAULT_MODEL
from genselfdiff.inference.predictor import Predictor
from genselfdiff.inference.resample import is_core, labels_of
from genselfdiff.models.model_file import load_model
from genselfdiff.slides import open_slide

SIDE = 512
CROPS = {"epidermis": (2200, 1500), "dermis": (1300, 3300)}
"""Left and top of crops of the sample slide at 0.25 um/px."""


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("name", CROPS)
@pytest.mark.parametrize(
    ("precision", "least"), [("float32", 0.998), ("bfloat16", 0.97)], indirect=["precision"]
)
def test_masks_are_those_that_were_looked_at(request, name, precision, least):
    root: Path = request.config.rootpath
    stored = np.asarray(Image.open(root / "tests" / "reference" / f"nuclei_{name}.png"))
    with open_slide(root / "examples" / "CMU-1-Small-Region.svs") as slide:
        pixels = slide.at_mpp(0.25).read(*CROPS[name], SIDE, SIDE)
    predictor = Predictor(load_model(DEFAULT_MODEL, "cpu"), precision)
    given = predictor(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
    nuclei = labels_of(given[:2]) == 1
    assert dice(nuclei, stored > 0) >= least
    assert dice(is_core(given[2]) & nuclei, stored > 1) >= least
