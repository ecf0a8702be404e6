"""Odd entries among good labels: they are left out and told, and never end an import."""

import json
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from importing import SQUARE, aperio_xml, box, feature, mask, names, region, written
from PIL import Image

from genselfdiff.data.importers.glas import read_glas
from genselfdiff.data.importers.hovernet import read_hovernet
from genselfdiff.data.importers.labelbox import read_labelbox
from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.importers.mask_folder import read_mask_folder
from genselfdiff.data.importers.monuseg import read_monuseg
from genselfdiff.data.importers.qupath import read_qupath
from genselfdiff.errors import InputError


def pixels_in(*boxes):
    """Which of 9 x 12 pixels lie in boxes whose corners are centres of pixels."""
    expected = np.zeros((9, 12), bool)
    for left, top, right, bottom in boxes:
        expected[top : bottom + 1, left : right + 1] = True
    return expected


LARGE, HOLE, ISLAND = (0, 0, 8, 8), (2, 2, 6, 6), (4, 4, 4, 4)


@pytest.mark.parametrize(
    "order",
    ["large hole", "hole large", "large hole island", "hole large island"],
)
def test_a_negative_region_is_a_hole(images, tmp_path, order):
    regions = {
        "large": region(box(*LARGE)),
        "hole": region(box(*HOLE), NegativeROA=1, Type=0),
        "island": region([(4, 4), (4.4, 4), (4, 4.4)], NegativeROA=0),
    }
    xml = aperio_xml(*(regions[name] for name in order.split()))
    (images / "a.xml").write_bytes(xml)
    result = written(read_monuseg(images), tmp_path)
    expected = pixels_in(LARGE) & ~pixels_in(HOLE)
    if "island" in order:
        expected |= pixels_in(ISLAND)
    np.testing.assert_array_equal(mask(tmp_path, "a"), expected)
    assert result.objects == len(order.split()) - 1


def test_a_negative_region_is_a_hole_in_its_own_layer(images, tmp_path, caplog):
    layers = [
        region(box(*LARGE)) + region(box(9, 0, 11, 2), NegativeROA=1),
        region(box(*HOLE), NegativeROA=1) + region(box(1, 1, 7, 7)),
    ]
    layers = [f"<Annotation><Regions>{layer}</Regions></Annotation>" for layer in layers]
    (images / "a.xml").write_text(f"<Annotations>{''.join(layers)}</Annotations>")
    written(read_monuseg(images), tmp_path)
    instances = mask(tmp_path, "a", "instances")
    assert (instances[2:7, 2:7] == 1).all()
    assert (instances[1, 1:8] == 2).all()
    assert "1 that take nothing away (NegativeROA)" in caplog.text


def test_odd_regions_are_left_out_and_told(images, tmp_path, caplog):
    odd = [
        region([(1, 1), ("", 2), (3, 3)]),
        region([(1, 1), ("nan", 2), (3, 3)]),
        region([(1, 1), ("9" * 400, 2), (3, 3)]),
        region([(5, 5), (9, 8)], Type=2),
        region([]),
        region([("7,0", "5,5"), ("10", "5,5"), ("10", "7"), ("7", "7")]),
    ]
    (images / "a.XML").write_bytes(b"\xef\xbb\xbf" + aperio_xml(SQUARE, *odd))
    (images / "._a.xml").write_bytes(b"\0\5\x16\7")
    (images / "b.xml").write_bytes(b"<Annotations>")
    found = read_monuseg(images)
    assert written(found, tmp_path).objects == 2
    assert names(tmp_path) == ["a"]
    np.testing.assert_array_equal(mask(tmp_path, "a"), pixels_in((2, 1, 6, 4), (7, 6, 10, 7)))
    assert "left out: " in caplog.text
    assert "b.xml: is no XML file of ImageScope" in caplog.text
    assert found.left_out.summary() == (
        "left out: outlines: 3 with vertices that are no places,"
        " 1 that are ellipses, arrows or rulers, 1 of fewer than 3 vertices;"
        " images: 1 that cannot be used with their labels"
    )


@pytest.mark.parametrize(
    ("told", "mpp"), [("0,252", 0.252), ("", None), ("0", None), ("1e999", None), ("fine", None)]
)
def test_resolutions_of_imagescope(images, tmp_path, told, mpp, caplog):
    xml = aperio_xml(SQUARE).replace(b"0.252", told.encode())
    (images / "a.xml").write_bytes(xml)
    assert written(read_monuseg(images), tmp_path).mpps == (() if mpp is None else (mpp,))
    assert ("MicronsPerPixel is" in caplog.text) == (told in ("1e999", "fine"))


