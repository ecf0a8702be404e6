import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.errors import InputError
from genselfdiff.slides import TissueMap, open_slide, tissue_mask

RNG_NOISE = np.random.default_rng(0).normal(0, 2, (80, 100, 3))


def field(colour: tuple[int, int, int], noise: float = 1.0) -> np.ndarray:
    return np.clip(np.array(colour) + noise * RNG_NOISE, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize(
    "colour",
    [
        (232, 212, 226),  # pale stroma
        (225, 170, 200),  # eosin
        (120, 80, 150),  # haematoxylin
        (60, 30, 80),  # dense nuclei
        (190, 150, 110),  # DAB
        (205, 208, 232),  # haematoxylin alone, faint
    ],
)
def test_a_field_of_tissue_is_tissue_everywhere(colour: tuple[int, int, int]) -> None:
    assert tissue_mask(field(colour)).all()


@pytest.mark.parametrize(
    "colour",
    [
        (255, 255, 255),
        (243, 243, 243),
        (200, 200, 200),
        (128, 128, 128),
        (0, 0, 0),
        (245, 242, 232),  # the yellow tint of glass
    ],
)
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_field_of_glass_has_no_tissue(colour: tuple[int, int, int], noise: float) -> None:
    assert not tissue_mask(field(colour, noise)).any()


def test_the_border_is_found_to_a_few_pixels() -> None:
    picture = field((243, 243, 243))
    picture[20:60, 30:70] = field((225, 170, 200))[20:60, 30:70]
    mask = tissue_mask(picture)
    assert mask.dtype == np.bool_
    assert mask[20:60, 30:70].all()
    assert not mask[:17].any() and not mask[63:].any()
    assert not mask[:, :27].any() and not mask[:, 73:].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
def test_tiny_pictures(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), (225, 170, 200), np.uint8)
    assert tissue_mask(picture).all()


@pytest.fixture
def half_tissue(tmp_path: Path) -> Path:
    """640 x 400 pixels, the right half stained."""
    picture = np.full((400, 640, 3), 240, np.uint8)
    picture[:, 320:] = (225, 170, 200)
    Image.fromarray(picture).save(tmp_path / "half.png")
    return tmp_path / "half.png"


@pytest.mark.parametrize(
    ("rectangle", "expected"),
    [
        ((0, 0, 640, 400), 0.5),
        ((0, 0, 300, 400), 0.0),
        ((340, 10, 100, 100), 1.0),
        ((220, 7, 200, 33), 0.5),
        ((540, 300, 200, 200), 0.25),  # half beyond the right edge, half below
        ((700, 500, 50, 50), 0.0),
    ],
)
def test_fraction(half_tissue: Path, rectangle: tuple[int, ...], expected: float) -> None:
    with open_slide(half_tissue) as slide:
        tissue = TissueMap(slide, max_side=160)
        assert tissue.mask.shape == (100, 160)
        # Smoothing moves the border by up to two pixels of the thumbnail.
        assert tissue.fraction(*rectangle) == pytest.approx(expected, abs=9 / rectangle[2])


def test_fractions_below_a_pixel_of_the_thumbnail(half_tissue: Path) -> None:
    with open_slide(half_tissue) as slide:
        tissue = TissueMap(slide, max_side=64)
        assert tissue.fraction(500, 200, 1, 1) == pytest.approx(1)
        assert tissue.fraction(100, 200, 1, 1) == 0


