"""Masks that tell the cores of objects: what they hold, and that nobody else need know."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from genselfdiff.errors import InputError
from genselfdiff.masks import MaskReader, MaskWriter, PyramidShape, mask_cores
from genselfdiff.masks.mask_cores import MaskCores
from genselfdiff.masks.pyramid_writer import HIDDEN_OFFSETS, HIDDEN_SIZES
from genselfdiff.objects import (
    choose_splitter,
    instances,
    mask_objects,
    number_objects,
    windows_of,
    write_objects,
)

SHAPE = (300, 520)


def labels_and_cores() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    waves = np.sin(x / 9) + np.sin(y / 13)
    labels = np.digitize(waves, [0.4, 1.2])
    return np.stack((labels, (waves > 0.7) & (x > 130))).astype(np.uint8)


def write(
    path: Path, *, cores: bool = True, planes: np.ndarray | None = None, **options: object
) -> Path:
    planes = labels_and_cores() if planes is None else planes
    shape = PyramidShape(planes.shape[2], planes.shape[1], 0.25, tile=64)
    told = {"palette": [(255, 255, 255), (200, 30, 30), (30, 30, 200)], "class_names": list("abc")}
    with MaskWriter(path, shape, cores=cores, **told, **options) as writer:
        writer.push(planes[: 1 + cores])
    return path


def cells(size: int = 400, seed: int = 0) -> np.ndarray:
    """Classes and cores of many round cells of two classes, which lie over each other."""
    rng = np.random.default_rng(seed)
    planes = np.zeros((2, size, size), np.uint8)
    y, x = np.mgrid[:size, :size]
    for _ in range(size * size // 500):
        a, b = rng.uniform(0, size, 2)
        distance = np.hypot(y - a, x - b) / rng.uniform(3, 11)
        planes[:, distance < 1] = [[rng.choice([1, 1, 2])], [0]]
        planes[1][distance < rng.choice([0, 0.6])] = 1
    planes[1][rng.random((size, size)) < 0.01] = 1  # also where no object is
    return planes


def row_of_cells() -> np.ndarray:
    """A pair without a neck, one beside it, one of another class that touches that; two specks."""
    planes = np.zeros((2, 40, 130), np.uint8)
    planes[0, 3:6, [3, 8]] = 1
    planes[1, 3:6, 8] = 1  # too small a core
    planes[0, 10:30, 5:65] = 1
    planes[1, 15:25, [10, 11, 12, 50, 51, 52]] = 1
    planes[0, 10:30, 70:90] = 1
    planes[1, 15:25, 75:85] = 1
    planes[0, 10:30, 90:110] = 2
    planes[1, 15:25, 95:105] = 1
    return planes


@pytest.mark.parametrize("name", ["m.tif", "m.ome.tif"])
def test_they_come_back_whole_and_in_windows(tmp_path: Path, name: str) -> None:
    planes = labels_and_cores()
    with MaskReader(write(tmp_path / name)) as reader:
        assert reader.has_cores
        np.testing.assert_array_equal(np.concatenate(list(reader.bands())), planes[0])
        found = np.concatenate(list(reader.stacks(50, 290, cores=True)), axis=1)
        np.testing.assert_array_equal(found, planes[:, 50:290])
        cores = MaskCores(reader)
        for x, y, width, height in [
            (0, 0, 520, 300),
            (3, 70, 9, 5),
            (120, 60, 20, 7),
            (519, 0, 1, 300),
        ]:
            window = cores(x, y, width, height)
            assert window.dtype == np.bool_
            np.testing.assert_array_equal(window, planes[1, y : y + height, x : x + width])


def test_tiles_are_decoded_once_as_long_as_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[int, int]] = []
    with MaskReader(write(tmp_path / "m.tif")) as reader:
        whole = reader.core_tile
        monkeypatch.setattr(
            reader,
            "core_tile",
            lambda row, column: decoded.append((row, column)) or whole(row, column),
        )
        cores = MaskCores(reader)
        for y in range(0, 290, 7):
            for x in (0, 300, 100, 500, 200):
                cores(x, y, 20, 10)
        assert len(decoded) == len(set(decoded))
        before = len(decoded)
        monkeypatch.setattr(mask_cores, "_LEAST", 0)
        monkeypatch.setattr(mask_cores, "_MOST", 2 * 64 * 8)  # two tiles
        cores = MaskCores(reader)
        for x in (300, 60, 300, 0, 130, 300):
            window = cores(x, 0, 10, 64)
            np.testing.assert_array_equal(window, labels_and_cores()[1, :64, x : x + 10])
        # One of two tiles at 60; 300 anew where two others came between.
        assert decoded[before:] == [(0, 4), (0, 0), (0, 1), (0, 4), (0, 0), (0, 2), (0, 4)]


def test_other_programs_see_a_mask_like_any_other(tmp_path: Path) -> None:
    path, plain = write(tmp_path / "cores.tif"), write(tmp_path / "plain.tif", cores=False)
    ours = {HIDDEN_OFFSETS, HIDDEN_SIZES}
    with tifffile.TiffFile(path) as tiff, tifffile.TiffFile(plain) as other:
        assert len(tiff.pages) == len(other.pages)
        assert len(tiff.series) == 1
        for page, like in zip(tiff.pages, other.pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), like.asarray())
            codes, others = ({tag.code for tag in p.tags} for p in (page, like))
            assert codes - others == (ours if page.index == 0 else set())
            for code in others - {270, 324, 325}:
                np.testing.assert_array_equal(page.tags[code].value, like.tags[code].value)
            assert page.tags[324].count == like.tags[324].count
        told = json.loads(other.pages[0].description)
        assert json.loads(tiff.pages[0].description) == told | {"cores": True}
    with Image.open(path) as image, Image.open(plain) as like:
        assert image.n_frames == like.n_frames
        np.testing.assert_array_equal(np.asarray(image), np.asarray(like))
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(path) as slide, openslide.OpenSlide(plain) as like:
        assert slide.level_dimensions == like.level_dimensions
        seen, wanted = (s.read_region((0, 0), 0, s.dimensions) for s in (slide, like))
        np.testing.assert_array_equal(np.asarray(seen), np.asarray(wanted))


def entry_of(content: bytes, code: int) -> int:
    """Where the first directory of a BigTIFF has the entry of a tag."""
    (first,) = struct.unpack_from("<Q", content, 8)
    (count,) = struct.unpack_from("<Q", content, first)
    places = [first + 8 + 20 * i for i in range(count)]
    return next(place for place in places if struct.unpack_from("<H", content, place)[0] == code)


@pytest.mark.parametrize("code", [HIDDEN_OFFSETS, HIDDEN_SIZES])
@pytest.mark.parametrize(
    "damage",
    [
        {"code": 65100},
        {"kind": 4},
        {"count": 44},
        {"count": 2**60},
        {"value": 2**62},
        {"value": 3},
        {"value": "end"},
        {"first": 2**63},
        {"first": 5},
    ],
)
def test_numbers_that_lead_astray_are_told(
    tmp_path: Path, code: int, damage: dict[str, int | str]
) -> None:
    path = write(tmp_path / "m.tif")
    content = bytearray(path.read_bytes())
    at = entry_of(content, code)
    told = struct.unpack_from("<HHQQ", content, at)
    fields = dict(zip(("code", "kind", "count", "value"), told, strict=True))
    if "first" in damage:
        struct.pack_into("<Q", content, fields["value"], damage["first"])
    else:
        damage = {
            key: len(content) - 8 if value == "end" else value for key, value in damage.items()
        }
        struct.pack_into("<HHQQ", content, at, *(fields | damage).values())
    path.write_bytes(content)
    with MaskReader(path) as reader:
        np.testing.assert_array_equal(np.concatenate(list(reader.bands())), labels_and_cores()[0])
        with pytest.raises(
            InputError, match=r"m\.tif: (the cores .*--no-inst|tile 0 of its cores)"
        ):
            reader.core_tile(0, 0)


def test_a_tile_of_cores_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tif")
    content = bytearray(path.read_bytes())
    (place,) = struct.unpack_from("<Q", content, entry_of(content, HIDDEN_OFFSETS) + 12)
    (offset,) = struct.unpack_from("<Q", content, place + 8 * 12)
    content[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(content)
    with (
        MaskReader(path) as reader,
        pytest.raises(InputError, match=r"tile 12 of its cores is dam"),
    ):
        reader.core_tile(1, 3)


def test_what_an_ordinary_mask_says_of_cores_is_not_enough(tmp_path: Path) -> None:
    with MaskReader(write(tmp_path / "m.tif", cores=False)) as reader:
        assert not reader.has_cores
    path = write(tmp_path / "n.tif", cores=False, description={"cores": True})
    with MaskReader(path) as reader, pytest.raises(InputError, match=r"n\.tif: the cores .* lost"):
        reader.core_tile(0, 0)


@pytest.mark.parametrize(
    ("cores", "options", "wanted", "cuts"),
    [
        (True, {}, {"b": 3, "c": 1}, "between the cores that the model tells"),
        (True, {"instances": True}, {"b": 3, "c": 1}, "between the cores that the model tells"),
        (True, {"instances": False}, {"b": 4, "c": 1}, None),
        (True, {"seed_distance": 1.5}, {"b": 4, "c": 1}, "where they are thinnest"),
        (False, {}, {"b": 4, "c": 1}, None),
        (False, {"seed_distance": 1.5}, {"b": 4, "c": 1}, "where they are thinnest"),
        (False, {"seed_distance": 1.5, "instances": False}, {"b": 4, "c": 1}, None),
        (False, {"instances": True}, {"b": 4, "c": 1}, "where they are thinnest"),
    ],
)
def test_objects_are_taken_apart_as_the_mask_tells(
    tmp_path: Path,
    cores: bool,
    options: dict[str, object],
    wanted: dict[str, int],
    cuts: str | None,
) -> None:
    path = write(tmp_path / "m.tif", cores=cores, planes=row_of_cells())
    found = write_objects(path, geojson=tmp_path / "m.geojson", min_area=0, **options)
    assert (found.counts, found.cuts) == (wanted, cuts)
    features = json.loads((tmp_path / "m.geojson").read_bytes())["features"]
    assert {f["properties"]["objectType"] for f in features} == {
        "annotation" if cuts is None else "detection"
    }


@pytest.mark.parametrize("pixels", [1, 16 * 400])
def test_files_do_not_depend_on_bands_or_sheets(
    tmp_path: Path, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes = cells()
    path = write(tmp_path / "m.tif", planes=planes)
    for name in ("whole", "cut"):
        files = {
            kind: tmp_path / f"{name}{end}"
            for kind, end in (("geojson", ".geojson"), ("table", ".csv"), ("labels", ".tif"))
        }
        counted = write_objects(path, **files, min_area=0.5)
        monkeypatch.setattr(mask_objects, "_PIXELS_TRACED", pixels)
        monkeypatch.setattr(mask_objects, "_LEAST_ROWS", 1)
        monkeypatch.setattr(instances, "_SHEET", 3000)
    for end in (".geojson", ".csv", ".tif"):
        whole, cut = (tmp_path / f"{name}{end}" for name in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes()
    splitter = choose_splitter(None, None, 0.25, 0.5, windows_of(planes[1].astype(np.bool_)))
    numbers = number_objects(planes[0], splitter=splitter, min_area=8).numbers
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "whole.tif"), numbers)
    together = number_objects(planes[0], min_area=8).numbers
    seeds, count = ndimage.label(planes[1] & (planes[0] == 1))
    others, _ = ndimage.label(planes[1] & (planes[0] == 2))
    seeds[others > 0] = others[others > 0] + count
    large = (np.bincount(seeds.ravel()) >= 24)[seeds] & (seeds > 0)
    cored = np.isin(together, np.unique(together[large]))
    assert numbers.max() == sum(counted.counts.values()) > 1.1 * len(np.unique(together[cored]))
    assert len(np.unique(numbers[large])) >= numbers.max()
    # What has no core is left out; of the others, what is smaller than asked for.
    assert not numbers[~cored].any()
    assert 0.98 < np.count_nonzero(numbers) / np.count_nonzero(together[cored]) <= 1


def test_lost_cores_end_it_and_can_be_done_without(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tif", cores=False, planes=cells(), description={"cores": True})
    with pytest.raises(InputError, match=r"m\.tif: the cores .* \(0 of 49 tiles\).*--no-instances"):
        write_objects(path)
    assert write_objects(path, instances=False).cuts is None
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [256, 257])
def test_a_mask_without_pixels_is_none(tmp_path: Path, code: int) -> None:
    path = write(tmp_path / "m.tif")
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, entry_of(content, code) + 12, 0)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.tif: is (0 x 300|520 x 0) pixels"):
        write_objects(path)
