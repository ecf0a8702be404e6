"""Labels of other programs to folders of labelled images."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from importing import SQUARE, aperio_xml, mask, written
from PIL import Image

from genselfdiff.data.importers.glas import read_glas
from genselfdiff.data.importers.labelbox import read_labelbox
from genselfdiff.data.importers.mask_folder import read_mask_folder
from genselfdiff.data.importers.monuseg import read_monuseg
from genselfdiff.data.labelled.pairs import find_pairs, inspect_masks
from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.errors import InputError, OutputError
from genselfdiff.slides import open_slide, read_image


def test_monuseg(images, tmp_path, caplog):
    (images / "a.xml").write_bytes(aperio_xml(SQUARE, [(4, 0), (11, 0), (11, 2)], [(1, 1), (2, 2)]))
    result = written(read_monuseg(images), tmp_path)
    assert "outlines left out: 1 of fewer than 3 vertices" in caplog.text
    assert (result.fields, result.objects, result.mpps) == (1, 2, (0.252,))
    np.testing.assert_array_equal(mask(tmp_path, "a"), mask(tmp_path, "a", "instances") > 0)
    np.testing.assert_array_equal(mask(tmp_path, "a", "instances")[2:4, 2:6], 1)
    assert mask(tmp_path, "a", "instances")[0, 8] == 2
    with open_slide(tmp_path / "out/images/a.tif") as image:
        assert image.mpp == pytest.approx(0.252)
    np.testing.assert_array_equal(
        read_image(tmp_path / "out/images/a.tif"), read_image(images / "a.png")
    )
    with (tmp_path / "out/fields.csv").open() as text:
        (row,) = csv.DictReader(text)
    assert row == {"name": "a", "mpp": "0.252", "objects": "2", "source": str(images / "a.xml")}
    assert (tmp_path / "out/classes.csv").read_text() == "value,class\n0,background\n1,nucleus\n"
    pairs = find_pairs(tmp_path / "out/images", tmp_path / "out/masks")
    assert inspect_masks(pairs).num_classes == 2
    assert "--mpp" not in result.summary(), "the image tells its mpp"


ENTITIES = '<!DOCTYPE x [<!ENTITY a "b">]><Annotations>&a;</Annotations>'


@pytest.mark.parametrize(
    ("xml", "told"),
    [
        (b"", "no XML file of ImageScope"),
        (b"<Annotations>", "no XML file of ImageScope"),
        (b'<?xml version="1.0" encoding="x-none"?><Annotations/>', "unknown encoding"),
        (b'<?xml version="1.0" encoding="gb2312"?><Annotations/>', "no XML file of ImageScope"),
        (b"<Annotations/>", "holds no Region that is an outline: it has none"),
        (ENTITIES.encode(), "declares a document type"),
        (ENTITIES.encode("utf-16"), "declares a document type"),
        (b'<!DOCTYPE x SYSTEM "/etc/hostname"><Annotations/>', "declares a document type"),
        (aperio_xml([(1, 1), ("here", 2), (3, 3)]), "1 with vertices that are no places"),
        (aperio_xml([(1, 1), (2, 2)]), "1 of fewer than 3 vertices"),
    ],
)
def test_what_is_no_xml_of_imagescope(images, tmp_path, xml, told):
    (images / "a.xml").write_bytes(xml)
    with pytest.raises(InputError, match=rf"a\.xml: .*{told}"):
        written(read_monuseg(images), tmp_path)


def test_labels_without_their_image(images):
    (images / "c.xml").write_bytes(aperio_xml(SQUARE))
    with pytest.raises(
        InputError, match=r"no XML file has the name of an image.* there are c\.xml"
    ):
        read_monuseg(images)


@pytest.mark.skipif("GSD_TEST_DATA" not in os.environ, reason="set GSD_TEST_DATA to the data")
def test_the_outlines_of_monuseg_are_its_masks(tmp_path):
    folder = Path(os.environ["GSD_TEST_DATA"]) / "monuseg2018" / "train"
    found = read_monuseg(folder / "annotations_xml", folder / "images")
    written(found, tmp_path)
    assert found.count == 4
    for path in (tmp_path / "out/instances").iterdir():
        ours = np.asarray(Image.open(path)) > 0
        theirs = np.asarray(Image.open(folder / "instances" / path.name)) > 0
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.9999, path.name


def test_glas(tmp_path):
    glands = np.zeros((9, 12), np.uint8)
    glands[2:5, 3:7], glands[6:, :4] = 1, 2
    folder = tmp_path / "glas"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "train_1.bmp")
    Image.fromarray(glands).save(folder / "train_1_anno.bmp")
    result = written(read_glas(folder), tmp_path)
    assert (result.objects, result.mpps) == (2, (0.62,))
    np.testing.assert_array_equal(mask(tmp_path, "train_1", "instances"), glands)
    np.testing.assert_array_equal(mask(tmp_path, "train_1"), glands > 0)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/images/train_1.tif"), pixels)


@pytest.mark.parametrize("form", ["by class", "objects", "ndjson"])
def test_labelbox(images, tmp_path, form, caplog):
    vertices = [{"x": x + 0.5, "y": y + 0.5} for x, y in SQUARE]  # counted from 1
    far = [{"x": 100 * x, "y": y} for x, y in SQUARE]
    export = tmp_path / "export.json"
    if form == "ndjson":
        objects = [
            {"name": "tumor", "annotation_kind": "ImagePolygon", "polygon": vertices},
            {"name": "tumor", "annotation_kind": "ImagePolygon", "polygon": vertices[:2]},
            {"name": "tumor", "annotation_kind": "ImagePolygon", "polygon": far},
            {"name": "tumor", "annotation_kind": "ImageBoundingBox", "bounding_box": {"top": 1}},
        ]
        rows = [
            ({"id": "1", "external_id": "a.png"}, [{"annotations": {"objects": objects}}]),
            ({"id": "2", "global_key": "b.png"}, []),
            ({"id": "3", "global_key": "c.png"}, [{"performance_details": {"skipped": True}}]),
            ({"id": "4", "global_key": "d.png"}, [{"annotations": {"objects": objects[3:]}}]),
        ]
        lines = [{"data_row": r, "projects": {"p": {"labels": labels}}} for r, labels in rows]
        export.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    else:
        point = {"x": 3, "y": 3}
        by_class = {"tumor ": [{"geometry": v} for v in (vertices, vertices[:2], far, point)]}
        items = [{"value": "tumor", "polygon": v} for v in (vertices, vertices[:2], far)]
        items.append({"value": "tumor", "bbox": {"top": 1}})
        label = {"objects": items} if form == "objects" else by_class | {"stroma": []}
        entries = [
            {"External ID": "a.png", "Label": label},
            {"External ID": "b.png", "Label": "Skip"},
        ]
        export.write_text(json.dumps(entries))
    result = written(read_labelbox(export, images), tmp_path)
    newer = form == "ndjson"
    few, others = "1 of fewer than 3 vertices", f"{1 + newer} that are no polygons"
    told = f"{few}, {others}"
    assert f"export.json: outlines left out: {told}" in caplog.text
    names = "3 without polygons (b.png, c.png, d.png)" if newer else "1 without polygons (b.png)"
    assert f"export.json: images left out: {names}" in caplog.text
    assert "a.png: outside the image of 12 x 9 pixels: 1 of 2 outlines" in caplog.text
    assert list(result.pixels) == ["background", "tumor"]
    expected = np.zeros((9, 12), int)
    expected[1:4, 2:6] = 1
    np.testing.assert_array_equal(mask(tmp_path, "a"), expected)
    assert not (tmp_path / "out/masks/b.png").exists()
    with pytest.raises(InputError, match="nothing has the class stroma: there are tumor"):
        read_labelbox(export, images, ["stroma"])
    written(read_labelbox(export, images, ["stroma", "tumor"]), tmp_path, overwrite=True)
    np.testing.assert_array_equal(mask(tmp_path, "a"), 2 * expected)


UNLABELLED = '{"External ID": "a.png", "Label": {"t": []}}'
TWO_LABELS = json.dumps(
    {
        "data_row": {"external_id": "a.png"},
        "projects": {"p": {"labels": [{"annotations": {"objects": []}}] * 2}},
    }
)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[", r"export\.json: is not JSON"),
        ("[" * 100_000, r"export\.json: is nested too deeply"),
        ('[{"a": 1},\n{', "is not JSON: .*line 2 column 2"),
        ("[]", "holds no labelled image that can be used: it has no entry"),
        (TWO_LABELS, r"1 with several labels: export one of each image \(a\.png\)"),
        (f"[{UNLABELLED}, {UNLABELLED}]", r"several labels: export one of each image \(a\.png\)"),
        ("[3]", "1 that are not as in an export of polygons .entry 1: "),
        ('{"a": 3}', "entry 1: lacks 'External ID'"),
        ('[{"External ID": "a.png"}]', r"a\.png: lacks 'Label'"),
        ('[{"External ID": "a.png", "Label": "Skip"}]', r"1 without polygons \(a\.png\)"),
        ('[{"External ID": "a", "Label": {"t": [{"geometry": [{"x": 1}]}]}}]', "are no places"),
        ('[{"External ID": "z.png", "Label": {"t": []}}]', r"not in the folder \(z\.png\)"),
        (f"[{UNLABELLED}]", "nothing has a class"),
    ],
)
def test_what_is_no_export_of_labelbox(images, tmp_path, content, told):
    export = tmp_path / "export.json"
    export.write_text(content)
    with pytest.raises(InputError, match=told):
        read_labelbox(export, images)


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    values = np.zeros((9, 12), np.uint8)
    values[:3], values[3:5] = 7, 200
    Image.fromarray(values).save(folder / "a.png")
    colours = np.zeros((9, 12, 3), np.uint8)
    colours[:3] = 255, 0, 0
    colours[3:5] = 0x12, 0x34, 0x56
    Image.fromarray(colours).save(folder / "b.png")
    return folder


@pytest.mark.parametrize(
    ("name", "meanings"),
    [
        ("a", ["7=gland", "0=background", "200=ignore"]),
        ("b", ["#ff0000=gland", "#000000=background", "#123456=ignore"]),
    ],
)
def test_masks_with_a_table(images, masks, tmp_path, name, meanings):
    (masks / f"{'b' if name == 'a' else 'a'}.png").unlink()
    result = written(read_mask_folder(images, masks, meanings), tmp_path)
    expected = np.zeros((9, 12), int)
    expected[:3], expected[3:5] = 1, IGNORED
    np.testing.assert_array_equal(mask(tmp_path, name), expected)
    assert (result.pixels, result.ignored) == ({"background": 48, "gland": 36}, 24)
    assert "255 not labelled: 22.22 %" in result.summary()


def test_a_palette_of_8_bits_as_colours(images, masks, tmp_path):
    (masks / "a.png").unlink()
    (masks / "b.png").unlink()
    values = np.zeros((9, 12), np.uint8)
    values[:3] = 1
    colours = np.zeros((3, 256), np.uint16)
    colours[0, 1] = 255  # 65,280 or more is what the format wants
    tifffile.imwrite(masks / "a.tif", values, photometric="palette", colormap=colours)
    table = ["#ff0000=gland", "#000000=background"]
    written(read_mask_folder(images, masks, table), tmp_path)
    np.testing.assert_array_equal(mask(tmp_path, "a"), values)


@pytest.mark.parametrize(
    ("meanings", "told"),
    [
        (["7=gland", "0=background"], r"a\.png: nobody said what 200 means"),
        (["7"], "7: give VALUE=CLASS"),
        (["red=gland"], "give VALUE=CLASS"),
        (["9" * 5000 + "=gland"], "give VALUE=CLASS"),
        (["0=background", "7=gland", "07=stroma"], "07=stroma: 07 has another meaning already"),
        (["#ff0000=gland", "#FF0000=ignore"], "#FF0000 has another meaning already"),
        (["7=gland", "#000000=background"], "numbers and colours"),
        (["0=background"], "0=background: nothing has a class but the background"),
    ],
)
def test_tables_that_do_not_fit(images, masks, tmp_path, meanings, told):
    (masks / "b.png").unlink()
    with pytest.raises(InputError, match=told):
        written(read_mask_folder(images, masks, meanings), tmp_path)


def test_a_mask_of_another_size(images, masks, tmp_path):
    (masks / "b.png").unlink()
    Image.new("RGB", (5, 5)).save(images / "a.png")
    with pytest.raises(InputError, match=r"a\.png: is not of the size of"):
        written(read_mask_folder(images, masks, ["7=x", "0=background", "200=y"]), tmp_path)


def test_an_import_does_not_replace_what_it_reads(images, masks, tmp_path):
    meanings = ["7=gland", "0=background", "200=ignore"]
    (masks / "b.png").unlink()
    written(read_mask_folder(images, masks, meanings), tmp_path)
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    with pytest.raises(OutputError, match="masks: holds an input of this run"):
        written(
            read_mask_folder(images, out / "masks", ["1=gland", "0=background", "255=ignore"]),
            tmp_path,
            overwrite=True,
        )
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


def test_a_folder_that_is_not_empty(images, tmp_path):
    for name in "ab":
        (images / f"{name}.xml").write_bytes(aperio_xml(SQUARE))
    written(read_monuseg(images), tmp_path)
    with pytest.raises(OutputError, match="is there already"):
        written(read_monuseg(images), tmp_path)
    (tmp_path / "out/sheet.png").touch()
    (images / "a.xml").unlink()
    written(read_monuseg(images), tmp_path, overwrite=True)
    there = sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")
    )
    assert there == [
        *("classes.csv", "fields.csv", "images/b.tif", "instances/b.png", "masks/b.png"),
        "sheet.png",
    ], "nothing of the first import, and what is not of it stays"


def test_a_failing_import_leaves_what_was_there(images, tmp_path):
    (images / "a.xml").write_bytes(b"<Annotations/>")
    with pytest.raises(InputError, match="holds no Region"):
        written(read_monuseg(images), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]
    (tmp_path / "out/images").mkdir(parents=True)
    (tmp_path / "out/images/mine.png").touch()
    (images / "a.xml").write_bytes(aperio_xml(SQUARE))
    with pytest.raises(OutputError, match=r"the images there are of no import \(no fields\.csv\)"):
        written(read_monuseg(images), tmp_path, overwrite=True)
    assert (tmp_path / "out/images/mine.png").exists()


def test_a_failing_import_over_an_earlier_one_leaves_that(images, tmp_path, monkeypatch):
    (images / "a.xml").write_bytes(aperio_xml(SQUARE))
    written(read_monuseg(images), tmp_path)

    def files():
        return {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*")}

    before = files()
    (images / "a.xml").write_bytes(b"<Annotations/>")
    with pytest.raises(InputError, match="holds no Region"):
        written(read_monuseg(images), tmp_path, overwrite=True)
    assert files() == before
    (images / "a.xml").write_bytes(aperio_xml(SQUARE))
    rename, failed = Path.rename, []

    def failing(self, target):
        if target == tmp_path / "out/masks" and not failed:
            failed.append(target)
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match=r"out: cannot be written: .*No space"):
        written(read_monuseg(images), tmp_path, overwrite=True)
    assert files() == before


def test_a_resolution_that_the_image_contradicts(images, tmp_path, caplog):
    with Image.open(images / "a.png") as picture:
        picture.save(images / "a.png", dpi=(25400 / 0.5,) * 2)
    (images / "a.xml").write_bytes(aperio_xml(SQUARE))
    result = written(read_monuseg(images), tmp_path)
    assert "a.xml: 0.252 um/px, but" in caplog.text
    assert result.mpps == (pytest.approx(0.5, rel=1e-3),)
    assert (tmp_path / "out/images/a.png").read_bytes() == (images / "a.png").read_bytes()


def test_images_that_would_have_one_name(images, tmp_path):
    (images / "a.png").rename(images / "a.tiff")
    (images / "b.png").rename(images / "a.jpg")
    square = [{"x": x, "y": y} for x, y in SQUARE]
    entries = [
        {"External ID": name, "Label": {"tumor": [{"geometry": square}]}}
        for name in ("a.tiff", "a.jpg")
    ]
    (tmp_path / "export.json").write_text(json.dumps(entries))
    with pytest.raises(InputError, match="have the same name"):
        read_labelbox(tmp_path / "export.json", images)
    for entry in entries:
        entry["External ID"] = "a.tiff" if entry is entries[0] else "a"
    (images / "a.jpg").unlink()
    (tmp_path / "export.json").write_text(json.dumps(entries))
    with pytest.raises(InputError, match=r"1 with several labels: .* \(a\.tiff\)"):
        read_labelbox(tmp_path / "export.json", images)
