"""Whatever is given, the answer is an InputError of one line, soon, without much memory."""

import contextlib
import io
import os
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.data.labelled.masks import read_mask
from genselfdiff.errors import InputError
from genselfdiff.masks import MaskReader
from genselfdiff.slides import find_slides, open_slide, read_image
from genselfdiff.slides.formats import tiff_codecs, tiff_level


@pytest.fixture(autouse=True)
def soon_and_small() -> Iterator[None]:
    tracemalloc.start()
    begin = time.monotonic()
    yield
    seconds = time.monotonic() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 600  # what does not end is found, whatever else the machine does
    assert peak < 64 * 2**20


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def tiff_bytes(width: int, height: int, data: bytes = b"", **tags: int | bytes) -> bytes:
    """A little-endian TIFF of RGB pixels; ``tags`` are added or replace the usual ones."""
    codes = {
        "compression": 259, "rows_per_strip": 278, "offsets": 273, "counts": 279, "tile_width": 322,
        "tile_length": 323, "tile_offsets": 324, "tile_counts": 325, "samples": 277, "depth": 32997,
    }  # fmt: skip
    values: dict[int, int | bytes] = {256: width, 257: height, 258: b"\x08\0\x08\0\x08\0"}
    values.update({259: 1, 262: 2, 277: 3})
    values.update({codes[name]: value for name, value in tags.items()})
    start = 8 + 2 + 12 * len(values) + 4
    entries, extra = b"", b""
    for code, value in sorted(values.items()):
        if isinstance(value, int):
            entries += struct.pack("<HHII", code, 4, 1, value)
        else:
            kind, size = (3, 2) if code == 258 else (4, 4)
            entries += struct.pack("<HHII", code, kind, len(value) // size, start + len(extra))
            extra += value
    header = struct.pack("<2sHIH", b"II", 42, 8, len(values))
    return header + entries + bytes(4) + extra + data


def test_missing_folder_and_pipe(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.tif", "no such file")
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe.tif")
    refused(tmp_path / "pipe.tif", "is a pipe")
    refused(Path("/dev/zero"), "is a device")


@pytest.mark.parametrize("name", ["x" * 300 + ".tif", "x/" * 3000 + "x.tif", "a\0b.tif"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    refused(tmp_path / name, "no such file")
    with pytest.raises(InputError, match="no such file or folder"):
        find_slides([tmp_path / name])


@pytest.mark.parametrize("name", [b"caf\xe9.tif", b"caf\xe9.png", b"caf\xe9.jpg"])
def test_names_that_are_not_utf8(tmp_path: Path, picture: np.ndarray, name: bytes) -> None:
    whole = tmp_path / f"whole{Path(os.fsdecode(name)).suffix}"
    Image.fromarray(picture).save(whole)
    path = Path(os.fsdecode(bytes(tmp_path / "slides") + b"/" + name))
    path.parent.mkdir()
    whole.rename(path)
    assert find_slides([path.parent]) == [path]
    assert read_image(path).shape == picture.shape


@pytest.mark.parametrize("name", ["a.tif", "a.svs", "a.png"])
def test_empty_and_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_text("This is a text, whatever its name says.\n" * 20)
    refused(path, "is no TIFF, SVS, DICOM, PNG or JPEG")
    path.write_bytes(b"II*\0")
    refused(path, "no readable TIFF")


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 32}])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
def test_truncated_tiff(
    tiff: Callable[..., Path],
    picture: np.ndarray,
    compression: str | None,
    layout: dict[str, object],
    kept: float,
) -> None:
    path = tiff(picture, compression=compression, **layout)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InputError, match=r"is truncated|no readable TIFF"):
        open_slide(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("kept", [0.001, 0.5, 0.97])
def test_truncated_pictures(tmp_path: Path, picture: np.ndarray, kind: str, kept: float) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format=kind)
    path = tmp_path / "a.img"
    path.write_bytes(stream.getvalue()[: max(12, int(len(stream.getvalue()) * kept))])
    refused(path, "is it whole|claims")


