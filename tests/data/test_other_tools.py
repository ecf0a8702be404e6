"""Labels of StarDist, Cellpose, HoVer-Net, TIAToolbox and CVAT, and back."""

import json
import zlib
from itertools import groupby

import numpy as np
import pytest
import tifffile
from importing import mask, names, written
from PIL import Image
from scipy import io
from scipy.spatial import ConvexHull

from genselfdiff.data.importers.cvat import read_cvat
from genselfdiff.data.importers.hovernet import read_hovernet
from genselfdiff.data.importers.instances import read_instances
from genselfdiff.data.importers.qupath import read_qupath
from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.errors import InputError

TYPES = {1: 3, 2: 1, 7: 3}
"""Of the objects in ``numbers``."""


@pytest.fixture
def pictures(tmp_path):
    """A folder with tile.png and other.png of 60 x 40 pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("tile", "other"):
        pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def numbers():
    """Three discs, of which two touch."""
    y, x = np.indices((40, 60))
    found = np.zeros((40, 60), np.uint16)
    for number, (left, top, radius) in {1: (10, 12, 7), 2: (24, 12, 6.5), 7: (45, 25, 11)}.items():
        found[(x - left) ** 2 + (y - top) ** 2 <= radius**2] = number
    return found


@pytest.fixture
def labels(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    return folder


def hull(numbers, number):
    """The centres of the pixels in which a disc has corners."""
    places = np.argwhere(numbers == number)[:, ::-1]
    return places[ConvexHull(places).vertices]


def types_of(numbers):
    return np.array([TYPES.get(number, 0) for number in range(8)], np.uint8)[numbers]


@pytest.mark.parametrize("name", ["tile.tif", "tile_cp_masks.png", "tile_masks.tif", "tile.png"])
def test_numbers_of_stardist_and_cellpose(pictures, labels, numbers, tmp_path, name):
    if name.endswith(".tif"):
        tifffile.imwrite(labels / name, numbers, imagej=True)
    else:
        Image.fromarray(numbers).save(labels / name)
    result = written(read_instances(pictures, labels, "cell"), tmp_path)
    assert (result.objects, list(result.pixels)) == (3, ["background", "cell"])
    np.testing.assert_array_equal(mask(tmp_path, "tile", "instances"), numbers)
    np.testing.assert_array_equal(mask(tmp_path, "tile"), numbers > 0)


def test_masks_of_cellpose_beside_its_images(pictures, numbers, tmp_path):
    Image.fromarray(numbers).save(pictures / "tile_cp_masks.png")
    Image.fromarray(numbers).save(pictures / "tile_flows.png")
    np.save(pictures / "tile_seg.npy", {"masks": numbers}, allow_pickle=True)
    found = read_instances(pictures, pictures)
    written(found, tmp_path)
    assert names(tmp_path) == ["tile"]
    np.testing.assert_array_equal(mask(tmp_path, "tile", "instances"), numbers)
    assert found.left_out.summary() == "left out: images: 2 without mask of their name"


def test_what_is_no_numbers_of_objects(pictures, labels, numbers, tmp_path):
    with pytest.raises(InputError, match="no name ends in _cp_masks or _masks"):
        read_instances(pictures, pictures)
    np.save(labels / "tile_seg.npy", {"masks": numbers}, allow_pickle=True)
    with pytest.raises(InputError, match=r"tile_seg\.npy: is a pickle, .* as PNG or TIFF"):
        read_instances(pictures, labels)
    Image.fromarray(np.where(numbers, 255, 0).astype(np.uint8)).save(labels / "tile.png")
    with pytest.raises(InputError, match=r"tile\.png: holds 0 and 255 alone"):
        written(read_instances(pictures, labels), tmp_path)


MEANINGS = ["1=tumour", "3=immune"]


@pytest.mark.parametrize("form", ["type_map", "inst_type", "inst_uid", "nuc", "bare"])
def test_types_of_hovernet(pictures, labels, numbers, tmp_path, form):
    ids = [7, 1, 2] if form == "inst_uid" else sorted(TYPES)
    if form in ("nuc", "bare"):
        nuclei = {
            str(n): {
                "bbox": [[0, 0], [1, 1]],
                "centroid": [1.5, 2.5],
                "contour": hull(numbers, n).tolist(),
                "type": TYPES[n],
                "type_prob": 0.9,
            }
            for n in ids
        }
        content = {"mag": 40, "nuc": nuclei} if form == "nuc" else nuclei
        (labels / "tile.json").write_text(json.dumps(content))
    else:
        arrays = {"inst_map": numbers.astype(float)}
        if form == "type_map":
            arrays["type_map"] = types_of(numbers).astype(float)
            arrays["type_map"][12, 10] = 1  # most pixels of the object say 3
        else:
            arrays["inst_type"] = np.array([[TYPES[n]] for n in ids])
        if form == "inst_uid":
            arrays["inst_uid"] = np.array(ids)[:, None]
        arrays["inst_centroid"] = np.zeros((3, 2))
        io.savemat(labels / "tile.mat", arrays, do_compression=form == "inst_uid")
    result = written(read_hovernet(labels, pictures, MEANINGS), tmp_path)
    assert list(result.pixels) == ["background", "tumour", "immune"]
    assert result.objects == 3
    expected = np.array([0, 1, 0, 2], np.uint8)[types_of(numbers)]
    np.testing.assert_array_equal(mask(tmp_path, "tile"), expected)
    ours = mask(tmp_path, "tile", "instances")
    assert len(set(zip(ours.ravel().tolist(), numbers.ravel().tolist(), strict=True))) == 4


def test_nuclei_of_hovernet_without_types(pictures, labels, numbers, tmp_path, caplog):
    io.savemat(labels / "tile.mat", {"inst_map": numbers})
    io.savemat(labels / "other.mat", {"inst_map": numbers, "inst_type": [[3], [1], [3]]})
    result = written(read_hovernet(labels, pictures), tmp_path)
    assert list(result.pixels) == ["background", "nucleus"]
    np.testing.assert_array_equal(mask(tmp_path, "other", "instances"), numbers)
    assert "all types of nuclei (1, 3) are one class: TYPE=CLASS" in caplog.text
    with pytest.raises(InputError, match=r"tile\.mat: tells no types of its nuclei"):
        written(read_hovernet(labels, pictures, MEANINGS), tmp_path, overwrite=True)
    (labels / "tile.mat").unlink()
    with pytest.raises(InputError, match=r"other\.mat: nobody said what type 3 means"):
        written(read_hovernet(labels, pictures, ["1=tumour"]), tmp_path, overwrite=True)
    found = read_hovernet(labels, pictures, ["1=tumour", "3=ignore"])
    assert written(found, tmp_path, overwrite=True).objects == 1
    np.testing.assert_array_equal(mask(tmp_path, "other") == IGNORED, types_of(numbers) == 3)


def packed(data):
    """A .mat with one compressed element."""
    content = zlib.compress(data)
    head = b"MATLAB 5.0".ljust(124) + b"\0\1IM"
    return head + (15).to_bytes(4, "little") + len(content).to_bytes(4, "little") + content


def test_files_that_are_none_of_hovernet(pictures, labels, numbers, tmp_path, monkeypatch):
    file = labels / "tile.mat"

    def told(content):
        if isinstance(content, dict):
            io.savemat(file, content)
        else:
            file.write_bytes(content)
        with pytest.raises(InputError) as error:
            written(read_hovernet(labels, pictures), tmp_path)
        return str(error.value).partition("tile.mat: ")[2]

    assert told(b"").startswith("is no file of MATLAB: Mat file appears to be")
    assert told(b"\x89HDF".ljust(124) + b"\0\2IM") == "is of MATLAB 7.3: save it with -v7"
    assert told({"other": numbers}) == "has no inst_map: is it of HoVer-Net?"
    assert "is 1 x 2 x 3 of double" in told({"inst_map": np.zeros((1, 2, 3))})
    assert "inst_map is 1 x 1 of struct" in told({"inst_map": {"a": 1}})
    assert told({"inst_map": -numbers.astype(float)}).startswith("inst_map: holds other than whole")
    assert told({"inst_map": numbers + 0.5}).startswith("inst_map: holds other than whole numbers")
    assert told({"inst_map": numbers[1:]}).startswith("is not of the size of")
    assert told({"inst_map": numbers, "type_map": numbers[1:]}).startswith("its type_map is not of")
    assert told({"inst_map": numbers, "inst_type": [1, 2]}) == "has 2 types of 3 nuclei"
    monkeypatch.setattr("genselfdiff.data.mat_file.MAX_MASK_BYTES", 10**6)
    assert told(packed(b"\0" * 10**7)).startswith("unpacks to more than")
    with pytest.raises(InputError, match="types of nuclei are numbers"):
        read_hovernet(labels, pictures, ["#ff0000=tumour"])
    file.unlink()
    for content, reason in (
        ({"nuc": [1]}, "is no JSON of HoVer-Net"),
        ({"mag": 40}, "is no JSON of HoVer-Net"),
        ({"nuc": {"1": {"contour": [[1, 2]]}}}, "1 of fewer than 3 vertices"),
        ({"nuc": {"1": {"contour": [[1, "x"], [2, 3], [3, 4]]}}}, "1 with vertices that are no"),
    ):
        (labels / "tile.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=reason):
            written(read_hovernet(labels, pictures), tmp_path)


@pytest.mark.parametrize("kind", ["name", 3])
def test_nuclei_of_tiatoolbox(pictures, numbers, tmp_path, kind):
    shapely = pytest.importorskip("shapely")
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shapely.Polygon(hull(numbers, number))),
            "properties": {"type": kind, "prob": 0.9},
        }
        for number in TYPES
    ]
    export = tmp_path / "tile.geojson"
    export.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    result = written(read_qupath(pictures / "tile.png", export), tmp_path)
    assert (result.objects, list(result.pixels)) == (3, ["background", str(kind)])
    np.testing.assert_array_equal(mask(tmp_path, "tile"), numbers > 0)


def runs(inside):
    """Lengths of runs in the rows of a mask, the first of what is not in it."""
    found = [(value, len(list(group))) for value, group in groupby(inside.ravel().tolist())]
    return [0] * found[0][0] + [length for _, length in found]


def cvat(*images):
    return f"<?xml version='1.0'?><annotations><meta/>{''.join(images)}</annotations>"


def image(name, *shapes, width=60, height=40):
    size = f'width="{width}" height="{height}"'
    return f'<image id="0" name="{name}" {size}>{"".join(shapes)}</image>'


def polygon(points, label="tumor", z=0):
    places = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polygon label="{label}" points="{places}" z_order="{z}"><attribute/></polygon>'


def cvat_mask(inside, label, z=0):
    y, x = np.nonzero(inside)
    box = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
    height, width = inside[box].shape
    return (
        f'<mask label="{label}" rle="{", ".join(map(str, runs(inside[box])))}" left="{x.min()}"'
        f' top="{y.min()}" width="{width}" height="{height}" z_order="{z}"></mask>'
    )


def test_masks_and_polygons_of_cvat(pictures, numbers, tmp_path, caplog):
    full = np.zeros_like(numbers, bool)
    full[30:38, 2:9] = True  # one run
    ring = (numbers == 7) & (np.add(*np.indices(numbers.shape)) % 5 > 0)  # of many runs
    export = tmp_path / "annotations.xml"
    export.write_text(
        cvat(
            image(
                "sub\\tile.png",
                cvat_mask(ring, "stroma", z=1),
                polygon([(40, 10), (60, 10), (60, 40), (40, 40)]),  # lies below it
                cvat_mask(full, "tumor"),
                polygon([(1, 1), (2, 2)]),
                polygon([(1, 1), (2, 2), (9, 1)], label=" "),
                '<box label="tumor" xtl="1" ytl="2" xbr="9" ybr="9"/>',
                '<ellipse label="tumor" cx="1" cy="2" rx="9" ry="9"/>',
                '<mask label="tumor" rle="1, 2" left="0" top="0" width="2" height="2"/>',
                '<mask label="tumor" rle="1" left="0" top="0" width="x" height="2"/>',
            ),
            image("other.png"),
            image("third.png", polygon([(1, 1), (2, 2), (9, 1)])),
        )
    )
    found = read_cvat(export, pictures)
    result = written(found, tmp_path)
    assert (result.objects, list(result.pixels)) == (3, ["background", "stroma", "tumor"])
    expected = np.zeros((40, 60), int)
    expected[10:40, 40:60], expected[full] = 2, 2
    expected[ring] = 1
    np.testing.assert_array_equal(mask(tmp_path, "tile"), expected)
    assert found.left_out.summary() == (
        "left out: images: 1 without polygons or masks, 1 that are not in the folder; outlines: 1"
        " of fewer than 3 vertices, 1 without a class, 1 that are boxes around objects, 1 that are"
        " no polygons or masks, 1 whose runs of pixels (rle) are none, 1 with vertices that are no"
        " places"
    )
    with pytest.raises(InputError, match="has the classes tumor too: name all to take"):
        read_cvat(export, pictures, ["stroma"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is no XML file of CVAT"),
        (cvat(), "it has no image"),
        (cvat(image("tile.png", '<box label="a"/>')), "1 that are boxes around objects"),
        (cvat('<track id="0" label="a"/>'), "export of a video: choose 'CVAT for images 1.1'"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations>&a;</annotations>', "declares a document"),
        (
            cvat(image("tile.png", polygon([(1, 1), (5, 5), (9, 1)]), width=61)),
            "has 60 x 40 pixels, but what was labelled in .* 61 x 40",
        ),
        (
            cvat(image("tile.png", cvat_mask(np.ones((1, 1), bool), "a").replace('"0, 1"', '"1"'))),
            "1 without a pixel",
        ),
    ],
)
def test_what_is_no_export_of_cvat(pictures, tmp_path, content, told):
    export = tmp_path / "annotations.xml"
    export.write_text(content)
    with pytest.raises(InputError, match=told):
        written(read_cvat(export, pictures), tmp_path)


def test_a_mask_of_cvat_that_claims_a_lot(pictures, tmp_path):
    side = 30_000
    rle = f'rle="0, {side * side}" left="0" top="0" width="{side}" height="{side}"'
    export = tmp_path / "annotations.xml"
    export.write_text(cvat(image("tile.png", f'<mask label="a" {rle}/>')))
    written(read_cvat(export, pictures), tmp_path)
    assert mask(tmp_path, "tile").all(), "as far as the image goes"
