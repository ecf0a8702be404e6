"""Windows of slides in every layout are the pixels that were stored."""

import os
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.errors import InputError
from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.slides import open_slide, read_image
from genselfdiff.slides.formats import tiff_level
from genselfdiff.slides.stored import stored_image

WINDOWS = [(0, 0, 602, 413), (0, 0, 1, 1), (601, 412, 1, 1), (60, 61, 70, 71), (500, 3, 102, 9)]

LAYOUTS = {
    "tiles": {"tile": (64, 80)},
    "deflate tiles": {"tile": (64, 64), "compression": "zlib", "predictor": True},
    "one raw strip": {},
    "raw strips of one row": {"rowsperstrip": 1},
    "raw strips": {"rowsperstrip": 7},
    "deflate strips": {"rowsperstrip": 16, "compression": "zlib"},
    "one deflate strip": {"rowsperstrip": 413, "compression": "lzw"},
    "BigTIFF": {"tile": (128, 128), "bigtiff": True},
    "big-endian": {"byteorder": ">", "rowsperstrip": 20},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lossless_layouts(
    tiff: Callable[..., Path], picture: np.ndarray, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_level, "_BAND_BYTES", 602 * 3 * 10)
    with open_slide(tiff(picture, **LAYOUTS[layout])) as slide:
        assert (slide.width, slide.height) == (602, 413)
        for x, y, w, h in WINDOWS:
            window = slide.read_level(x, y, w, h)
            assert window.dtype == np.uint8
            np.testing.assert_array_equal(window, picture[y : y + h, x : x + w])


@pytest.mark.parametrize("options", [{"tile": (64, 64)}, {"rowsperstrip": 9}, {"tile": (32, 48)}])
def test_planes_stored_apart(
    tiff: Callable[..., Path], picture: np.ndarray, options: dict[str, object]
) -> None:
    planes = np.ascontiguousarray(np.moveaxis(picture, -1, 0))
    for compression in ("zlib", None):
        path = tiff(planes, planarconfig="separate", compression=compression, **options)
        np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_tiles(
    tiff: Callable[..., Path], picture: np.ndarray, subsampling: tuple[int, int]
) -> None:
    path = tiff(
        picture,
        tile=(64, 64),
        compression="jpeg",
        compressionargs={"level": 95},
        subsampling=subsampling,
    )
    difference = read_image(path).astype(int) - picture
    assert abs(difference).mean() < (3 if subsampling == (1, 1) else 8)
    assert abs(difference.mean(axis=(0, 1))).max() < 1  # no tint: the colour space is right


def test_pixel_formats(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    grey = picture[..., 0]
    repeated = np.repeat(grey[..., None], 3, axis=-1)
    cases = [
        (tiff(grey), repeated),
        (tiff(255 - grey, photometric="miniswhite"), repeated),
        (tiff(grey > 128, name="bits.tif", photometric="minisblack"), 255 * (repeated > 128)),
        (tiff(grey.astype(np.uint16) * 257, name="grey16.tif"), repeated),
        (tiff(picture.astype(np.uint16) * 257, name="rgb16.tif", tile=(64, 64)), picture),
        (tiff(picture.astype(np.uint16) * 257, name="be16.tif", byteorder=">"), picture),
    ]
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    palette = tiff(
        grey, name="palette.tif", photometric="palette", colormap=colours * 257, tile=(64, 64)
    )
    cases.append((palette, colours.T[grey]))
    for path, expected in cases:
        np.testing.assert_array_equal(read_image(path), expected, err_msg=path.name)


def test_transparency_is_laid_over_white(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    alpha[:100] = 0
    alpha[100:200] = 51
    straight = np.concatenate([picture, alpha], axis=-1)
    expected = np.rint(picture * (alpha / 255.0) + 255 - alpha)
    premultiplied = np.concatenate([np.rint(picture * (alpha / 255.0)), alpha], axis=-1)
    files = [
        tiff(straight, "straight.tif", extrasamples=["unassalpha"], tile=(64, 64)),
        tiff(premultiplied.astype(np.uint8), "premultiplied.tif", extrasamples=["assocalpha"]),
    ]
    for path in files:
        assert abs(read_image(path) - expected).max() <= 1
    ignored = tiff(straight, "ignored.tif", extrasamples=["unspecified"])
    np.testing.assert_array_equal(read_image(ignored), picture)


@pytest.mark.parametrize("converted", [True, False])
def test_aperio_jpeg_2000(tmp_path: Path, picture: np.ndarray, converted: bool) -> None:
    """Compression 33003 holds YCbCr without saying so, 33005 RGB."""
    pixels = np.ascontiguousarray(picture[:128, :256])
    stored = pixels if converted else np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    tiles = [
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(stored[:, x : x + 128]), codecformat="j2k", mct=converted, level=0
        )
        for x in (0, 128)
    ]
    path = tmp_path / "a.svs"
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter(tiles),
            shape=pixels.shape,
            dtype=np.uint8,
            tile=(128, 128),
            photometric="rgb",
            compression=33005 if converted else 33003,
        )
    difference = abs(read_image(path).astype(int) - pixels)
    assert difference.max() <= (0 if converted else 3)


@pytest.mark.parametrize("kind", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_png_and_jpeg_kinds(tmp_path: Path, picture: np.ndarray, kind: str) -> None:
    path = tmp_path / ("a.jpg" if kind == "CMYK" else "a.png")
    if kind == "I;16":
        image = Image.fromarray(picture[..., 0].astype(np.uint16) * 257)
        expected = np.repeat(picture[..., :1], 3, axis=-1)
    else:
        image = Image.fromarray(picture).convert(kind)
        expected = np.asarray(image.convert("RGB"))
    image.save(path)
    difference = abs(read_image(path).astype(int) - expected)
    assert difference.mean() < (10 if kind == "CMYK" else 1e-9)


def test_a_transparent_png_is_laid_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (5, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize(("name", "subifds"), [("a.tif", False), ("a.ome.tif", True)])
def test_pyramids(
    pyramid: Callable[..., Path], picture: np.ndarray, name: str, subifds: bool
) -> None:
    with open_slide(pyramid(name, subifds=subifds)) as slide:
        sizes = [(level.width, level.height, level.downsample) for level in slide.levels]
        assert sizes == [(602, 413, 1.0), (301, 207, 2.0), (151, 104, 4.0)]
        for i, step in enumerate((1, 2, 4)):
            expected = picture if step == 1 else picture[::step, ::step] // 2 + step
            window = slide.read_level(3, 5, 100, 90, level=i)
            np.testing.assert_array_equal(window, expected[5:95, 3:103])


def test_svs_pages_that_are_no_levels(tmp_path: Path, picture: np.ndarray) -> None:
    """Thumbnail, label and macro are left out, even a macro larger than the slide."""
    path = tmp_path / "a.svs"
    aperio = "Aperio Image Library v11.2.1 \n"
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "rgb", "metadata": None}
        tiles = {**options, "tile": (64, 64)}
        writer.write(picture, description=aperio + "602x413 |MPP = 0.5", **tiles)
        writer.write(picture[::3, ::3], description=aperio + "602x413 -> 201x138 - ", **options)
        writer.write(picture[::4, ::4], description=aperio + "602x413 -> 151x104|X = 1", **tiles)
        writer.write(picture[:90, :70], description=aperio + "label 70x90", **options)
        big = np.zeros((900, 1400, 3), np.uint8)
        writer.write(big, description=aperio + "macro 1400x900", subfiletype=9, **options)
    with open_slide(path) as slide:
        assert [(level.width, level.height) for level in slide.levels] == [(602, 413), (151, 104)]
        assert slide.levels[1].downsample == 4
        assert slide.mpp == 0.5


def test_tiles_without_data_are_glass(tmp_path: Path, picture: np.ndarray) -> None:
    tile = np.ascontiguousarray(picture[:64, :64])
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        tiles = iter([imagecodecs.zlib_encode(tile), b"", b"", imagecodecs.zlib_encode(tile)])
        writer.write(
            tiles,
            shape=(128, 128, 3),
            dtype=np.uint8,
            tile=(64, 64),
            photometric="rgb",
            compression="zlib",
        )
    pixels = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels[:64, :64], tile)
    np.testing.assert_array_equal(pixels[64:, 64:], tile)
    assert (pixels[:64, 64:] == 255).all() and (pixels[64:, :64] == 255).all()


def test_thumbnail(pyramid: Callable[..., Path], picture: np.ndarray) -> None:
    with open_slide(pyramid()) as slide:
        np.testing.assert_array_equal(slide.thumbnail(1000), picture)
        np.testing.assert_array_equal(slide.thumbnail(602), picture)
        small = slide.thumbnail(100)
        assert small.shape == (69, 100, 3)
        small[:] = 0
        assert slide.thumbnail(100).any(), "a caller's changes must not be remembered"


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, 0, 5), (600, 0, 3, 1), (0, 410, 1, 4)])
def test_windows_outside(
    tiff: Callable[..., Path], picture: np.ndarray, window: tuple[int, int, int, int]
) -> None:
    with open_slide(tiff(picture)) as slide, pytest.raises(ValueError, match="not inside 602 x"):
        slide.read_level(*window)


