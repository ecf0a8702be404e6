"""From a mask or QuPath to corrections, and from there to training and to QuPath."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from icc_profiles import scanner_profile
from PIL import Image
from viewer_client import Client

from genselfdiff.data.importers.qupath import read_qupath
from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.slides import open_slide
from genselfdiff.suggesting.field import Field
from genselfdiff.suggesting.field_geojson import write_fields
from genselfdiff.viewer.collection import collect
from genselfdiff.viewer.corrections.geojson_files import GeoJsonFiles
from genselfdiff.viewer.corrections.part import corrections_part
from genselfdiff.viewer.corrections.results import CONTEXT
from genselfdiff.viewer.library import Library
from gsd.main import main

Make = Callable[..., Path]

BOX = {"x": 130, "y": 150, "width": 301, "height": 202}
FIELD = "c0ffee" * 4


def asked(folder: Path, *files: Path) -> Client:
    library = Library(collect(files))
    return Client(library, corrections_part(library, folder))


def do(client: Client, kind: str, status: int = 200, **more: Any) -> Any:
    do.count = getattr(do, "count", 0) + 1
    content = {"id": f"{do.count:016x}", "kind": kind, **more}
    answer = client.request("POST", "corrections/0", json=content)
    assert answer.status_code == status, answer.text
    return answer.json() if status == 200 else answer.text


def frame(client: Client, **more: Any) -> Any:
    return do(client, "field", id=FIELD, **BOX, **more)


def picture(client: Client, box: str = "0/0/301/202") -> np.ndarray:
    answer = client.get(f"corrections/0/fields/{FIELD}/{box}")
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(answer))


@pytest.fixture
def client(tmp_path: Path, slide: Make, mask: Make) -> Client:
    return asked(tmp_path / "out", slide(), mask())


def stored(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / name / f"s_x{BOX['x']}_y{BOX['y']}.png"))


def inner(array: np.ndarray) -> np.ndarray:
    return array[CONTEXT : CONTEXT + BOX["height"], CONTEXT : CONTEXT + BOX["width"]]


def mask_in_field() -> np.ndarray:
    """What ``Samples.mask`` has there."""
    y, x = np.mgrid[: BOX["height"], : BOX["width"]] + np.array([BOX["y"], BOX["x"]])[:, None, None]
    labels = np.where(np.abs(y - 450) < 300, 1, 0)
    labels[(y % 50 - 25) ** 2 + (x % 50 - 25) ** 2 < 144] = 2
    return labels


def test_a_field_begins_as_the_mask_shows_it_and_ends_as_it_was_drawn(
    client: Client, tmp_path: Path
) -> None:
    told = frame(client, layer=0)
    assert told["fields"] == [{"id": FIELD, **BOX}]
    assert [each["name"] for each in told["classes"]] == ["background", "stroma", "nucleus"]
    np.testing.assert_array_equal(picture(client)[..., 0], mask_in_field())
    # A nucleus is taken away, another drawn, and something nobody knows.
    do(client, "object", field=FIELD, label=0, points=[[275, 275]])
    told = do(client, "brush", field=FIELD, label=2, points=[[200, 200], [240, 220]], radius=5.5)
    assert told["changed"]["field"] == FIELD
    x, y, width, height = told["changed"]["box"]
    corner = [[400, 150], [500, 150], [500, 250]]
    do(client, "polygon", field=FIELD, label=255, points=corner)
    shown = picture(client)
    assert shown[125, 145, 0] == 0
    assert (shown[y : y + height, x : x + width, 0] == 2).any()
    part = picture(client, f"{x}/{y}/{width}/{height}")
    np.testing.assert_array_equal(part, shown[y : y + height, x : x + width])

    assert (
        "1 labelled image, "
        in client.request("POST", "corrections/results", json={}).json()["told"]
    )
    out = tmp_path / "out"
    masks = stored(out, "masks")
    np.testing.assert_array_equal(inner(masks), shown[..., 0])
    assert (
        np.delete(masks.ravel(), np.flatnonzero(np.pad(np.ones((202, 301)), CONTEXT))).min() == 255
    )
    with (
        open_slide(tmp_path / "s.tif") as slide,
        open_slide(next((out / "images").iterdir())) as cut,
    ):
        window = BOX["x"] - CONTEXT, BOX["y"] - CONTEXT, cut.width, cut.height
        np.testing.assert_array_equal(cut.read_level(0, 0, *window[2:]), slide.read_level(*window))
        assert cut.mpp == 0.5
    assert (out / "classes.csv").read_text() == "value,class\n0,background\n1,stroma\n2,nucleus\n"

    # QuPath's way leads to the same pixels and objects.
    names = ["stroma", "nucleus"]
    found = read_qupath(tmp_path / "s.tif", out / "geojson" / "s.geojson", classes=names)
    (field,) = found.fields
    np.testing.assert_array_equal(field.classes, shown[..., 0])
    numbers = inner(stored(out, "instances")).astype(np.int64)
    pairs = np.unique(np.stack((numbers.ravel(), field.instances.ravel())), axis=1)
    known = pairs[:, pairs[0] != 255]
    assert len(set(known[0])) == len(set(known[1])) == known.shape[1]
    assert known.shape[1] > 20
    np.testing.assert_array_equal(numbers == 255, shown[..., 0] == 255)

    # So does the command, without a page.
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    result = CliRunner().invoke(main, ["data", "corrections", str(out)])
    assert result.exit_code == 0, result.output
    assert f"next: gsd train finetune {out} --init nuclei --out {out}-run" in result.output
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before


def test_objects_that_touch_are_those_that_the_mask_tells_apart(
    slide: Make, tmp_path: Path
) -> None:
    planes = np.zeros((2, 900, 1300), np.uint8)
    planes[0, 200:230, 150:210] = 1  # two objects that touch, by their cores
    planes[1, 210:220, 155:175] = planes[1, 210:220, 185:205] = 1
    planes[0, 250:290, 300:340] = 1  # one without a core
    options = {"palette": [(255, 255, 255), (200, 30, 160)], "class_names": ["glass", "nucleus"]}
    shape, told = PyramidShape(1300, 900, 0.5), {"job": {"slide": "s.tif 0123456789abcdef"}}
    with MaskWriter(tmp_path / "m.tif", shape, cores=True, **options, description=told) as writer:
        writer.push(planes)
    client = asked(tmp_path / "out", slide(), tmp_path / "m.tif")
    frame(client, layer=0)
    shown = picture(client)
    labels = planes[0, 150:352, 130:431]
    np.testing.assert_array_equal(shown[..., 0], labels)
    numbers = shown[..., 1]
    assert len(np.unique(numbers)) == 4
    assert numbers[65, 25] != numbers[65, 75] != 0
    assert (numbers[labels > 0] > 0).all()
    client.request("POST", "corrections/results", json={})
    assert len(np.unique(inner(stored(tmp_path / "out", "instances")))) == 4


def test_touching_objects_stay_apart(client: Client, tmp_path: Path) -> None:
    frame(client)
    for left in (150, 170):
        ring = [[left, 160], [left + 20, 160], [left + 20, 180], [left, 180]]
        do(client, "polygon", field=FIELD, label=2, points=ring)
    client.request("POST", "corrections/results", json={})
    numbers = inner(stored(tmp_path / "out", "instances"))
    assert np.unique(numbers).tolist() == [0, 1, 2]
    content = json.loads((tmp_path / "out/geojson/s.geojson").read_text())
    kinds = [each["properties"]["classification"]["name"] for each in content["features"]]
    assert kinds == ["Region*", "nucleus", "nucleus"]


def test_qupath_annotations_come_in(client: Client, tmp_path: Path) -> None:
    def feature(name: str, *corners: tuple[float, float]) -> dict[str, Any]:
        geometry = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
        properties = {"classification": {"name": name}}
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    features = [
        feature("Region*", (100, 100), (300, 100), (300, 250), (100, 250)),
        feature("Region*", (400, 100), (500, 100), (450, 200)),
        feature("Region*", (2000, 100), (2100, 100), (2100, 200)),
        feature("nucleus", (110.3, 110.2), (140.7, 112), (130, 150)),
        feature("<img src=x onerror=alert(1)>", (430, 110), (470, 110), (470, 130), (430, 130)),
        feature("Ignore*", (200, 200), (240, 200), (240, 240), (200, 240)),
    ]
    content = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    kind = {"Content-Type": "application/geo+json"}
    answer = client.request("POST", "corrections/0/geojson", content=content, headers=kind)
    told = answer.json()
    assert told["told"] == "2 fields read; 1 outside of the slide"
    names = [each["name"] for each in told["classes"]]
    assert names == ["background", "stroma", "nucleus", "<img src=x onerror=alert(1)>"]
    client.request("POST", "corrections/results", json={})
    (tmp_path / "in.geojson").write_bytes(content)
    found = read_qupath(tmp_path / "s.tif", tmp_path / "in.geojson", classes=names[1:])
    for field, name in zip(found.fields, ("s_x100_y100", "s_x400_y100"), strict=False):
        shape = field.classes.shape
        masks = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{name}.png"))
        here = masks[CONTEXT : CONTEXT + shape[0], CONTEXT : CONTEXT + shape[1]]
        np.testing.assert_array_equal(here, field.classes)
    again = client.request("POST", "corrections/0/geojson", content=content, headers=kind)
    assert again.json()["told"].startswith("0 fields read; 1 outside of the slide; 100, 100:")


def test_fields_of_suggest_begin_as_the_mask_shows_them(client: Client, tmp_path: Path) -> None:
    x, y, width, height = BOX.values()
    found = [Field(tmp_path / "s.tif", x, y, width, height, np.zeros(1))]
    write_fields(found, {tmp_path / "s.tif": tmp_path / "s.geojson"})
    content = (tmp_path / "s.geojson").read_bytes()
    kind = {"Content-Type": "application/geo+json"}
    for address, labels in (("geojson?layer=0", mask_in_field()), ("geojson", 0)):
        answer = client.request(
            "POST", f"corrections/0/{address}", content=content, headers=kind
        ).json()
        assert answer["told"] == "1 field read"
        (field,) = answer["fields"]
        assert {key: field[key] for key in BOX} == BOX
        shown = np.asarray(
            Image.open(client.get(f"corrections/0/fields/{field['id']}/0/0/301/202"))
        )
        np.testing.assert_array_equal(shown[..., 0], np.broadcast_to(labels, shown.shape[:2]))
        do(client, "remove", field=field["id"])
    for odd in ("layer=1", "model=0", "layer=99999999999999"):
        address = f"corrections/0/geojson?{odd}"
        answer = client.request("POST", address, content=content, headers=kind)
        assert (answer.status_code, answer.text) == (422, "there is no such mask")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not JSON"),
        (b"{}", "no features"),
        (b"[" * 100_000, "the file"),
        (b'{"features": []}', "no annotation of the class Region*"),
        (b'{"features": [{"properties": {"classification": "Region*"}}]}', "no annotation"),
        (b"\xff\xfe", "the file"),
    ],
)
def test_hostile_geojson_is_refused(client: Client, content: bytes, told: str) -> None:
    kind = {"Content-Type": "application/geo+json"}
    answer = client.request("POST", "corrections/0/geojson", content=content, headers=kind)
    assert answer.status_code == 422
    assert told in answer.text
    assert "/" not in answer.text
    kind = {"Content-Type": "application/json"}
    answer = client.request("POST", "corrections/0/geojson", content=content, headers=kind)
    assert answer.status_code == 415


def test_what_is_sent_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    json_kind = {"Content-Type": "application/json"}
    for address in ("corrections/0", "corrections/0/classes", "corrections/results"):
        large = b'{"name": "' + b"x" * 2**20 + b'"}'
        answer = client.request("POST", address, content=large, headers=json_kind)
        assert answer.status_code == 413
    monkeypatch.setattr("genselfdiff.viewer.corrections.part._MOST_GEOJSON", 99)
    kind = {"Content-Type": "application/geo+json"}
    answer = client.request("POST", "corrections/0/geojson", content=b" " * 100, headers=kind)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "address",
    [
        *("corrections/1", "corrections/-1", "corrections/x", "corrections/0/fields"),
        *(f"corrections/0/fields/{name}/0/0/9/9" for name in ("..", "x", "%2e%2e%2fa", "a" * 16)),
        *(f"corrections/0/fields/{FIELD}/{box}" for box in ("0/0/302/1", "0/0/0/9", "300/0/2/1")),
    ],
)
def test_what_is_not_there_is_not_found(client: Client, address: str) -> None:
    frame(client)
    assert client.get(address).status_code == 404


def test_odd_requests_are_refused_and_told(client: Client, tmp_path: Path) -> None:
    told = client.request("POST", "corrections/results", json={})
    assert (told.status_code, "no field is framed yet" in told.text) == (422, True)
    for layer in (1, -1, "0", True, [0]):
        do(client, "field", 422, layer=layer, **BOX)
    assert do(client, "paint", 422, field=FIELD) == "that cannot be done"
    frame(client)
    assert do(client, "field", 422, **BOX) == "the field lies over another: frame it beside that"
    assert do(client, "brush", 422, field=FIELD, label=3, points=[[1, 1]], radius=2) == (
        "there is no such class"
    )
    told = client.request("POST", "corrections/0/classes", json={"name": "tumour"}).json()
    assert told["classes"][3]["name"] == "tumour"
    assert do(client, "undo", 409, version=0).startswith("Something was drawn here meanwhile")
    assert do(client, "undo", version=1)["fields"] == []
    assert not (tmp_path / "out" / "images").exists()
    for headers in ({"Origin": "https://evil.example.org"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = client.request("POST", "corrections/0", json={}, headers=headers)
        assert answer.status_code == 403


def test_files_of_others_stay(client: Client, tmp_path: Path) -> None:
    frame(client)
    mine = tmp_path / "out" / "images" / "mine.png"
    mine.parent.mkdir()
    mine.write_text("mine")
    answer = client.request("POST", "corrections/results", json={})
    assert answer.status_code == 422
    assert mine.read_text() == "mine"


def test_geojson_that_others_have_changed_stays(client: Client, tmp_path: Path) -> None:
    frame(client, layer=0)
    folder = tmp_path / "out" / "geojson"
    for _ in range(2):
        assert client.request("POST", "corrections/results", json={}).status_code == 200
        do(client, "brush", field=FIELD, label=2, points=[[200, 200]], radius=20)
    (folder / "mine.geojson").write_text("mine")
    changed = (folder / "s.geojson").read_text() + " "
    (folder / "s.geojson").write_text(changed)
    before = stored(tmp_path / "out", "masks")
    answer = client.request("POST", "corrections/results", json={})
    assert answer.status_code == 422
    assert "s.geojson: was written or changed by another program" in answer.text
    np.testing.assert_array_equal(stored(tmp_path / "out", "masks"), before)
    (folder / "s.geojson").rename(folder / "t.geojson")
    assert client.request("POST", "corrections/results", json={}).status_code == 200
    assert {path.name for path in folder.glob("*.geojson")} == {
        *("mine.geojson", "s.geojson", "t.geojson")
    }


def test_geojson_of_a_slide_without_fields_goes(tmp_path: Path) -> None:
    files = GeoJsonFiles(tmp_path / "g", ["a", "b"])
    files.write({"a": b"1", "b": b"2"})
    (tmp_path / "b.geojson").write_text("2")
    (tmp_path / "g" / ".written.json").write_text('{"a": [2212294583], "../b": [450215437]}')
    GeoJsonFiles(tmp_path / "g", ["c"]).write({"c": b"3"})
    assert sorted(path.name for path in (tmp_path / "g").glob("*.geojson")) == [
        *("b.geojson", "c.geojson")
    ]
    assert (tmp_path / "b.geojson").exists()


def test_images_have_the_colours_that_were_seen(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    profile = scanner_profile(2.2)
    Image.fromarray(pixels).save(tmp_path / "s.png", icc_profile=profile)
    for icc in (False, True):
        library = Library(collect([tmp_path / "s.png"]), 0.5, icc)
        client = Client(library, corrections_part(library, tmp_path / f"{icc}"))
        client.request("POST", "corrections/0/classes", json={"name": "gland"})
        do(client, "field", x=8, y=8, width=32, height=32)
        answer = client.request("POST", "corrections/results", json={})
        assert answer.status_code == 200, answer.text
        (image,) = (tmp_path / f"{icc}" / "images").iterdir()
        with open_slide(tmp_path / "s.png", mpp=0.5, icc=icc) as slide, open_slide(image) as cut:
            wanted = slide.read_level(0, 0, 64, 64)
            np.testing.assert_array_equal(cut.read_level(0, 0, 64, 64), wanted)
        assert np.array_equal(wanted, pixels) != icc


def test_slides_that_were_moved_are_found(client: Client, tmp_path: Path) -> None:
    frame(client)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (tmp_path / "s.tif").rename(folder / "s.tif")
    command = ["data", "corrections", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "the slide is not there any more: say where with --slides" in result.output
    result = CliRunner().invoke(main, [*command, "--slides", str(folder)])
    assert result.exit_code == 0, result.output


def test_two_slides_of_one_name_are_told_apart(tmp_path: Path) -> None:
    random, pixels = np.random.default_rng(0), {}
    for folder in "ab":
        (tmp_path / folder).mkdir()
        pixels[folder] = random.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels[folder]).save(tmp_path / folder / "s.png")
    client = asked(tmp_path / "out", tmp_path / "a" / "s.png", tmp_path / "b" / "s.png")
    client.request("POST", "corrections/0/classes", json={"name": "gland"})
    for number in (0, 1):
        content = {"id": f"{number:016x}", "kind": "field", "x": number, "y": 0}
        content |= {"width": 32, "height": 32, "odd": float("inf")}
        answer = client.request(
            "POST",
            f"corrections/{number}",
            content=json.dumps(content),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 200
    assert client.request("POST", "corrections/results", json={}).status_code == 200
    images = sorted((tmp_path / "out" / "images").iterdir(), key=lambda path: path.stem[-4:])
    assert len(images) == len(list((tmp_path / "out" / "geojson").glob("*.geojson"))) == 2
    for image, folder in zip(images, "ab", strict=True):
        with open_slide(image) as cut:
            np.testing.assert_array_equal(cut.read_level(0, 0, 64, 64), pixels[folder])


def test_a_slide_without_a_mask_gets_classes_in_the_page(tmp_path: Path, slide: Make) -> None:
    client = asked(tmp_path / "out", slide())
    assert client.get("corrections").json() == {"folder": str(tmp_path / "out")}
    assert [each["name"] for each in client.get("corrections/0").json()["classes"]] == [
        "background"
    ]
    assert not (tmp_path / "out").exists()
    frame(client)
    answer = client.request("POST", "corrections/results", json={})
    assert "add a class to draw first" in answer.text
    client.request("POST", "corrections/0/classes", json={"name": " gland "})
    do(client, "brush", field=FIELD, label=1, points=[[200, 200]], radius=20)
    answer = client.request("POST", "corrections/results", json={})
    assert answer.status_code == 200
    assert (tmp_path / "out" / "classes.csv").read_text().endswith("1,gland\n")