def test_a_damaged_tile_is_named(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    path = tiff(picture, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as opened:
        offset = opened.pages[0].dataoffsets[12]
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    with open_slide(path) as slide:
        slide.read_level(0, 0, 64, 64)
        with pytest.raises(
            InputError,
            match=rf"tile \(column 2, row 1\) of level 0, at byte {offset}, cannot be decoded",
        ):
            slide.read_level(128, 64, 64, 64)


MILLION = 10**6


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"rows_per_strip": MILLION, "offsets": 200, "counts": 100}, "is truncated"),
        ({"rows_per_strip": 1, "offsets": 200, "counts": 100}, "lists 1 stored pieces"),
        (
            {"compression": 8, "rows_per_strip": MILLION, "offsets": 200, "counts": 100},
            "pieces of 1000000 x 1000000 pixels, too large",
        ),
        (
            {"tile_width": 256, "tile_length": 256, "tile_offsets": 200, "tile_counts": 100},
            "lists 1 stored pieces where 15264649 are needed",
        ),
        (
            {"tile_width": MILLION, "tile_length": MILLION, "tile_offsets": 9, "tile_counts": 9},
            "too large",
        ),
        (
            {"tile_width": 0, "tile_length": 0, "tile_offsets": 200, "tile_counts": 100},
            "no readable TIFF",
        ),
        (
            {"tile_width": 256, "tile_length": 0, "tile_offsets": 200, "tile_counts": 100},
            "no readable TIFF",
        ),
        ({"rows_per_strip": 0, "offsets": 200, "counts": 100}, "no readable TIFF"),
        ({}, "no readable TIFF"),
    ],
)
def test_a_million_squared_in_a_kilobyte(
    tmp_path: Path, tags: dict[str, int], message: str
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes(MILLION, MILLION, bytes(1000), **tags))
    refused(path, message)


def test_a_strip_that_cannot_hold_its_pixels(tmp_path: Path) -> None:
    data = zlib.compress(bytes(1000))
    tags = {"compression": 8, "rows_per_strip": 16_000, "offsets": 200, "counts": len(data)}
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes(16_000, 16_000, bytes(200) + data, **tags))
    with open_slide(path) as slide, pytest.raises(InputError, match="cannot hold that many pixels"):
        slide.read_level(0, 0, 1, 1)


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (0, 0)])
def test_no_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.tif"
    strips = {"rows_per_strip": 10, "offsets": 200, "counts": 100}
    path.write_bytes(tiff_bytes(*size, bytes(400), **strips))
    refused(path, "no readable TIFF")