def test_a_closed_slide_does_not_read(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    slide = open_slide(tiff(picture, tile=(64, 64)))
    view = slide.at_mpp(None)
    slide.close()
    slide.close()
    with pytest.raises(ValueError, match="closed"):
        slide.read_level(0, 0, 1, 1)
    with pytest.raises(ValueError, match="closed"):
        view.read(0, 0, 1, 1)


def test_closing_releases_the_file(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    path = tiff(picture, tile=(64, 64))
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with open_slide(path) as slide:
            slide.read_level(0, 0, 9, 9)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("layout", ["tiles", "raw strips", "one deflate strip"])
def test_threads_read_the_same(tiff: Callable[..., Path], picture: np.ndarray, layout: str) -> None:
    with open_slide(tiff(picture, **LAYOUTS[layout])) as slide, ThreadPoolExecutor(6) as pool:

        def wrong(seed: int) -> list[tuple[int, int]]:
            return [
                (x, y)
                for x, y in np.random.default_rng(seed).integers(0, 350, (60, 2)).tolist()
                if (slide.read_level(x, y, 50, 60) != picture[y : y + 60, x : x + 50]).any()
            ]

        assert list(pool.map(wrong, range(6))) == [[]] * 6


def test_a_forked_process_reads_the_same(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    with open_slide(tiff(picture, tile=(16, 16))) as slide:
        status = 1
        child = os.fork()
        try:
            right = True
            for _ in range(20):
                right &= bool((slide.read_level(0, 0, 602, 413) == picture).all())
                slide._stored.forget_pieces()
            status = int(not right)
        finally:
            if child == 0:  # whatever happens, the child must not go on with the tests
                os._exit(status)
        assert right
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(("compression", "side"), [("jpeg2000", 2048), ("webp", 4096)])
def test_a_blank_tile_of_a_few_bytes(
    tiff: Callable[..., Path], compression: str, side: int
) -> None:
    pixels = np.full((side, side, 3), 255, np.uint8)
    with open_slide(tiff(pixels, tile=(side, side), compression=compression)) as slide:
        assert (slide.read_level(0, 0, 9, 9) == 255).all()


@pytest.fixture(scope="module")
def giant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40,000 x 40,000 pixels of class 0, but for a block of class 1."""
    path = tmp_path_factory.mktemp("giant") / "giant.tif"
    rows = np.zeros((500, 40_000), np.uint8)
    colours = [(240, 240, 240), (180, 60, 120)]
    with MaskWriter(
        path, PyramidShape(40_000, 40_000, 0.25), palette=colours, class_names=["a", "b"]
    ) as writer:
        for y in range(0, 40_000, 500):
            rows[:, 30_000:] = y >= 30_000
            writer.write_rows(rows)
    return path


def test_a_giant_is_read_in_bounded_memory(giant: Path) -> None:
    stored_image._CACHE.reset()
    tracemalloc.start()
    try:
        with open_slide(giant) as slide:
            assert (slide.read_level(29_900, 29_900, 200, 200)[:100, :100] == 240).all()
            for x in range(0, 39_000, 3000):
                view = slide.at_mpp(0.4)
                view.read(x * view.width // 40_000, 20_000, 512, 512)
            assert slide.thumbnail(200)[-1, -1].tolist() == [180, 60, 120]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * 2**20


def test_a_giant_is_not_read_at_once(giant: Path) -> None:
    with pytest.raises(InputError, match="40000 x 40000 pixels are too many"):
        read_image(giant)
