"""Annotations of QuPath to folders of labelled images."""

import json
import re

import numpy as np
import pytest
import tifffile
from icc_profiles import expected, scanner_profile
from importing import box, feature, mask, names, written

from genselfdiff.data.importers.qupath import read_qupath
from genselfdiff.data.importers.qupath_fields import Scales
from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.errors import InputError
from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.objects import write_objects


def test_what_qupath_gets_from_us_comes_back(tmp_path, slide):
    labels = (np.random.default_rng(0).random((30, 40)) * 3).astype(np.uint8)
    labels = np.kron(labels, np.ones((10, 10), np.uint8))
    with MaskWriter(
        tmp_path / "mask.tif",
        PyramidShape(400, 300, 0.5),
        palette=[(0, 0, 0), (255, 0, 0), (0, 255, 0)],
        class_names=["background", "stroma", "tumor"],
    ) as writer:
        writer.write_rows(labels)
    write_objects(tmp_path / "mask.tif", geojson=tmp_path / "slide.geojson")
    result = written(read_qupath(slide, tmp_path / "slide.geojson"), tmp_path)
    assert list(result.pixels) == ["background", "stroma", "tumor"]
    np.testing.assert_array_equal(mask(tmp_path, slide.stem), labels)


def test_fields_have_the_colours_of_the_profile(tmp_path, image):
    slide = tmp_path / "a.tif"
    tifffile.imwrite(slide, image, photometric="rgb", iccprofile=scanner_profile(1.8))
    (tmp_path / "a.geojson").write_text(json.dumps(feature("gland", box(0, 0, 90, 90))))
    for icc in (False, True):
        found = read_qupath(slide, tmp_path / "a.geojson", scales=Scales(icc=icc))
        (tmp_path / str(icc)).mkdir()
        written(found, tmp_path / str(icc))
    stored, seen = (
        tifffile.imread(tmp_path / str(icc) / "out" / "images" / "a.tif") for icc in (False, True)
    )
    assert abs(seen - expected(stored, 1.8)).max() < 1.6


def test_fields_that_were_annotated_in_qupath(tmp_path, slide, image, caplog):
    point = feature("gland", box(0, 0, 20, 20)) | {
        "geometry": {"type": "Point", "coordinates": [110, 50]}
    }
    features = [
        point,
        feature("", box(110, 50, 170, 90)),
        feature("gland", [(110, 50), (115, 50)]),
        feature("Region*", box(100, 40, 200, 120)),
        feature("Region*", box(350, 250, 450, 280)),  # over the edge
        feature("lumen", box(120, 60, 140, 80)),
        feature("gland", box(90, 50, 180, 100), box(150, 60, 170, 80)),
        feature("gland", box(0, 0, 20, 20)),  # in no field
    ]
    annotations = tmp_path / "slide.geojson"
    annotations.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    result = written(read_qupath(slide, annotations, classes=["gland", "lumen"]), tmp_path)
    assert result.fields == 2
    told = "1 that are no areas, 1 without a class, 1 of fewer than 3 vertices"
    assert f"slide.geojson: outlines left out: {told}" in caplog.text
    assert "slide.geojson: outlines left out: 1 outside of all fields" in caplog.text
    expected = np.zeros((80, 100), int)
    expected[10:60, :80], expected[20:40, 50:70], expected[20:40, 20:40] = 1, 0, 2
    np.testing.assert_array_equal(mask(tmp_path, f"{slide.stem}_1"), expected)
    assert mask(tmp_path, f"{slide.stem}_2").shape == (30, 50)
    pixels = tifffile.imread(tmp_path / "out" / "images" / f"{slide.stem}_1.tif")
    np.testing.assert_array_equal(pixels, image[40:120, 100:200])
    half = read_qupath(slide, annotations, scales=Scales(1.0), classes=["gland", "lumen"])
    written(half, tmp_path, overwrite=True)
    np.testing.assert_array_equal(mask(tmp_path, f"{slide.stem}_1"), expected[::2, ::2])
    assert "blurred" not in caplog.text
    double = read_qupath(slide, annotations, scales=Scales(0.25), classes=["gland", "lumen"])
    written(double, tmp_path, overwrite=True)
    assert caplog.text.count("coarser than --mpp, its fields will be blurred") == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "is no GeoJSON of QuPath"),
        ('{"features": 3}', "is no GeoJSON of QuPath"),
        ("[]", "holds no outline with a class: it is empty"),
        ("[1]", "holds no outline with a class: .* 1 that are no areas"),
        ('[{"geometry": {"type": "Polygon"}}]', "1 with vertices that are no places"),
    ],
)
def test_what_is_no_geojson(tmp_path, slide, content, told):
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(InputError, match=rf"a\.geojson: .*{told}"):
        read_qupath(slide, tmp_path / "a.geojson")