def test_unusual_pixels(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    refused(tiff(picture.astype(np.float32)), "pixels are of type float32")
    refused(tiff(picture.astype(np.uint32)), "pixels are of type uint32")
    cmyk = np.repeat(picture[..., :1], 4, axis=-1)
    path = tiff(cmyk, "cmyk.tif", photometric="separated", planarconfig="contig")
    refused(path, "neither grey nor RGB")
    volume = np.zeros((16, 64, 64), np.uint8)
    tiles = {"tile": (16, 64, 64), "photometric": "minisblack", "volumetric": True}
    refused(tiff(volume, "volume.tif", **tiles), "volume")


def test_fluorescence_channels(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.ome.tif"
    channels = np.ascontiguousarray(np.moveaxis(picture, -1, 0))
    tifffile.imwrite(path, channels, photometric="minisblack", metadata={"axes": "CYX"})
    refused(path, "3 channels are separate grey images")


def test_a_picture_that_claims_too_much(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        data += struct.pack(">I", len(body)) + name + body
        data += struct.pack(">I", zlib.crc32(name + body))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    refused(path, "claims 30000 x 30000 pixels")
    path.write_bytes(data + bytes(3_000_000))
    refused(path, "too many for a PNG or JPEG")


def directory_places(path: Path) -> list[int]:
    with tifffile.TiffFile(path) as opened:
        return [page.offset for page in opened.pages]


@pytest.mark.parametrize("target", [0, 1])
def test_directories_in_a_circle(pyramid: Callable[..., Path], target: int) -> None:
    path = pyramid()
    places = directory_places(path)
    data = bytearray(path.read_bytes())
    (entries,) = struct.unpack_from("<H", data, places[-1])
    struct.pack_into("<I", data, places[-1] + 2 + 12 * entries, places[target])
    path.write_bytes(data)
    refused(path, "directories follow each other in a circle")


def test_a_directory_that_is_its_own_subifd(pyramid: Callable[..., Path]) -> None:
    path = pyramid("a.ome.tif", subifds=True)
    (place,) = directory_places(path)
    data = bytearray(path.read_bytes())
    (entries,) = struct.unpack_from("<H", data, place)
    tags = {
        struct.unpack_from("<H", data, at)[0]: at
        for at in range(place + 2, place + 2 + 12 * entries, 12)
    }
    count, list_at = struct.unpack_from("<II", data, tags[330] + 4)
    for i in range(count):
        struct.pack_into("<I", data, list_at + 4 * i, place)
    path.write_bytes(data)
    with open_slide(path) as slide:
        assert len(slide.levels) == 1  # no level but itself


def test_thousands_of_directories(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    count = 20_000
    chain = b"".join(struct.pack("<HI", 0, 8 + 6 * (i + 1)) for i in range(count))
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + chain + bytes(6))
    refused(path, "more entries than those of any slide")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (4, 10**6, "a directory lies beyond its end"),
        (8, 0xFFFF, "a directory lies beyond its end"),
        (8 + 2 + 12 * 2 + 4, 2**31, "the values of its tag 258 lie beyond its end"),
    ],
)
def test_what_lies_beyond_the_end(tmp_path: Path, at: int, value: int, message: str) -> None:
    data = bytearray(tiff_bytes(10, 10, bytes(300), rows_per_strip=10, offsets=200, counts=300))
    struct.pack_into("<H" if value < 2**16 else "<I", data, at, value)
    (tmp_path / "a.tif").write_bytes(data)
    refused(tmp_path / "a.tif", message)


@pytest.mark.parametrize("seed", range(4))
def test_random_damage(
    tiff: Callable[..., Path], picture: np.ndarray, seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    layouts: list[dict[str, object]] = [
        {"tile": (64, 64), "compression": "zlib"},
        {"rowsperstrip": 20},
        {"tile": (64, 64), "compression": "jpeg", "bigtiff": True},
    ]
    whole = tiff(picture, **layouts[seed % 3]).read_bytes()
    path = tmp_path / "damaged.tif"
    for _ in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        at = rng.integers(0, min(len(data), 700), 3)
        data[at] = rng.integers(0, 256, 3)
        path.write_bytes(data.tobytes())
        try:
            with open_slide(path) as slide:
                slide.read_level(slide.width // 2, slide.height // 2, 1, 1)
        except InputError as error:
            assert "\n" not in str(error)


def test_codecs_that_damage_can_crash_are_not_used(
    tiff: Callable[..., Path], picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For JPEG, imagecodecs falls back on a decoder that writes beyond its memory."""

    def crash(*_: object, **__: object) -> None:
        os.abort()

    for name in ("lzw_decode", "ljpeg_decode", "jpegsof3_decode", "ccittfax4_decode"):
        monkeypatch.setattr(imagecodecs, name, crash)
    lzw = tiff(picture, tile=(64, 64), compression="lzw", predictor=True)
    np.testing.assert_array_equal(read_image(lzw), picture)
    jpeg = tiff(picture, "jpeg.tif", tile=(64, 64), compression="jpeg")
    with tifffile.TiffFile(jpeg) as opened:
        offset, count = opened.pages[0].dataoffsets[0], opened.pages[0].databytecounts[0]
    whole = jpeg.read_bytes()
    frame = whole.index(b"\xff\xc0", offset, offset + count)
    for at, value in [(frame + 1, 0xC3), (frame + 4, 12), (frame + 4, 16), (frame + 9, 2)]:
        data = bytearray(whole)
        data[at] = value
        jpeg.write_bytes(data)
        with contextlib.suppress(InputError):  # libjpeg makes something of some of them
            read_image(jpeg)
    fax = tiff_bytes(64, 64, bytes(300), compression=4, rows_per_strip=64, offsets=200, counts=99)
    jpeg.write_bytes(fax)
    refused(jpeg, "compression 4 is not read; deflate, LZW")


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_a_tile_that_claims_to_be_larger(
    tiff: Callable[..., Path], picture: np.ndarray, compression: str
) -> None:
    path = tiff(picture, tile=(64, 64), compression=compression)
    with tifffile.TiffFile(path) as opened:
        offset = opened.pages[0].dataoffsets[0]
    data = bytearray(path.read_bytes())
    if compression == "jpeg":
        at = data.index(b"\xff\xc0", offset) + 5
        data[at : at + 4] = b"\xff\xdc" * 2
    else:
        at = data.index(b"\xff\x4f\xff\x51", offset) + 8
        data[at : at + 8] = b"\x7f\xff\xff\xff" * 2
    path.write_bytes(data)
    refused(path, "says of itself that it is .* pixels")


@pytest.mark.parametrize("beyond", [0, 10**6, 0x7FFFFFFF])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_last_link_beyond_the_end_is_told_and_not_followed(
    tiff: Callable[..., Path],
    picture: np.ndarray,
    caplog: pytest.LogCaptureFixture,
    beyond: int,
    bigtiff: bool,
) -> None:
    path = tiff(picture, bigtiff=bigtiff)
    (place,) = directory_places(path)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = len(file.pages.first.tags)
    link = place + (8 + 20 * tags if bigtiff else 2 + 12 * tags)
    struct.pack_into("<Q" if bigtiff else "<I", data, link, len(data) + beyond)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path), picture)
    assert "after its directory 1 leads beyond its end" in caplog.text


def test_a_link_to_a_lower_level_beyond_the_end(
    pyramid: Callable[..., Path], picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    path = pyramid("a.ome.tif", subifds=True)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        links = file.pages.first.tags[330]
        struct.pack_into("<I", data, links.valueoffset + 4 * (links.count - 1), 2**31)
        expected = links.count
    path.write_bytes(data)
    with open_slide(path) as slide:
        assert len(slide.levels) == expected  # all but one of those below, and the slide itself
    np.testing.assert_array_equal(read_image(path), picture)
    assert "leads beyond its end" in caplog.text


@pytest.mark.parametrize(("tag", "is_read"), [(34675, True), (65000, True), (270, False)])
def test_values_beyond_the_end_matter_only_where_they_are_read(
    tiff: Callable[..., Path], picture: np.ndarray, tag: int, is_read: bool
) -> None:
    path = tiff(picture, extratags=[(tag, 2, 20, b"x" * 19 + b"\0", True)], metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        struct.pack_into("<I", data, file.pages.first.tags[tag].offset + 8, 2**31)
    path.write_bytes(data)
    if is_read:
        np.testing.assert_array_equal(read_image(path), picture)
    else:
        refused(path, "the values of its tag 270 lie beyond its end")


def shared_description(path: Path, directories: int, described: int) -> None:
    """Write directories of one image that share a description of blanks, which take no disk."""
    tags = {"rows_per_strip": 10, "offsets": 8, "counts": 300}
    one = tiff_bytes(10, 10, **tags)
    count = struct.unpack_from("<H", one, 8)[0] + 1
    step = 2 + 12 * count + 4 + 6
    text_at = 8 + step * directories
    data = bytearray(one[:8])
    for index in range(directories):
        at = 8 + step * index
        entries = bytearray(one[10 : 10 + 12 * (count - 1)])
        place = next(i for i in range(0, len(entries), 12) if entries[i : i + 2] == b"\x02\x01")
        struct.pack_into("<I", entries, place + 8, at + step - 6)
        entries += struct.pack("<HHII", 270, 2, described, text_at)
        following = at + step if index + 1 < directories else 0
        data += struct.pack("<H", count) + entries + struct.pack("<I", following)
        data += b"\x08\0\x08\0\x08\0"
    with path.open("wb") as file:
        file.write(data)
        file.truncate(text_at + described)


@pytest.mark.parametrize(("directories", "described"), [(400, 2**19), (1, 2**31), (30, 2**23)])
@pytest.mark.parametrize("read", [read_image, MaskReader, read_mask])
def test_memory_follows_what_is_held_not_what_is_claimed(
    tmp_path: Path, directories: int, described: int, read: Callable[[Path], object]
) -> None:
    shared_description(tmp_path / "a.tif", directories, described)
    with pytest.raises(InputError, match="more than those of any slide"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize(("width", "height", "decoded"), [(384, 256, 1), (350, 200, 1 + 9)])
def test_tiles_in_one_place_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int, decoded: int
) -> None:
    tile = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    stored = zlib.compress(tile.tobytes())

    def overlapping(at: int) -> bytes:
        lists = (struct.pack("<24I", *[value] * 24) for value in (at, len(stored)))
        names = ("tile_offsets", "tile_counts")
        return tiff_bytes(
            width, height, stored, compression=8, tile_width=64, tile_length=64,
            **dict(zip(names, lists, strict=True)),
        )  # fmt: skip

    path = tmp_path / "a.tif"
    path.write_bytes(overlapping(len(overlapping(0)) - len(stored)))
    seen = []

    def counting(page: tifffile.TiffPage) -> tiff_codecs.Decoder:
        decode = tiff_codecs.piece_decoder(page)
        return lambda data, index: (seen.append(index), decode(data, index))[1]

    monkeypatch.setattr(tiff_level, "piece_decoder", counting)
    np.testing.assert_array_equal(read_image(path), np.tile(tile, (4, 6, 1))[:height, :width])
    assert len(seen) == len(set(seen)) == decoded


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("code", [34927, 50001])
def test_a_tile_of_webp_that_is_far_larger_than_its_page_says(
    tmp_path: Path, lossless: bool, code: int
) -> None:
    stored = imagecodecs.webp_encode(np.zeros((2500, 2500, 3), np.uint8), lossless=lossless)
    tags = {"compression": code, "tile_width": 64, "tile_length": 64, "tile_counts": len(stored)}
    at = len(tiff_bytes(64, 64, **tags, tile_offsets=0))
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes(64, 64, stored, **tags, tile_offsets=at))
    refused(path, "it says of itself that it is 2500 x 2500 pixels")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_fewer_samples_than_are_told(tmp_path: Path, picture: np.ndarray, dtype: type) -> None:
    """By a tag that is neither of the ways to store them."""
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (64, 64)}
    tifffile.imwrite(path, picture.astype(dtype) * 100, **options)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as opened:
        place = opened.pages[0].tags["PlanarConfiguration"].valueoffset
    data[place] = 5
    path.write_bytes(data)
    with (
        open_slide(path) as slide,
        pytest.raises(InputError, match=r"column 0, row 0.*it has 1 sample\(s\) a pixel, where 3"),
    ):
        slide.read_level(0, 0, 100, 100)
