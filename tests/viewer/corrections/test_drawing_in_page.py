"""Drawing in a real browser; skipped where Chromium or Playwright is missing."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from browsing import at, opened, served, settled, wait
from click.testing import CliRunner
from PIL import Image

from genselfdiff.viewer.corrections.results import CONTEXT
from gsd.main import main

Make = Callable[..., Path]

COLOURS = np.array([(60, 160, 60), (200, 30, 160)])

SAVED = """document.querySelector(".correct [role=status]")?.textContent.startsWith("Kept in")"""

DRAWN = """([x, y, width, height]) => {
  const canvas = document.querySelector("canvas.drawn");
  const left = canvas.width / 2 + x - 650, top = canvas.height / 2 + y - 450;
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, -left, -top);
  return [...copy.getImageData(0, 0, width, height).data];
}"""


def drag(page: Any, *places: tuple[int, int]) -> None:
    page.mouse.move(*at(page, *places[0]))
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*at(page, *place), steps=6)
    page.mouse.up()
    saved(page)


def saved(page: Any) -> None:
    page.wait_for_timeout(150)
    wait(page, SAVED)
    page.wait_for_timeout(100)


def shown(page: Any, x: int, y: int, width: int, height: int) -> np.ndarray:
    """The classes in a box of the slide, by their colours on the screen."""
    page.mouse.move(5, 5)
    page.wait_for_timeout(300)
    seen = np.array(page.evaluate(DRAWN, [x, y, width, height])).reshape(height, width, 4)
    distance = np.abs(seen[:, :, None, :3] - COLOURS).sum(3)
    return np.where(seen[..., 3] == 0, 0, 1 + distance.argmin(2))


def region(name: str, left: int, top: int, right: int, bottom: int) -> list[dict[str, Any]]:
    """What QuPath exports of a field that an object fills."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [corners]},
            "properties": {"classification": {"name": kind}},
        }
        for kind in ("Region*", name)
    ]


def start(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 721})  # an even height: pixels lie on pixels
    opened(page, address)
    page.keyboard.press("1")
    settled(page)


def test_draw_undo_kill_reopen_export_and_train(
    page: Any, slide: Make, mask: Make, tmp_path: Path
) -> None:
    out = tmp_path / "fields"
    files = [slide(), mask(), "--corrections", str(out)]
    with served(*files) as address:
        first = page.context.new_page()
        start(first, address)
        first.keyboard.press("f")
        drag(first, (450, 300), (700, 480))
        first.get_by_label("A field begins").select_option("empty")
        drag(first, (720, 300), (850, 480))
        first.keyboard.press("b")
        first.keyboard.press(".")
        drag(first, (500, 420), (540, 460), (560, 440))
        drag(first, (760, 350), (790, 380))
        first.keyboard.press("g")
        for place in ((600, 350), (640, 350), (640, 380)):
            first.mouse.click(*at(first, *place))
            first.wait_for_timeout(400)
        first.keyboard.press("Enter")
        saved(first)
        first.keyboard.press("e")
        drag(first, (560, 310), (560, 400))
        drag(first, (520, 310), (520, 470))
        first.keyboard.press("Control+z")
        saved(first)
        first.keyboard.press("k")
        first.get_by_role("radio", name="background").check()
        first.mouse.click(*at(first, 675, 475))
        saved(first)
        was = shown(first, 450, 300, 250, 180)
    # The server was killed. What is drawn now is told not to be saved.
    first.keyboard.press("e")
    first.mouse.click(*at(first, 600, 400))
    first.get_by_text("Not saved yet: 1 stroke.").wait_for()
    first.close()

    with served(*files) as address:
        start(page, address)
        np.testing.assert_array_equal(shown(page, 450, 300, 250, 180), was)
        page.keyboard.press("Control+z")
        saved(page)
        page.keyboard.press("Control+y")
        saved(page)
        page.keyboard.press("w")
        page.get_by_text("2 labelled images").wait_for()
    labels = np.asarray(Image.open(out / "masks" / "s_x450_y300.png"))
    labels = labels[CONTEXT:-CONTEXT, CONTEXT:-CONTEXT]
    assert labels.shape == (180, 250)
    # Along the edge lies the frame.
    np.testing.assert_array_equal(was[2:-2, 2:-2], labels[2:-2, 2:-2])
    assert (labels[330 - 300, 560 - 450], labels[360 - 300, 630 - 450]) == (0, 2)
    assert (labels[475 - 300, 675 - 450], labels[425 - 300, 525 - 450]) == (0, 2)
    content = json.loads((out / "geojson" / "s.geojson").read_text())
    kinds = [each["properties"]["classification"]["name"] for each in content["features"]]
    assert kinds.count("Region*") == 2

    run = tmp_path / "run"
    command = ["train", "finetune", str(out), "--init", "nuclei", "--steps", "5"]
    command += ["--batch-size", "2", "--tile-size", "64"]
    result = CliRunner().invoke(main, [*command, "--device", "cpu", "--out", str(run)])
    assert result.exit_code == 0, result.output
    assert (run / "best.safetensors").exists()


