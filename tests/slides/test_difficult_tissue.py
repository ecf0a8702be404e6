"""Slides on which tissue is hard to tell: pale, dark, written on, dusty, scanned in darkness."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from genselfdiff.slides import TissueMap, open_slide, tissue_mask

GLASS = (243, 243, 245)
EOSIN, PALE, DENSE, FAT = (222, 160, 195), (236, 219, 231), (70, 35, 95), (240, 228, 236)


def slide(tissue: tuple[int, int, int], glass: tuple[int, int, int] = GLASS) -> Image.Image:
    """600 x 400 of glass with a disc of tissue of radius 120 in the middle, and a scan's noise."""
    picture = Image.new("RGB", (600, 400), glass)
    ImageDraw.Draw(picture).ellipse((180, 80, 420, 320), fill=tissue)
    return picture


def scanned(picture: Image.Image, quality: int = 70) -> np.ndarray:
    """The picture with the noise of a camera and a JPEG."""
    noise = np.random.default_rng(0).normal(0, 3, (*picture.size[::-1], 3))
    pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[:400, :600]
    return np.hypot(x - 300, y - 200) < radius


@pytest.mark.parametrize("tissue", [EOSIN, PALE, DENSE])
@pytest.mark.parametrize("quality", [95, 70, 30])
def test_the_section_is_found_and_only_the_section(
    tissue: tuple[int, int, int], quality: int
) -> None:
    mask = tissue_mask(scanned(slide(tissue), quality))
    assert mask[disc(112)].mean() > 0.999
    assert mask[~disc(135)].mean() < 0.001


@pytest.mark.parametrize("glass", [(255, 255, 255), (228, 226, 222), (205, 205, 207)])
def test_glass_of_any_brightness_is_glass(glass: tuple[int, int, int]) -> None:
    mask = tissue_mask(scanned(slide(EOSIN, glass)))
    assert mask[disc(112)].all()
    assert mask[~disc(135)].mean() < 0.001


@pytest.mark.parametrize("ink", [(20, 20, 25), (30, 60, 190), (20, 130, 70), (200, 30, 40)])
def test_pen_does_not_hide_tissue(ink: tuple[int, int, int]) -> None:
    """A circle around the section and a stroke over it: what is not under black ink is found."""
    picture = slide(EOSIN)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((150, 50, 450, 350), outline=ink, width=8)
    draw.line((180, 200, 420, 200), fill=ink, width=6)
    mask = tissue_mask(scanned(picture))
    free = disc(112)
    free[185:215] = False
    assert mask[free].all()
    assert mask[~disc(165)].mean() < 0.01, "the glass outside the circle"


def test_black_marks_dust_and_the_scanners_border_are_no_tissue() -> None:
    picture = slide(EOSIN)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 599, 20), fill=(0, 0, 0))
    draw.line((20, 40, 20, 380), fill=(25, 25, 25), width=10)
    for x in range(40, 600, 40):
        draw.ellipse((x, 370, x + 3, 373), fill=(90, 90, 90))
    mask = tissue_mask(scanned(picture))
    assert mask[disc(112)].all()
    assert mask[~disc(135)].mean() < 0.002


@pytest.mark.parametrize("tissue", [PALE, FAT])
def test_every_tile_of_a_pale_section_is_predicted(
    tissue: tuple[int, int, int], tiff: Callable[..., Path]
) -> None:
    """Fat is mostly as clear as glass; strands of stroma between cells are what is to be found."""
    picture = slide(tissue)
    if tissue == FAT:
        draw = ImageDraw.Draw(picture)
        for place in range(60, 440, 24):
            draw.line((180, place, 420, place - 60), fill=EOSIN, width=3)
    path = tiff(scanned(picture), tile=(64, 64), compression="zlib")
    with open_slide(path) as opened:
        tissue_map = TissueMap(opened)
        for y in range(120, 280, 32):
            for x in range(220, 380, 32):
                assert tissue_map.any(x, y, 32, 32)
        assert not tissue_map.any(0, 0, 140, 400)


def test_tissue_at_the_right_and_bottom_edge_is_found(tiff: Callable[..., Path]) -> None:
    """Of odd sizes, so that the last pixel of the overview stands for less than the others."""
    pixels = np.full((1237, 2411, 3), GLASS, np.uint8)
    pixels[1190:, 2350:] = EOSIN
    with open_slide(tiff(pixels, tile=(256, 256), compression="zlib")) as opened:
        tissue_map = TissueMap(opened, max_side=300)
        assert tissue_map.any(2410, 1236, 1, 1)
        assert not tissue_map.any(0, 0, 2300, 1237)