def test_two_files_of_labels_of_one_name(images, tmp_path):
    for name in ("first", "second"):
        (images / name).mkdir()
        (images / name / "a.xml").write_bytes(aperio_xml(SQUARE))
    with pytest.raises(InputError, match=r"first/a\.xml and .*second/a\.xml have the same name"):
        read_monuseg(images)


def vertices(outline):
    return [{"x": x + 0.5, "y": y + 0.5} for x, y in outline]  # counted from 1


GOOD = {"External ID": "a.png", "Label": {"tumor": [{"geometry": vertices(SQUARE)}]}}
ROW = {"name": "tumor", "polygon": vertices(SQUARE)}


def row(*labels, name="b.png"):
    return {"data_row": {"external_id": name}, "projects": {"p": {"labels": list(labels)}}}


def label(*objects):
    return {"annotations": {"objects": list(objects)}, "performance_details": None}


def older(label, name="b.png"):
    return {"External ID": name, "Label": label}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (older(None), "1 without polygons (b.png)"),
        (older("Skip"), "1 without polygons (b.png)"),
        (older({"model": "none"}), "1 without polygons (b.png)"),
        (older([1]), "1 that are not as in an export of polygons (b.png: "),
        (older({}, name=None), "1 that are not as in an export of polygons (entry 1: None"),
        (older({}, name="../../c.png"), "1 that are not in the folder (../../c.png)"),
        (older({"tumor": [{"geometry": [{"x": 1e400, "y": 2}] * 3}]}), "1 without polygons"),
        (older({"tumor": [{"geometry": [None, {}, "x"]}]}), "1 without polygons (b.png)"),
        (older({"objects": [3, None, {"value": 7, "polygon": ROW["polygon"]}]}), "1 without"),
        (row(label(ROW), label(ROW)), "1 with several labels: export one of each image (b.png)"),
        (row({"annotations": None}), "1 that are not as in an export of polygons (b.png: "),
        (row({"performance_details": {"skipped": True}}), "1 without polygons (b.png)"),
        ({"data_row": None, "projects": {}}, "1 that are not as in an export of polygons"),
        ({"data_row": {"external_id": "b.png"}, "projects": None}, "1 without polygons (b.png)"),
        (7, "1 that are not as in an export of polygons (entry 1: "),
        (None, "1 that are not as in an export of polygons (entry 1: "),
    ],
)
@pytest.mark.parametrize("form", ["list", "lines"])
def test_an_odd_entry_of_labelbox_is_left_out_and_told(images, tmp_path, caplog, entry, told, form):
    export = tmp_path / "export.json"
    lines = "\r\n".join(map(json.dumps, (entry, GOOD)))
    export.write_text(json.dumps([entry, GOOD]) if form == "list" else lines, "utf-8-sig")
    found = read_labelbox(export, images)
    written(found, tmp_path)
    assert names(tmp_path) == ["a"]
    np.testing.assert_array_equal(mask(tmp_path, "a")[1:4, 2:6], 1)
    assert f"export.json: images left out: {told}" in caplog.text
    assert found.left_out.summary().startswith("left out: images: 1 ")


def test_good_polygons_of_labelbox_among_odd_ones(images, tmp_path):
    objects = {"tumor": [{"geometry": vertices(SQUARE)}, {"geometry": 3}], "quality": "good"}
    export = tmp_path / "export.json"
    export.write_text(
        json.dumps([older(objects, "C:\\slides\\a.png"), row(label(ROW, None), name="x/b.tif")])
    )
    found = read_labelbox(export, images)
    assert written(found, tmp_path).objects == 2
    assert found.left_out.summary() == "left out: outlines: 3 that are no polygons"


def test_an_image_that_had_another_size_when_it_was_labelled(images, tmp_path, caplog):
    export = tmp_path / "export.ndjson"
    sizes = {"a.png": (9, 12), "b.png": (24, 18)}  # of one that is turned, and of a larger one
    rows = [
        row(label(ROW), name=name) | {"media_attributes": {"width": width, "height": height}}
        for name, (width, height) in sizes.items()
    ]
    export.write_text("\n".join(map(json.dumps, rows)))
    written(read_labelbox(export, images), tmp_path)
    assert names(tmp_path) == ["a"]
    assert "b.png: has 12 x 9 pixels, but what was labelled in" in caplog.text


def test_a_line_of_labelbox_that_is_cut_short(images, tmp_path):
    export = tmp_path / "export.ndjson"
    export.write_text(f'{json.dumps(GOOD)}\n{{"data_row": {{"exter')
    found = read_labelbox(export, images)
    written(found, tmp_path)
    assert names(tmp_path) == ["a"]
    assert found.left_out.summary() == "left out: lines: 1 that are not JSON"


