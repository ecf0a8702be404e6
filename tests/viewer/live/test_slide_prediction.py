"""Blocks in any order are what ``gsd segment`` writes, pixel for pixel."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import genselfdiff
from genselfdiff.live import slide_prediction
from genselfdiff.live.blocks import Block, blocks_in
from genselfdiff.live.slide_prediction import SlidePrediction
from genselfdiff.masks import MaskReader
from genselfdiff.segmenting.one_slide import predictor_of
from genselfdiff.segmenting.options import Options
from genselfdiff.slides import open_slide

Make = Callable[..., Path]

SIZE = 1100, 700
"""Height and width: three rows of two blocks, cut off at both ends."""


def predicted(slide: Path, model: Path, order: list[Block], options: Options) -> np.ndarray:
    """The labels of all blocks, each predicted when its turn has come."""
    with open_slide(slide, mpp=options.mpp) as source:
        prediction = SlidePrediction(source, predictor_of(model, options), options)
        prediction.obey()
        labels = np.full((source.height, source.width), 99, np.uint8)
        for block in order:
            while missing := prediction.missing(block)[: prediction.batch_size]:
                prediction.add(missing, prediction.predictor(prediction.read(missing)))
            x, y, width, height = block.window(source.width, source.height)
            labels[y : y + height, x : x + width] = prediction.labels(block)
    return labels


@pytest.mark.parametrize(
    ("mpp", "options"),
    [
        (0.5, {}),
        (0.5, {"batch_size": 3, "tissue": False, "overlap": 0.4}),
        (0.25, {"tta": 2}),
        (0.83, {"tile_size": 128}),
    ],
)
def test_every_pixel_is_that_of_the_mask(
    tmp_path: Path,
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    textured_model: Path,
    mpp: float,
    options: dict[str, object],
) -> None:
    image = picture(*SIZE, size=20)
    image[300:800, 200:640] = 250  # glass, whose tiles are left out
    slide, mask = write_slide(image, mpp), tmp_path / "mask.tif"
    options |= {"device": "cpu"}
    genselfdiff.segment(slide, mask, textured_model, **options)
    order = blocks_in(0, 0, SIZE[1], SIZE[0])
    assert len(order) == 6
    random.Random(1).shuffle(order)
    labels = predicted(slide, textured_model, order, Options(**options))
    with MaskReader(mask) as reader:
        wanted = reader.read(0, 0, SIZE[1], SIZE[0])
    assert len(np.unique(wanted)) >= 2
    np.testing.assert_array_equal(labels, wanted)


def test_tiles_that_were_given_up_meanwhile_are_predicted_again(
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    textured_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slide = write_slide(picture(*SIZE))
    order = blocks_in(0, 0, SIZE[1], SIZE[0])
    options = Options(device="cpu")
    kept = predicted(slide, textured_model, order, options)
    monkeypatch.setattr(slide_prediction, "_TILE_BYTES", 0)
    np.testing.assert_array_equal(predicted(slide, textured_model, order, options), kept)


def test_tiles_are_predicted_once_for_all_blocks_around(
    picture: Callable[..., np.ndarray], write_slide: Make, textured_model: Path
) -> None:
    slide, options = write_slide(picture(*SIZE)), Options(device="cpu", tissue=False)
    with open_slide(slide) as source:
        prediction = SlidePrediction(source, predictor_of(textured_model, options), options)
        blocks = blocks_in(0, 0, SIZE[1], SIZE[0])
        asked = []
        for block in blocks:
            missing = prediction.missing(block)
            asked += missing
            prediction.add(missing, torch.zeros(len(missing), 3, 64, 64))
        assert len(asked) == len(set(asked)) == 23 * 15  # 48 pixels apart at most
