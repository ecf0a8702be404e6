"""Fields that begin as a model predicts them."""

import json
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import at, opened, served, wait
from PIL import Image
from viewer_client import Client

from genselfdiff.live.blocks import BlockStore, Picture
from genselfdiff.live.live_mask import LiveMask
from genselfdiff.live.predictions import Model
from genselfdiff.live.views import View
from genselfdiff.viewer.collection import collect
from genselfdiff.viewer.corrections.part import corrections_part
from genselfdiff.viewer.library import Library

Make = Callable[..., Path]

WIDTH, HEIGHT = 1300, 900


class Predicting:
    """Predicts a block each time that somebody looks; the model comes with the first look."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels, self.store = labels, BlockStore(2**24)
        self.models = [Model("m.ts")]
        self.failed = ""
        self.looks: list[View] = []

    def read_model(self) -> None:
        self.models[0].classes = [("glass", (255, 255, 255)), ("gland", (1, 2, 3))]

    def look(self, view: View) -> None:
        self.looks.append(view)
        (picture,) = view.pictures
        block = self.store.missing(picture, list(view.blocks))[0]
        left, top, width, height = block.window(WIDTH, HEIGHT)
        self.store.put(picture, block, self.labels[top : top + height, left : left + width])

    def error(self, picture: Picture) -> str:
        return self.failed


@pytest.fixture
def predicting() -> Predicting:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    labels[(y % 40 < 23) & (x % 30 < 17)] = 1
    return Predicting(labels)


@pytest.fixture
def client(predicting: Any, slide: Make, tmp_path: Path) -> Client:
    library = Library(collect([slide()]))
    part = corrections_part(library, tmp_path / "c", partial(LiveMask, library, predicting))
    return Client(library, part)


BOX = {"x": 490, "y": 500, "width": 600, "height": 50}


def frame(client: Client, model: int, **other: Any) -> Any:
    told = {"id": "c0ffee" * 4, "kind": "field", "model": model}
    return client.request("POST", "corrections/0", json=told | BOX | other)


def test_a_field_waits_for_what_is_predicted(client: Client, predicting: Predicting) -> None:
    assert (frame(client, 0).status_code, frame(client, 0).json()) == (202, {"waits": True})
    assert not predicting.looks
    predicting.read_model()
    for _ in range(6):  # it touches three blocks across and two down
        assert frame(client, 0).status_code == 202
        assert client.get("corrections/0").json()["fields"] == []
    told = frame(client, 0).json()
    assert [each["name"] for each in told["classes"]] == ["glass", "gland"]
    answer = client.get(f"corrections/0/fields/{'c0ffee' * 4}/0/0/600/50")
    shown = np.asarray(Image.open(answer))
    np.testing.assert_array_equal(shown[..., 0], predicting.labels[500:550, 490:1090])
    assert "over another" in frame(client, 0, id="beef" * 4, width=9).text


def test_it_does_not_wait_for_what_never_comes(client: Client, predicting: Predicting) -> None:
    assert (frame(client, 1).status_code, frame(client, 1).text) == (422, "there is no such mask")
    predicting.failed = "the slide is damaged"
    predicting.read_model()
    assert (frame(client, 0).status_code, frame(client, 0).text) == (422, predicting.failed)
    predicting.models[0].classes, predicting.models[0].error = [], "no model"
    assert (frame(client, 0).status_code, frame(client, 0).text) == (422, "no model")


def test_so_do_fields_of_gsd_suggest_all_at_once(client: Client, predicting: Predicting) -> None:
    predicting.read_model()
    kind = {"content-type": "application/geo+json"}

    def read(*lefts: int, width: int = 300) -> Any:
        corners = np.array([(0, 0), (width, 0), (width, 200), (0, 200), (0, 0)])
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [np.add(corners, (x, 0)).tolist()]},
                "properties": {"classification": {"name": "Region*"}},
            }
            for x in lefts
        ]
        content = json.dumps({"type": "FeatureCollection", "features": features})
        address = "corrections/0/geojson?model=0"
        return client.request("POST", address, content=content, headers=kind)

    while (answer := read(0, 700)).status_code == 202:
        assert client.get("corrections/0").json()["fields"] == []
    told = answer.json()
    assert told["told"] == "2 fields read"
    assert len({view.blocks for view in predicting.looks}) == 1
    for field, x in zip(told["fields"], (0, 700), strict=True):
        answer = client.get(f"corrections/0/fields/{field['id']}/0/0/300/200")
        shown = np.asarray(Image.open(answer))
        np.testing.assert_array_equal(shown[..., 0], predicting.labels[:200, x : x + 300])
    predicting.looks.clear()
    refused = read(0, width=1200).json()["told"]  # at once: what lies over another needs no model
    assert (refused.count("over another"), predicting.looks) == (1, [])


def test_it_does_so_in_the_page(
    page: Any,
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
    tmp_path: Path,
) -> None:
    slide, folder = write_slide(picture(900, 1300, size=50)), tmp_path / "c"
    with served(slide, "--model", darkness_model, "--corrections", folder) as address:
        opened(page, address)
        page.keyboard.press("1")
        page.keyboard.press("f")  # nothing may be predicted yet
        chosen = page.get_by_label("A field begins").locator("option:checked")
        assert chosen.inner_text().startswith("as darkness.ts")
        drag(page, (600, 400), (750, 600))
        page.get_by_role("button", name="Remove field 1").wait_for()
    (start,) = (folder / "starts").iterdir()
    labels = np.asarray(Image.open(start))[..., 0]
    assert set(np.unique(labels)) == {0, 1}


def test_a_field_that_waits_is_shown_and_can_be_forgotten(
    page: Any, slide: Make, tmp_path: Path
) -> None:
    # A server that does not answer: the model is being read for ever.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = f"http://127.0.0.1:{silent.getsockname()[1]}/m.ts"
        with served(slide(), "--model", model, "--corrections", tmp_path / "c") as address:
            opened(page, address)
            page.keyboard.press("1")
            page.keyboard.press("f")
            chosen = page.get_by_label("A field begins")
            wait(page, "document.querySelector('.correct select')?.options.length === 2")
            assert chosen.locator("option:checked").inner_text() == "as m.ts will show it"
            drag(page, (600, 400), (750, 600))
            page.get_by_text("Waits until that is predicted").wait_for()
            chosen.select_option("")
            drag(page, (800, 400), (900, 600))  # does not wait behind the other
            page.get_by_role("button", name="Remove field 1").wait_for()
            assert page.get_by_text("Waits until that is predicted").count() == 1
            page.keyboard.press("Escape")
            page.get_by_text("Kept in").wait_for()
            assert page.get_by_role("button", name="Remove field").count() == 1


def drag(page: Any, *places: tuple[int, int]) -> None:
    page.mouse.move(*at(page, *places[0]))
    page.mouse.down()
    page.mouse.move(*at(page, *places[1]), steps=3)
    page.mouse.up()
