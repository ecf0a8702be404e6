"""Reading masks that programs store in other ways than one index a pixel."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from genselfdiff.data.labelled.masks import has_soft_edges, is_foreground, open_mask, read_mask
from genselfdiff.errors import InputError

BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0)
GREY = (128, 128, 128)

OBJECT = np.zeros((24, 30), np.uint8)
OBJECT[4:10, 6:20] = 1


def palette_mask(path: Path, labels: NDArray[np.uint8], *colours: tuple[int, int, int]) -> Path:
    """``labels`` as a PNG, or as a TIFF of 8-bit or 16-bit colours, with ``colours``."""
    if path.suffix == ".png":
        image = Image.fromarray(labels).convert("P")
        image.putpalette([channel for colour in colours for channel in colour])
        image.save(path)
    else:
        table = np.zeros((3, 256), np.uint16)
        table[:, : len(colours)] = np.transpose(colours)
        table *= 1 if path.stem == "narrow" else 257
        tifffile.imwrite(path, labels, photometric="palette", colormap=table)
    return path


FORMS = ["mask.png", "mask.tif", "narrow.tif"]


@pytest.mark.parametrize("name", FORMS)
def test_of_black_and_white_the_colours_decide(tmp_path: Path, name: str) -> None:
    path = palette_mask(tmp_path / name, 1 - OBJECT, WHITE, BLACK)
    mask = open_mask(path)
    np.testing.assert_array_equal(mask.values, OBJECT * 255)
    assert "by its colours" in mask.oddity
    np.testing.assert_array_equal(open_mask(path, by_colours=False).values, 1 - OBJECT)
    for labels, shown in ((np.ones_like(OBJECT), 0), (np.zeros_like(OBJECT), 255)):
        path = palette_mask(tmp_path / name, labels, WHITE, BLACK)
        assert np.unique(read_mask(path)).tolist() == [shown]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "colours",
    [(BLACK, WHITE, RED), (WHITE, RED, GREEN), (BLACK, BLACK, BLACK), (BLACK, GREY, WHITE)],
)
def test_where_no_other_index_is_black_the_indices_count(
    tmp_path: Path, name: str, colours: tuple[tuple[int, int, int], ...]
) -> None:
    labels = OBJECT.copy()
    labels[20:, :5] = 2
    mask = open_mask(palette_mask(tmp_path / name, labels, *colours))
    np.testing.assert_array_equal(mask.values, labels)
    assert not mask.oddity


@pytest.mark.parametrize("colours", [(RED, BLACK), (WHITE, BLACK, RED), (WHITE, RED, BLACK)])
def test_a_background_that_is_not_the_first_colour_is_refused(
    tmp_path: Path, colours: tuple[tuple[int, int, int], ...]
) -> None:
    labels = OBJECT.copy()
    labels[20:, :5] = len(colours) - 1
    path = palette_mask(tmp_path / "mask.png", labels, *colours)
    with pytest.raises(InputError, match=r"mask\.png: its palette shows \d in black, but 0 in #ff"):
        read_mask(path)


@pytest.mark.parametrize(
    ("colours", "alpha", "is_read"),
    [
        ((BLACK, RED), (0, 255), True),
        ((WHITE, BLACK), (0, 255), True),
        ((WHITE, WHITE), (0, 255), True),
        ((WHITE, BLACK), (255, 0), False),
        ((WHITE, WHITE), (255, 0), False),
        ((RED, GREEN), (128, 0), False),
        ((BLACK, RED), (255, 100), True),
    ],
)
def test_what_a_palette_hides_is_the_background(
    tmp_path: Path,
    colours: tuple[tuple[int, int, int], ...],
    alpha: tuple[int, int],
    is_read: bool,
) -> None:
    path = palette_mask(tmp_path / "mask.png", OBJECT, *colours)
    with Image.open(path) as image:
        image.save(tmp_path / "hidden.png", transparency=bytes(alpha))
    if is_read:
        np.testing.assert_array_equal(read_mask(tmp_path / "hidden.png"), OBJECT)
    else:
        with pytest.raises(InputError, match=r"hidden\.png: its palette hides 1, but shows 0"):
            read_mask(tmp_path / "hidden.png")


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_tiff_of_which_0_is_white(tmp_path: Path, bits: int) -> None:
    shown = OBJECT.astype(bool) if bits == 1 else OBJECT.astype(f"u{bits // 8}") * (2**bits - 1)
    tifffile.imwrite(
        tmp_path / "mask.tif", shown.max() - shown if bits > 1 else ~shown, photometric="miniswhite"
    )
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), OBJECT * 255)
    labels = OBJECT * np.uint8(2)
    tifffile.imwrite(tmp_path / "classes.tif", labels, photometric="miniswhite")
    np.testing.assert_array_equal(read_mask(tmp_path / "classes.tif"), labels)


def with_alpha(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.dstack([*[colour] * 3, alpha])


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("colour", [0, 255])
def test_of_a_picture_in_one_colour_the_alpha_channel_is_the_mask(
    tmp_path: Path, suffix: str, colour: int
) -> None:
    path, alpha = tmp_path / f"mask.{suffix}", OBJECT * np.uint8(255)
    Image.fromarray(with_alpha(np.full_like(OBJECT, colour), alpha)).save(path)
    mask = open_mask(path)
    np.testing.assert_array_equal(mask.values, alpha)
    assert "transparency" in mask.oddity
    Image.merge("LA", [Image.fromarray(OBJECT * 0), Image.fromarray(alpha)]).save(path)
    np.testing.assert_array_equal(read_mask(path), alpha)
    for opacity, value in ((0, 0), (255, colour)):
        Image.fromarray(
            with_alpha(np.full_like(OBJECT, colour), np.full_like(OBJECT, opacity))
        ).save(path)
        assert np.unique(read_mask(path)).tolist() == [value]


@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_alpha_that_tells_nothing_is_left_out(tmp_path: Path, opacity: int) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(with_alpha(OBJECT, np.full_like(OBJECT, opacity))).save(path)
    assert open_mask(path).oddity == ""
    np.testing.assert_array_equal(read_mask(path), OBJECT)
    Image.fromarray(with_alpha(OBJECT * 3, OBJECT * 200)).save(path)
    np.testing.assert_array_equal(read_mask(path), OBJECT * 3)


def test_labels_that_are_transparent_are_refused(tmp_path: Path) -> None:
    alpha = np.full_like(OBJECT, 255)
    alpha[5, 7] = 0
    Image.fromarray(with_alpha(OBJECT, alpha)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png: is transparent where it is not 0"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_turned_masks_are_as_they_are_seen(tmp_path: Path, suffix: str, orientation: int) -> None:
    labels = np.arange(12 * 7, dtype=np.uint8).reshape(12, 7)
    path = tmp_path / f"mask.{suffix}"
    if suffix == "png":
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(labels).save(path, exif=exif)
    else:
        tifffile.imwrite(path, labels, extratags=[(274, "H", 1, orientation, True)])
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    image = Image.fromarray(labels)
    seen = np.asarray(image if turn is None else image.transpose(turn))
    np.testing.assert_array_equal(read_mask(path), seen)


def test_several_pages_of_one_size_are_refused_and_a_pyramid_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.stack([OBJECT, OBJECT]), photometric="minisblack")
    with pytest.raises(InputError, match=r"several images of 30 x 24"):
        read_mask(path)
    with tifffile.TiffWriter(path) as file:
        file.write(OBJECT)
        file.write(OBJECT[::2, ::2])
    np.testing.assert_array_equal(read_mask(path), OBJECT)


def png(path: Path, rows: list[bytes], width: int, bits: int, colour_type: int) -> Path:
    """A PNG of the lines as they are stored, which Pillow does not write of all depths."""
    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b"")):
        check = zlib.crc32(name + content)
        parts.append(struct.pack(">I", len(content)) + name + content + struct.pack(">I", check))
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize(("bits", "row"), [(1, 0b01010011), (2, 0b00011011), (4, 0x3F)])
def test_pixels_of_less_than_a_byte(tmp_path: Path, bits: int, row: int) -> None:
    width = 8 // bits
    labels = [row >> (8 - bits * (place + 1)) & (2**bits - 1) for place in range(width)]
    path = png(tmp_path / "mask.png", [bytes([row])] * 2, width, bits, colour_type=0)
    np.testing.assert_array_equal(read_mask(path), [labels] * 2)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_several_channels_of_16_bits_are_refused(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    row = np.full((5, channels), 7, ">u2").tobytes()
    path = png(tmp_path / "mask.png", [row] * 4, 5, 16, colour_type)
    with pytest.raises(InputError, match=r"mask\.png: several channels of 16 bits"):
        read_mask(path)


@pytest.mark.parametrize("shape", [(1, 30), (30, 1), (1, 1)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_of_one_row_or_column(tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
    labels = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)
    Image.fromarray(labels).save(tmp_path / f"mask.{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask.{suffix}"), labels)


@pytest.mark.parametrize(
    "options",
    [{"tile": (65536, 65536)}, {"shape": (20000, 20000)}, {"samples": 5}],
)
def test_a_tiff_that_claims_much_is_refused_unread(
    tmp_path: Path, options: dict[str, tuple[int, int] | int]
) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(
        path,
        OBJECT if "samples" not in options else np.dstack([OBJECT] * 5),
        tile=(16, 16),
        photometric="minisblack",
        planarconfig="contig" if "samples" in options else None,
    )
    changes = {"TileWidth": options.get("tile"), "ImageWidth": options.get("shape")}
    with tifffile.TiffFile(path, mode="r+") as file:
        for name, size in changes.items():
            if isinstance(size, tuple):
                file.pages.first.tags[name].overwrite(size[1], dtype="I")
                length = name.replace("Width", "Length")
                file.pages.first.tags[length].overwrite(size[0], dtype="I")
    with pytest.raises(InputError, match=r"too many|too small|channels"):
        read_mask(path)


# Soft edges


def drawn(draw: Callable[[ImageDraw.ImageDraw], None], scale: int = 8) -> NDArray[np.uint8]:
    """What ``draw`` draws in white on (64, 64) pixels, in coordinates that are ``scale`` finer."""
    image = Image.new("L", (64 * scale, 64 * scale))
    draw(ImageDraw.Draw(image))
    return np.asarray(image.resize((64, 64), Image.Resampling.BOX))


def nuclei(pen: ImageDraw.ImageDraw) -> None:
    for x, y, radius in ((90, 100, 60), (300, 150, 45), (200, 380, 80), (420, 420, 30)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def soft_masks() -> dict[str, NDArray[np.uint8]]:
    sharp = Image.fromarray((drawn(nuclei) > 127).astype(np.uint8) * 255)
    return {
        "anti-aliased": drawn(nuclei),
        "blurred": np.asarray(sharp.filter(ImageFilter.GaussianBlur(1))),
        "bilinear": np.asarray(sharp.resize((150, 150), Image.Resampling.BILINEAR)),
        "bicubic": np.asarray(sharp.resize((97, 97), Image.Resampling.BICUBIC)),
        "square": drawn(lambda pen: pen.rectangle((43, 51, 300, 333), fill=255)),
        "two pixels": np.pad(np.array([[255, 255], [100, 100]], np.uint8), 5),
    }


@pytest.mark.parametrize("name", soft_masks())
def test_edges_between_0_and_255_are_no_objects(name: str) -> None:
    values = soft_masks()[name]
    assert has_soft_edges(values)
    np.testing.assert_array_equal(is_foreground(values), values > 127)


def numbered(side: int, count: int) -> NDArray[np.uint8]:
    """``count`` squares with the highest numbers there are, the last 255, with a pixel between."""
    values = np.zeros((17 * (side + 1), 17 * (side + 1)), np.uint8)
    for place in range(count):
        y, x = (side + 1) * (place // 17), (side + 1) * (place % 17)
        values[y : y + side, x : x + side] = 256 - count + place
    return values


@pytest.mark.parametrize(
    "values",
    [
        numbered(3, 255),
        numbered(2, 255),
        numbered(6, 2),
        np.where(OBJECT, 255, 0).astype(np.uint8),
        OBJECT,
        np.where(OBJECT, 254, numbered(1, 1)[0, -1]).astype(np.uint8),
        np.where(np.arange(30) < 15, 127, 255).astype(np.uint8)[None].repeat(24, 0),
        OBJECT.astype(np.int32) * 70000,
    ],
    ids=["3 x 3", "2 x 2", "two", "sharp", "classes", "no 255", "two values", "32 bits"],
)
def test_numbers_of_objects_and_sharp_masks_are_no_edges(values: NDArray[np.integer]) -> None:
    assert not has_soft_edges(values)
    np.testing.assert_array_equal(is_foreground(values), values != 0)


def test_an_ignored_value_is_no_edge() -> None:
    values = np.asarray(drawn(nuclei)).copy()
    values[40:, :20] = 100
    assert has_soft_edges(values, ignore_label=100)
    assert not has_soft_edges(values, ignore_label=255)


def test_a_tiff_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened, original = tmp_path / "a.tif", [], os.open
    tifffile.imwrite(path, np.eye(40, dtype=np.uint8))

    def counting(name: object, *arguments: int) -> int:
        opened.append(name)
        return original(name, *arguments)

    monkeypatch.setattr(os, "open", counting)
    assert read_mask(path).sum() == 40
    assert opened == [path]
