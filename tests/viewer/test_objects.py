"""Objects in tiles and under the pointer are those of GeoJSON and tables."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from genselfdiff.errors import InputError
from genselfdiff.objects import write_objects
from genselfdiff.viewer import object_index
from genselfdiff.viewer.layers import Layer
from genselfdiff.viewer.object_index import Lines, ObjectIndex
from genselfdiff.viewer.objects import LayerObjects
from genselfdiff.viewer.tiles import NoTile, TilePlace

Make = Callable[..., Path]


def blobs() -> np.ndarray:
    """Objects of all sizes, with holes, some of which touch by their corners."""
    y, x = np.mgrid[:500, :700]
    labels = np.digitize(np.sin(x / 9) + np.sin(y / 13) + np.sin((x + y) / 37), [0.3, 1.2])
    labels[:, 300:310] = 2
    return labels.astype(np.uint8)


@pytest.fixture(params=[2**15 - 1, 100], ids=["kept as 16 bits", "wide"])
def found(
    request: pytest.FixtureRequest, mask: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ObjectIndex, list[dict]]:
    """The index of a mask's objects, and its features as GeoJSON has them."""
    monkeypatch.setattr(object_index, "_WIDEST", request.param)
    path = mask(labels=blobs())
    write_objects(path, geojson=tmp_path / "m.geojson")
    features = json.loads((tmp_path / "m.geojson").read_text())["features"]
    return ObjectIndex(path, lambda share: None), features


def drawn(lines: Lines, side: int) -> np.ndarray:
    """The pixels whose left or upper side a line runs along."""
    image = Image.new("L", (side + 1, side + 1))
    pen = ImageDraw.Draw(image)
    for part in np.split(lines.corners, lines.starts[1:]):
        pen.line([tuple(corner) for corner in part.tolist()], fill=1)
    return np.asarray(image)[:side, :side]


def test_all_are_there_with_their_numbers(found: tuple[ObjectIndex, list[dict]]) -> None:
    index, features = found
    assert len(index) == len(features)
    labels = blobs()
    for y, x in np.random.default_rng(0).integers(0, (500, 700), (300, 2)).tolist():
        here = index.at(x, y)
        if labels[y, x] == 0:
            assert here is None
            continue
        assert here is not None
        assert here.label == labels[y, x]
        told = features[here.number - 1]
        assert told["properties"]["measurements"]["gsd id"] == here.number
        assert told["geometry"]["coordinates"] == [ring.tolist() for ring in here.rings]
        assert here.area * 0.25 == told["properties"]["measurements"]["Area \u00b5m^2"]


def test_tiles_of_full_size_show_every_edge(found: tuple[ObjectIndex, list[dict]]) -> None:
    index, features = found
    every = Lines(
        np.concatenate([r for f in features for r in f["geometry"]["coordinates"]]),
        np.cumsum([0, *(len(r) for f in features for r in f["geometry"]["coordinates"])])[:-1],
        np.empty(0, np.uint8),
    )
    expected = drawn(every, 700)[:500]
    for x in range(0, 700, 128):
        for y in range(0, 500, 128):
            tile = drawn(index.lines(x, y, 128, 1, 0), 128)
            part = expected[y : y + 128, x : x + 128]
            np.testing.assert_array_equal(tile[: part.shape[0], : part.shape[1]], part)


def test_lines_have_the_classes_of_their_objects(found: tuple[ObjectIndex, list[dict]]) -> None:
    index, features = found
    lines = index.lines(0, 0, 700, 0.25, 0)
    names = ["background", "stroma", "nucleus"]
    count = {
        name: sum(
            len(f["geometry"]["coordinates"])
            for f in features
            if f["properties"]["classification"]["name"] == name
        )
        for name in names[1:]
    }
    # All of them are in the tile, so that each ring is one line.
    assert {names[label]: int((lines.labels == label).sum()) for label in (1, 2)} == count


def test_smaller_tiles_leave_out_what_is_small(found: tuple[ObjectIndex, list[dict]]) -> None:
    index, features = found
    rings = [np.array(feature["geometry"]["coordinates"][0]) for feature in features]
    sizes = np.array([(ring.max(axis=0) - ring.min(axis=0)).max() for ring in rings])
    whole = index.lines(0, 0, 700, 1, 0)
    for least in (0, 20, 60, 1000):
        lines = index.lines(0, 0, 704, 16, least)
        assert len(lines.starts) <= sum(
            len(f["geometry"]["coordinates"])
            for f, size in zip(features, sizes, strict=True)
            if size >= least
        )
        assert len(lines.corners) < len(whole.corners) / 4
        assert (lines.corners * 2 == np.rint(lines.corners * 2)).all()


def test_packed(found: tuple[ObjectIndex, list[dict]]) -> None:
    lines = found[0].lines(100, 100, 64, 0.5, 0)
    data = lines.packed()
    count, corners = np.frombuffer(data, "<u4", 2)
    assert (count, corners) == (len(lines.starts), len(lines.corners))
    assert len(data) == 8 + 8 * corners + 5 * count
    np.testing.assert_array_equal(np.frombuffer(data, np.uint8, count, len(data) - count), lines[2])


def test_a_mask_without_objects(mask: Make) -> None:
    index = ObjectIndex(mask(labels=np.zeros((30, 40), np.uint8)), lambda share: None)
    assert (len(index), index.at(3, 3)) == (0, None)
    assert len(index.lines(0, 0, 64, 1, 0).packed()) == 8


def waited_for(objects: LayerObjects) -> dict:
    for _ in range(600):
        state = objects.state()
        if state["count"] is not None or state["error"]:
            return state
        time.sleep(0.05)
    raise TimeoutError


def test_they_are_found_in_the_background(mask: Make) -> None:
    objects = LayerObjects(Layer(mask()))
    assert waited_for(objects)["count"] == 469
    assert objects.at(25, 25) == {
        **{"id": 26, "class": "nucleus", "label": 2, "unit": "\u00b5m"},
        **{"area": 437 * 0.25, "perimeter": 92 * 0.5},
        "rings": objects.at(24, 25)["rings"],
    }
    assert len(objects.tile(TilePlace(2, 0, 0))) > 1000
    assert len(objects.tile(TilePlace(6, 0, 0))) < len(objects.tile(TilePlace(3, 0, 0)))
    for place in (
        TilePlace(14, 0, 0),
        TilePlace(0, 11, 0),
        TilePlace(2, 0, 2),
        TilePlace(2, 10**8, 0),
    ):
        with pytest.raises(NoTile):
            objects.tile(place)


def test_a_mask_that_is_damaged_is_told(mask: Make) -> None:
    path = mask()
    layer = Layer(path)
    with path.open("r+b") as file:
        file.seek(16)
        file.write(bytes(2000))
    state = waited_for(LayerObjects(layer))
    assert "is damaged" in state["error"]
    with pytest.raises(InputError):
        ObjectIndex(path, lambda share: None)