@pytest.fixture
def labelled(tmp_path, images):
    """What a.png of 12 x 9 pixels becomes with these features."""

    def label(*features, **options):
        path = tmp_path / "a.geojson"
        path.write_text(json.dumps(features), encoding="utf-8-sig")
        result = written(read_qupath(images / "a.png", path, **options), tmp_path, overwrite=True)
        return mask(tmp_path, "a"), mask(tmp_path, "a", "instances"), result

    return label


def polygons(*outlines):
    return {
        "type": "MultiPolygon",
        "coordinates": [
            [[*map(list, ring), list(ring[0])] for ring in rings] for rings in outlines
        ],
    }


PARTS = ([box(1, 1, 6, 6), box(2, 2, 5, 5)], [box(3, 3, 4, 4)], [box(8, 1, 11, 3)])
"""An outline with a hole, an island in that, and one apart."""


@pytest.mark.parametrize(
    "geometry",
    [
        polygons(*PARTS),
        {"type": "GeometryCollection", "geometries": [polygons(*PARTS[1:]), polygons(PARTS[0])]},
    ],
    ids=["MultiPolygon", "GeometryCollection"],
)
def test_all_parts_of_a_geometry_are_one_object(labelled, geometry):
    classes, instances, result = labelled(feature("gland", geometry=geometry))
    expected = np.zeros((9, 12), int)
    expected[1:6, 1:6], expected[2:5, 2:5], expected[3, 3], expected[1:3, 8:11] = 1, 0, 1, 1
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_array_equal(instances, expected)
    assert result.objects == 1


def test_a_single_feature_and_a_third_coordinate(tmp_path, images):
    square = [(x, y, 7.5) for x, y in box(2, 1, 6, 4)]
    (tmp_path / "a.geojson").write_text(json.dumps(feature("gland", square)))
    written(read_qupath(images / "a.png", tmp_path / "a.geojson"), tmp_path)
    assert mask(tmp_path, "a")[1:4, 2:6].all()
    assert mask(tmp_path, "a").sum() == 12


def test_collections_in_collections(labelled):
    inner = {"type": "FeatureCollection", "features": [GOOD, feature("gland", box(8, 5, 9, 6))]}
    outer = {"type": "FeatureCollection", "features": [inner]}
    _, instances, result = labelled(outer, feature("gland", box(0, 0, 1, 1)))
    assert result.objects == 3
    assert (instances[2, 3], instances[5, 8], instances[0, 0]) == (1, 2, 3)


NAN, HUGE = float("nan"), 10**400
GOOD = feature("gland", box(2, 1, 6, 4))


def coordinates(*rings):
    return feature("gland", geometry={"type": "Polygon", "coordinates": list(rings)})


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (None, "1 that are no areas"),
        ({}, "1 that are no areas"),
        (feature("gland", geometry=None), "1 that are no areas"),
        (feature("gland", geometry={"type": "GeometryCollection"}), "1 with vertices"),
        (feature("gland", geometry={"type": "LineString", "coordinates": []}), "1 that are no"),
        (coordinates(), "1 of fewer than 3 vertices"),
        (coordinates([]), "1 of fewer than 3 vertices"),
        (feature("gland", geometry={"type": "Polygon", "coordinates": None}), "1 with vertices"),
        (coordinates(None), "1 with vertices that are no places"),
        (coordinates([[NAN, 1], [4, 1], [4, 4]]), "1 with vertices that are no places"),
        (coordinates([[HUGE, 1], [4, 1], [4, 4]]), "1 with vertices that are no places"),
        (coordinates([[1e308, 1], [4, 1], [4, 4]]), "1 with vertices that are no places"),
        (coordinates([[1], [2], [3]]), "1 with vertices that are no places"),
        (coordinates(["ab", "cd", "ef"]), "1 with vertices that are no places"),
        (coordinates(box(0, 0, 9, 9), [[1, 2], [3]]), "1 with vertices that are no places"),
        (feature("gland", geometry=polygons([box(0, 0, 9, 9)], [])), ""),
        (coordinates(box(0, 0, 9, 9), []), ""),
        (feature(None, box(0, 0, 9, 9)), "1 without a class"),
        (feature([["x"]], box(0, 0, 9, 9)), "1 without a class"),
        (feature("", box(0, 0, 9, 9), properties=[1]), "1 without a class"),
        (feature("", box(0, 0, 9, 9), properties={"classification": {"names": [1]}}), "1 without"),
        (feature("", box(0, 0, 9, 9), properties={"classification": "gland"}), ""),
        (feature("", box(0, 0, 9, 9), properties={"classification": {"names": ["gland"]}}), ""),
    ],
)
def test_an_odd_feature_is_left_out_and_told(labelled, caplog, odd, told):
    classes, _, result = labelled(odd, GOOD)
    assert result.objects == (1 if told else 2)
    assert classes[0, 0] == classes[8, 8] == (not told)
    assert f"outlines left out: {told}" in caplog.text if told else "left out" not in caplog.text