def test_two_pages_see_what_each_draws(page: Any, slide: Make, mask: Make, tmp_path: Path) -> None:
    with served(slide(), mask(), "--corrections", str(tmp_path / "c")) as address:
        start(page, address)
        other = page.context.new_page()
        start(other, address)
        page.bring_to_front()
        page.keyboard.press("f")
        drag(page, (450, 300), (700, 480))
        page.keyboard.press("b")
        drag(page, (500, 400), (540, 460))
        other.bring_to_front()
        other.get_by_role("button", name="1: 125").wait_for()
        other.wait_for_timeout(500)
        ours = shown(page, 450, 300, 250, 180)
        np.testing.assert_array_equal(shown(other, 450, 300, 250, 180), ours)
        # Neither loses what it draws at the same moment.
        for each, x in ((page, 580), (other, 620)):
            each.keyboard.press("b")
            each.mouse.click(*at(each, x, 400))
            each.mouse.click(*at(each, x, 420))
        for each in (page, other):
            saved(each)
        page.wait_for_timeout(2500)
        ours = shown(page, 450, 300, 250, 180)
        np.testing.assert_array_equal(shown(other, 450, 300, 250, 180), ours)
        # A picture that is lost on the way is asked for again.
        lost = []

        def lose(route: Any) -> None:
            lost.append(route.request.url)
            if len(lost) == 1:
                route.abort()
            else:
                route.continue_()

        other.route("**/fields/**", lose)
        other.mouse.click(*at(other, 640, 350))
        page.wait_for_timeout(5000)
        ours = shown(page, 450, 300, 250, 180)
        np.testing.assert_array_equal(shown(other, 450, 300, 250, 180), ours)
        assert len(lost) == 2
        records = (tmp_path / "c" / "corrections.journal").read_text().count('"kind":"brush"')
        assert records == 6


def test_pens_draw_hands_do_not_and_hostile_names_are_text(
    page: Any, slide: Make, tmp_path: Path
) -> None:
    journal = tmp_path / "c" / "corrections.journal"
    with served(slide(), "--corrections", str(tmp_path / "c")) as address:
        start(page, address)
        page.keyboard.press("f")
        drag(page, (450, 300), (700, 480))
        page.keyboard.press("b")
        name = "<img src=x onerror=alert(1)>"
        page.get_by_label("Name of another class").fill(name)
        page.get_by_role("button", name="Add").click()
        saved(page)
        assert page.get_by_text(name, exact=True).is_visible()
        (tmp_path / "a.geojson").write_text(json.dumps(region(name, 750, 300, 800, 340)))
        page.set_input_files(".correct input[type=file]", tmp_path / "a.geojson")
        page.get_by_text("1 field read").wait_for()
        settled(page)
        assert shown(page, 750, 300, 50, 40)[2:-2, 2:-2].all()
        session = page.context.new_cdp_session(page)

        def pen(kind: str, x: int, y: int) -> None:
            place = dict(zip("xy", at(page, x, y), strict=True))
            told = {"type": kind, "button": "left", "pointerType": "pen", "clickCount": 1}
            session.send("Input.dispatchMouseEvent", told | place)

        pen("mousePressed", 500, 350)
        pen("mouseMoved", 560, 380)
        pen("mouseReleased", 560, 380)
        saved(page)
        assert journal.read_text().count('"kind":"brush"') == 1
        assert shown(page, 450, 300, 250, 180).any()
        points = [dict(zip("xy", at(page, 600, 400), strict=True))]
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(300)
        assert journal.read_text().count('"kind":"brush"') == 1
        page.keyboard.press("Escape")
        page.keyboard.press("v")
        before = page.url
        drag(page, (600, 400), (640, 430))
        settled(page)
        assert re.sub(r"&zoom.*", "", page.url) != re.sub(r"&zoom.*", "", before)


def test_one_finger_draws_and_two_move_the_slide(page: Any, slide: Make, tmp_path: Path) -> None:
    journal = tmp_path / "c" / "corrections.journal"
    with served(slide(), "--corrections", str(tmp_path / "c")) as address:
        start(page, address)
        page.keyboard.press("f")
        drag(page, (450, 300), (700, 480))
        page.keyboard.press("b")
        page.keyboard.press(".")
        session = page.context.new_cdp_session(page)

        def touch(kind: str, *places: tuple[int, int]) -> None:
            points = [
                {"x": x, "y": y, "id": number}
                for number, (x, y) in enumerate(at(page, *place) for place in places)
            ]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            page.wait_for_timeout(60)

        touch("touchStart", (500, 400))
        touch("touchMove", (540, 400))
        touch("touchEnd")
        saved(page)
        assert journal.read_text().count('"kind":"brush"') == 1
        scale = page.inner_text("#scale")
        touch("touchStart", (560, 400))
        touch("touchMove", (562, 400))
        touch("touchStart", (562, 400), (600, 400))
        for step in range(1, 9):
            touch("touchMove", (562 - 8 * step, 400), (600 + 8 * step, 400))
        touch("touchEnd")
        settled(page)
        assert page.inner_text("#scale") != scale
        assert journal.read_text().count('"kind":"brush"') == 1
        page.keyboard.press("1")
        settled(page)
        touch("touchStart", (650, 450))
        touch("touchEnd")
        saved(page)
        assert journal.read_text().count('"kind":"brush"') == 2
