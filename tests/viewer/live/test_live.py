"""Live predictions through the server, by a real process."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from live_processes import children, eventually, runs, viewing
from viewer_client import Client

import genselfdiff
from genselfdiff.live.blocks import COARSEST
from genselfdiff.live.predictions import Model
from genselfdiff.viewer.layers import Layer
from genselfdiff.viewer.tiles import TilePlace, layer_tile

Make = Callable[..., Path]
Predicting = Callable[..., tuple[Client, Any]]

HEIGHT, WIDTH = 1100, 700


def look(client: Client, models: int = 1, **changes: Any) -> dict[str, Any]:
    """What the page is told when it shows the whole of a slide."""
    window, numbers = [0, 0, WIDTH, HEIGHT], list(range(models))
    told = {"slide": 0, "models": numbers, "since": [0] * models, "window": window}
    answer = client.request("POST", "live/look", json=told | changes)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_what_is_shown_is_the_mask_of_segment(
    tmp_path: Path,
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    textured_model: Path,
    darkness_model: Path,
    predicting: Predicting,
) -> None:
    slide, masks = write_slide(picture(HEIGHT, WIDTH, size=20)), []
    for model in (textured_model, darkness_model):
        masks.append(tmp_path / f"{model.stem}.tif")
        genselfdiff.segment(slide, masks[-1], model, device="cpu")
    client, _ = predicting([slide], textured_model, darkness_model)
    eventually(lambda: all(m["classes"] for m in client.get("live").json()["models"]))
    first, second = client.get("live").json()["models"]
    assert (first["name"], second["name"]) == ("textured.ts", "darkness.ts")
    assert second["classes"][1] == {"name": "nucleus", "colour": [255, 0, 0]}
    assert [p["missing"] for p in look(client, 2)["pictures"]] == [6, 6]
    eventually(lambda: not any(p["missing"] for p in look(client, 2)["pictures"]))
    told = look(client, 2)
    assert sorted(told["pictures"][0]["put"]) == [[c, r] for c in range(2) for r in range(3)]
    assert told["speed"] > 0
    for number, mask in enumerate(masks):
        layer = Layer(mask)
        for place in (TilePlace(0, 1, 2), TilePlace(1, 0, 1), TilePlace(2, 0, 0)):
            level, column, row = place
            answer = client.get(f"live/0/{number}/{level}/{column}/{row}")
            assert answer.headers["cache-control"] == "no-store"
            tile = imagecodecs.png_decode(answer.content)
            wanted = imagecodecs.png_decode(layer_tile(layer, place, 0))
            np.testing.assert_array_equal(tile[..., 0], wanted)
            assert (tile[..., 1] == 255).all()


def test_too_large_a_view_is_not_predicted(
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
    predicting: Predicting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("genselfdiff.live.live_part._LEAST_PIXELS", 300_000)
    client, _ = predicting([write_slide(picture(HEIGHT, WIDTH))], darkness_model)
    told = look(client)
    assert (told["seen"], told["most"]) == (WIDTH * HEIGHT, 300_000)
    assert told["pictures"][0]["missing"] == 0
    part = {"window": [0, 0, 500, 500]}
    eventually(lambda: not look(client, **part)["pictures"][0]["missing"])
    assert look(client, **part)["pictures"][0]["put"] == [[0, 0]]
    assert look(client, **part, since=[1])["pictures"][0]["put"] == []


def test_what_goes_wrong_is_told(
    tmp_path: Path,
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
    predicting: Predicting,
) -> None:
    no_model = tmp_path / "none.ts"
    no_model.write_text("this is none")
    image = picture(100, 100)
    slides = [write_slide(image, None, "without.tif"), write_slide(image, 0.5, "with.tif")]
    client, predictions = predicting(slides, no_model, darkness_model)
    told = eventually(lambda: (m := client.get("live").json()["models"])[0]["error"] and m)
    assert told[0]["error"].startswith(f"{no_model}: ")
    error = eventually(lambda: look(client, models=2)["pictures"][1]["error"])
    assert "resolution" in error
    eventually(lambda: look(client, 2, slide=1)["pictures"][1]["put"])  # the other goes on
    os.kill(predictions._process.pid, signal.SIGKILL)
    told = eventually(lambda: (m := client.get("live").json()["models"])[1]["error"] and m)
    assert told[1]["error"] == "the process that predicts has ended (status -9)"
    look(client)
    predictions.add(Model("nuclei"))  # one that was trained meanwhile
    assert client.get("live").json()["models"][2]["error"] == told[1]["error"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_the_process_ends_with_the_server_however_that_ends(
    end: signal.Signals,
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
) -> None:
    slide = write_slide(picture(100, 100))
    with viewing(slide, "--model", darkness_model) as (server, address):
        assert address.startswith("http://")
        (child,) = children(server.pid)
        server.send_signal(end)
        server.wait(60)
        eventually(lambda: not runs(child))


@pytest.mark.parametrize(
    ("told", "status"),
    [
        *((change, 422) for change in ({"slide": -1}, {"slide": "0"}, {"slide": True})),
        *((change, 422) for change in ({"models": 0}, {"models": [0.5]}, {"models": [0, 0]})),
        *(
            (change, 422)
            for change in ({"window": [0, 0, 1]}, {"window": None}, {"since": [10**9]})
        ),
        *((change, 404) for change in ({"slide": 1}, {"models": [1]})),
        ({"more": "x" * 2000}, 413),
    ],
)
def test_what_cannot_be_asked(shown_darkly: Client, told: dict[str, Any], status: int) -> None:
    whole = {"slide": 0, "models": [0], "since": [0], "window": [0, 0, 9, 9]} | told
    assert shown_darkly.request("POST", "live/look", json=whole).status_code == status


@pytest.mark.parametrize(
    "address",
    [
        *(
            "live/0/0/0/1/0",
            "live/0/0/0/0/-1",
            "live/0/0/99/0/0",
            "live/0/1/0/0/0",
            "live/1/0/0/0/0",
        ),
        *(f"live/0/0/{COARSEST + 1}/0/0", "live/0/0/0/0", "live/look/0"),
    ],
)
def test_what_is_not_there_is_not_found(shown_darkly: Client, address: str) -> None:
    assert shown_darkly.get(address).status_code == 404


@pytest.fixture
def shown_darkly(
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
    predicting: Predicting,
    monkeypatch: pytest.MonkeyPatch,
) -> Client:
    """A server whose predictions never come."""
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    monkeypatch.setattr("genselfdiff.live.predictions.PROCESS", waiting)
    client, _ = predicting([write_slide(picture(100, 100))], darkness_model)
    return client