def test_classes_of_labelbox_that_nothing_has(images, tmp_path, caplog):
    export = tmp_path / "export.json"
    export.write_text(json.dumps([GOOD]))
    with pytest.raises(InputError, match=r"nothing has the class Tumor: there are tumor \(1\)"):
        read_labelbox(export, images, ["Tumor"])
    assert read_labelbox(export, images, ["tumor", "stroma"]).class_names[2] == "stroma"
    assert "nothing has the class stroma: there are tumor (1)" in caplog.text
    export.write_text(json.dumps([GOOD, row(label(ROW | {"name": "lumen"}))]))
    with pytest.raises(InputError, match="has the classes lumen too: name all to take"):
        read_labelbox(export, images, ["tumor"])


def test_masks_that_cannot_be_used_are_left_out(images, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (12, 9), 7).save(masks / "a.png")
    Image.new("L", (12, 8), 7).save(masks / "b.png")
    Image.new("L", (12, 8), 7).save(masks / "c.png")
    found = read_mask_folder(images, masks, ["7=gland"])
    written(found, tmp_path)
    assert names(tmp_path) == ["a"]
    assert found.left_out.summary() == (
        "left out: files: 1 without an image of their name;"
        " images: 1 that cannot be used with their labels"
    )


def test_an_annotation_of_glas_that_is_damaged(tmp_path):
    glands = np.arange(108, dtype=np.uint8).reshape(9, 12)
    for name in ("train_1", "train_2"):
        Image.new("RGB", (12, 9)).save(tmp_path / f"{name}.bmp")
        Image.fromarray(glands).save(tmp_path / f"{name}_anno.bmp")
    (tmp_path / "train_2_anno.bmp").write_bytes(b"BM")
    (tmp_path / "._train_1_anno.bmp").write_bytes(b"\0\5\x16\7")
    found = read_glas(tmp_path)
    assert written(found, tmp_path).objects == 107
    assert names(tmp_path) == ["train_1"]
    assert found.left_out.summary() == "left out: images: 1 that cannot be used with their labels"


ODD = (None, 3, 10**400, float("nan"), "x", [], {}, [None], [[1, 2]])


def places(content, place=()):
    """Where something is in JSON, as keys and indices."""
    yield place
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from places(content[key], (*place, key))


def with_odd(content, place, odd):
    if not place:
        return odd
    changed = content.copy()
    changed[place[0]] = with_odd(content[place[0]], place[1:], odd)
    return changed


CELL = feature("", box(1, 1, 5, 5), nucleusGeometry={"type": "Polygon", "coordinates": []})
CELL["properties"]["classification"] = {"names": ["gland", "lumen"]}
COLLECTION = {"type": "GeometryCollection", "geometries": [CELL["geometry"]]}


@pytest.mark.parametrize(
    "content",
    [
        {"features": [CELL, feature("Region*", geometry=COLLECTION)]},
        row(label(ROW), name="a.png"),
        [GOOD],
        [older({"objects": [{"value": "tumor", "polygon": vertices(SQUARE)}]}, name="a.png")],
        {"mag": 40, "nuc": {"1": {"contour": [list(place) for place in SQUARE], "type": 1}}},
    ],
    ids=[
        *("GeoJSON", "NDJSON of Labelbox", "JSON of Labelbox", "JSON of Labelbox with objects"),
        "HoVer-Net",
    ],
)
def test_whatever_is_odd_wherever_is_at_most_an_error_of_the_input(images, tmp_path, content):
    (tmp_path / "labels").mkdir()
    export = tmp_path / "labels/a.json"
    for place in places(content):
        for odd in ODD:
            export.write_text(json.dumps(with_odd(content, place, odd)))
            with suppress(InputError):
                if "nuc" in content:
                    list(read_hovernet(export.parent, images, ["1=tumor"]).fields)
                elif "features" in content:
                    read_qupath(images / "a.png", export, nuclei=True)
                else:
                    read_labelbox(export, images)


def test_the_first_that_cannot_be_used_is_told_once(caplog):
    def fails(name):
        raise InputError(f"{name}: damaged")

    bad, good = partial(fails, "a"), partial(str, "b")
    assert list(LeftOut().each([bad, good, partial(fails, "c")])) == ["b"]
    assert [record.getMessage() for record in caplog.records] == [
        "left out: a: damaged",
        "left out: c: damaged",
    ]
    caplog.clear()
    with pytest.raises(InputError, match="a: damaged"):
        list(LeftOut().each([bad, partial(fails, "c")]))
    assert [record.getMessage() for record in caplog.records] == ["left out: c: damaged"]