def test_what_qupath_ignores_is_not_labelled(labelled, caplog):
    caplog.set_level("INFO", "genselfdiff")
    ignored = feature("Ignore*", box(0, 0, 9, 9))
    inner = feature("Other*", box(3, 2, 5, 3))
    classes, instances, result = labelled(GOOD, ignored, inner)
    expected = np.zeros((9, 12), int)
    expected[:9, :9], expected[1:4, 2:6], expected[2, 3:5] = IGNORED, 1, IGNORED
    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_array_equal(np.where(instances == IGNORED, IGNORED, instances > 0), expected)
    assert list(result.pixels) == ["background", "gland"]
    assert "1 of Ignore*: their pixels are not labelled (255)" in caplog.text
    classes, *_ = labelled(GOOD, ignored, classes=["gland", "Ignore*"])
    assert classes[8, 8] == 2, "what is named is a class"


@pytest.mark.parametrize("kind", ["Ignore *", "ignore*", "Tumor: Ignore*", "Ignore*: Positive"])
def test_variants_of_ignored_classes(labelled, kind):
    classes, _, result = labelled(GOOD, feature(kind, box(8, 5, 10, 7)))
    assert (classes[5:7, 8:10] == IGNORED).all()
    assert list(result.pixels) == ["background", "gland"]


def test_regions_are_no_class_where_others_are_the_fields(labelled, caplog):
    field, part = feature("Field", box(0, 0, 12, 9)), feature("Region*", box(0, 0, 3, 3))
    classes, _, result = labelled(GOOD, field, part, field_class="Field")
    assert classes[0, 0] == 0
    assert list(result.pixels) == ["background", "gland"]
    assert "1 of classes that are not taken" in caplog.text
    with pytest.raises(InputError, match="nothing has the class Feild: there are Field, Region"):
        labelled(field, part, field_class="Feild")


@pytest.mark.parametrize("scale", [1, 2])
def test_what_is_around_a_field_in_its_box_is_not_labelled(tmp_path, slide, scale):
    corner = [(100, 40), (180, 40), (180, 80), (140, 80), (140, 120), (100, 120)]
    features = [feature("Region*", corner), feature("gland", box(120, 60, 160, 100))]
    (tmp_path / "a.geojson").write_text(json.dumps(features))
    found = read_qupath(slide, tmp_path / "a.geojson", scales=Scales(0.5 * scale))
    written(found, tmp_path)
    expected = np.zeros((80, 80), int)
    expected[20:60, 20:60], expected[40:, 40:] = 1, IGNORED
    np.testing.assert_array_equal(mask(tmp_path, "slide"), expected[::scale, ::scale])
    numbers = mask(tmp_path, "slide", "instances")
    np.testing.assert_array_equal(numbers, expected[::scale, ::scale])


def test_an_upright_field_is_all_labelled(labelled):
    field = feature("Region*", box(1.6, 0.7, 9.4, 7.3))
    classes, *_ = labelled(GOOD, field)
    assert classes.shape == (8, 9)
    assert classes.max() == 1


def test_other_planes_of_a_stack_are_left_out(labelled, caplog):
    first, other = feature("gland", box(0, 0, 2, 2)), feature("gland", box(3, 3, 9, 9))
    first["geometry"]["plane"] = {"c": -1, "z": 0, "t": 0}
    other["geometry"]["plane"] = {"c": -1, "z": 2, "t": 0}
    classes, *_ = labelled(first, other)
    assert classes.sum() == 4
    assert "outlines left out: 1 in other planes of a stack" in caplog.text


def test_background_is_the_background(labelled):
    classes, instances, result = labelled(GOOD, feature("background", box(3, 2, 5, 3)))
    assert classes.sum() == instances.sum() == 10
    assert list(result.pixels) == ["background", "gland"]


def test_cells_and_their_nuclei(labelled, caplog):
    cell = feature("tumor", box(1, 1, 9, 8), nucleusGeometry=polygons([box(4, 3, 6, 5)]))
    classes, *_ = labelled(cell)
    assert classes.sum() == 56
    assert "1 cell with a nucleus: the outlines of the cells are taken; --nuclei" in caplog.text
    bare = feature("tumor", box(9, 0, 12, 9))
    bare["properties"]["objectType"] = "cell"
    old = feature("tumor", box(9, 0, 12, 9), id="PathCellObject")
    caplog.clear()
    classes, *_ = labelled(cell, bare, old, nuclei=True)
    assert classes[3:5, 4:6].all()
    assert classes.sum() == 4
    assert "outlines left out: 2 that are cells without a nucleus" in caplog.text