def test_the_map_agrees_with_counting(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    with open_slide(tiff(picture, tile=(64, 64))) as slide:
        tissue = TissueMap(slide, max_side=2048)
        assert 0.05 < tissue.mask.mean() < 0.99
        part = tissue.mask[30:130, 200:350].mean()
        assert tissue.fraction(200, 30, 150, 100) == pytest.approx(part)


@pytest.mark.parametrize("side", [611, 997, 1013])
def test_any_counts_every_pixel_that_is_touched_and_no_other(tmp_path: Path, side: int) -> None:
    """At ratios that are no whole number, fractions of empty rectangles are not quite 0."""
    picture = np.full((side, side, 3), 240, np.uint8)
    picture[: side // 3, : side // 2] = (225, 170, 200)
    Image.fromarray(picture).save(tmp_path / "corner.png")
    with open_slide(tmp_path / "corner.png") as slide:
        tissue = TissueMap(slide, max_side=100)
    rows, columns = (
        mask.nonzero()[0].max() + 1 for mask in (tissue.mask.any(1), tissue.mask.any(0))
    )
    below, right = (-(-count * side // 100) for count in (rows, columns))
    rng = np.random.default_rng(0)
    for x, y, w, h in rng.integers(0, side // 4, (500, 4)).tolist():
        assert not tissue.any(x, below + y, w + 1, h + 1)
        assert not tissue.any(right + x, y, w + 1, h + 1)
        assert tissue.any(x, y, w + 1, h + 1)
    assert tissue.any(0, below - 1, 1, 1)
    assert tissue.any(right - 1, 0, 1, 1)


MASK = np.zeros((130, 190), bool)
MASK[50:53, 60] = MASK[129, 189] = MASK[0, 0] = True


@pytest.mark.parametrize(
    "kind", ["uint8.tif", "uint16.tif", "palette.tif", "sparse.tif", "rgb.png", "p.png"]
)
def test_a_given_mask_is_tissue_where_it_is_not_zero(
    tmp_path: Path, tiff: Callable[..., Path], kind: str
) -> None:
    """Ones in 16 bits, or an index that a palette paints nearly black, are not 0 either."""
    path = tmp_path / kind
    if kind == "palette.tif":
        dark = np.full((3, 256), 65535, np.uint16)
        dark[:, 1], dark[:, 2] = (0, 0, 512), 0
        tifffile.imwrite(path, MASK.astype(np.uint8), photometric="palette", colormap=dark)
    elif kind == "sparse.tif":
        tiles = [MASK[y : y + 64, x : x + 64] for y in (0, 64, 128) for x in (0, 64, 128)]
        padded = [np.pad(t, ((0, 64 - t.shape[0]), (0, 64 - t.shape[1]))) for t in tiles]
        data = [zlib.compress(tile.astype(np.uint8)) if tile.any() else b"" for tile in padded]
        tifffile.imwrite(
            path, iter(data), shape=MASK.shape, dtype="u1", tile=(64, 64), compression="zlib"
        )
    elif kind == "rgb.png":
        Image.fromarray(np.stack((0 * MASK, 0 * MASK, MASK), -1).astype(np.uint8)).save(path)
    elif kind == "p.png":
        image = Image.fromarray(MASK.astype(np.uint8), "L").convert("P")
        image.putpalette([255, 255, 255, 0, 1, 0, 0, 0, 0])
        image.save(path)
    else:
        tifffile.imwrite(path, MASK.astype(kind.split(".")[0]))
    with open_slide(tiff(np.full((260, 380, 3), 255, np.uint8))) as slide:
        np.testing.assert_array_equal(TissueMap(slide, mask_file=path).mask, MASK)
        small = TissueMap(slide, max_side=19, mask_file=path)
        assert small.mask.shape == (13, 19)
        assert small.mask.sum() == 3  # thin tissue is not averaged away
        assert small.any(100, 90, 25, 15) and not small.any(0, 140, 380, 60)


@pytest.mark.parametrize("kind", ["mask.tif", "mask.png"])
def test_a_given_mask_of_which_0_may_be_marked(
    tmp_path: Path, tiff: Callable[..., Path], kind: str
) -> None:
    """Its palette lists white first: programs that sort colours by frequency leave such files."""
    colours = np.zeros((256, 3), np.uint8)
    colours[0] = 255
    if kind == "mask.tif":
        table = colours.T.astype(np.uint16) * 257
        tifffile.imwrite(tmp_path / kind, MASK.astype("u1"), photometric="palette", colormap=table)
    else:
        image = Image.fromarray(MASK.astype(np.uint8), "L").convert("P")
        image.putpalette(colours.tobytes())
        image.save(tmp_path / kind)
    with (
        open_slide(tiff(np.full((260, 380, 3), 255, np.uint8))) as slide,
        pytest.raises(InputError, match="may mean two things; save it with 0 as black"),
    ):
        TissueMap(slide, mask_file=tmp_path / kind)


def test_a_mask_of_another_slide(tmp_path: Path, tiff: Callable[..., Path]) -> None:
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    with (
        open_slide(tiff(np.full((380, 260, 3), 255, np.uint8))) as slide,
        pytest.raises(InputError, match=r"mask\.png: 190 x 130 pixels do not have the proportions"),
    ):
        TissueMap(slide, mask_file=tmp_path / "mask.png")


def test_tissue_in_a_window_is_that_of_the_whole() -> None:
    path = Path(__file__).parents[2] / "examples" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide:
        whole = TissueMap(slide, max_side=500).mask
        part = TissueMap(slide, max_side=500, window=(700, 900, 800, 700)).mask
    scale = 2967 / 500
    inside = np.s_[int(900 / scale) : int(1600 / scale), int(700 / scale) : int(1500 / scale)]
    np.testing.assert_array_equal(part[inside], whole[inside])
    assert not part[: int(900 / scale) - 6].any()