def test_classes_that_nothing_has(labelled, caplog):
    with pytest.raises(InputError, match=r"nothing has the class tumor: there are gland \(1\)"):
        labelled(GOOD, classes=["tumor"])
    classes, _, result = labelled(GOOD, classes=["tumor", "gland"])
    assert classes.max() == 2
    assert result.pixels["tumor"] == 0
    assert "nothing has the class tumor: there are gland (1)" in caplog.text
    labelled(GOOD, feature("lumen", box(3, 2, 5, 3)), classes=["gland"])
    assert "outlines left out: 1 of classes that are not taken" in caplog.text


def test_an_image_without_resolution(labelled):
    with pytest.raises(InputError, match=r"a\.png: .*give it with --image-mpp"):
        labelled(GOOD, scales=Scales(0.5))
    classes, _, result = labelled(GOOD, scales=Scales(0.5, 0.25))
    assert classes.shape == (4, 6)
    assert result.mpps == (0.5,)


@pytest.fixture
def folder(tmp_path, images):
    """Slides a, b and c.ome.tif in ``images``, the last behind a link, and annotations of them."""
    (tmp_path / "elsewhere").mkdir()
    (images / "linked").symlink_to(tmp_path / "elsewhere")
    tifffile.imwrite(tmp_path / "elsewhere/c.ome.tif", np.zeros((9, 12, 3), np.uint8))
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    (annotations / "._a.geojson").write_bytes(b"\0\5\x16\7")
    for name in ("a.GEOJSON", "b.geojson", "c.json"):
        (annotations / name).write_text(json.dumps([GOOD]))
    return images, annotations


def test_a_folder_with_linked_folders_and_names_in_capitals(folder, tmp_path):
    written(read_qupath(*folder), tmp_path)
    assert names(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[", "left out: .*b.geojson: is not JSON"),
        ("[]", "b.geojson: slides left out: 1 on which nothing is annotated"),
        (json.dumps([feature("Ignore*", box(0, 0, 5, 5))]), "1 on which nothing is annotated"),
        (
            json.dumps([GOOD, feature("Region*", [(0, 0), (NAN, 4), (4, 4)])]),
            "1 of which no Region",
        ),
        (json.dumps([GOOD, feature("Region*", box(30, 30, 40, 40))]), "lies outside .*b.png"),
    ],
)
def test_a_slide_that_cannot_be_used_is_left_out(folder, tmp_path, caplog, content, told):
    (folder[1] / "b.geojson").write_text(content)
    found = read_qupath(*folder)
    written(found, tmp_path)
    assert names(tmp_path) == ["a", "c"]
    assert any(re.search(told, message) for message in caplog.messages)
    assert "left out: " in found.left_out.summary()


def test_files_without_a_partner_are_left_out(folder, tmp_path):
    (folder[0] / "b.png").unlink()
    (folder[1] / "c.json").unlink()
    (folder[1] / "project.json").write_text("{}")
    found = read_qupath(*folder)
    written(found, tmp_path)
    assert names(tmp_path) == ["a"]
    assert found.left_out.summary() == (
        "left out: files: 2 without an image of their name; images: 1 without GeoJSON of their name"
    )


def test_two_files_of_annotations_of_one_name(folder):
    (folder[1] / "a.json").write_text("[]")
    with pytest.raises(InputError, match=r"a\.GEOJSON and .*a\.json have the same name"):
        read_qupath(*folder)


def test_slides_that_are_taken_whole_beside_fields_are_told(folder, tmp_path, caplog):
    (folder[1] / "b.geojson").write_text(json.dumps([GOOD, feature("Region*", box(0, 0, 7, 5))]))
    written(read_qupath(*folder), tmp_path)
    assert mask(tmp_path, "b").shape == (5, 7)
    assert "no Region* is in a, c: they are taken whole" in caplog.text


def test_a_damaged_image_is_left_out_unless_it_is_the_only_one(folder, tmp_path):
    damaged = (folder[0] / "b.png").read_bytes()[:60]
    (folder[0] / "b.png").write_bytes(damaged)
    found = read_qupath(*folder)
    written(found, tmp_path)
    assert names(tmp_path) == ["a", "c"]
    assert found.left_out.summary() == "left out: images: 1 that cannot be used with their labels"
    with pytest.raises(InputError, match=r"b\.png"):
        written(read_qupath(folder[0] / "b.png", folder[1] / "b.geojson"), tmp_path, overwrite=True)
