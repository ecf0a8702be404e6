"""The page in a real browser; skipped where Chromium or Playwright is missing."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import at, opened, pixel, served, settled, wait

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def address(shown: list[Path]) -> Iterator[str]:
    with served(*shown) as address:
        yield address


def test_zoom_layers_and_objects(page: Any, address: str) -> None:
    opened(page, address)
    assert page.title() == "s.tif \u2013 gsd view"
    assert re.fullmatch(r"\d[\d.]*x \u00b7 [\d.]+ \u00b5m/px", page.inner_text("#scale"))
    page.keyboard.press("1")
    settled(page)
    assert page.inner_text("#scale") == "20x \u00b7 0.5 \u00b5m/px"
    assert page.inner_text("#bar") == "50 \u00b5m"
    page.mouse.move(*at(page, 676, 426))
    assert re.match(r"67[5-7], 42[5-7] px \(0\.338, 0\.213 mm\)", page.inner_text("#place"))
    nucleus = page.get_by_role("checkbox", name="nucleus")
    with_nucleus = pixel(page, 675, 425)
    nucleus.uncheck()
    settled(page)
    without = pixel(page, 675, 425)
    half = [(a + b) / 2 for a, b in zip(without, (200, 30, 160), strict=True)]
    assert with_nucleus == pytest.approx(half, abs=3)
    nucleus.check()
    page.get_by_label("Opacity of m.tif").fill("100")
    settled(page)
    assert pixel(page, 675, 425) == pytest.approx([200, 30, 160], abs=3)
    page.keyboard.press("m")
    settled(page)
    assert pixel(page, 675, 425) == pytest.approx(without, abs=3)
    page.get_by_role("checkbox", name="m_probabilities.tif").check()
    page.get_by_role("radio", name="nucleus").check()
    settled(page)
    share = 0.7 * 225 / 255
    mixed = [(1 - share) * a + share * b for a, b in zip(without, (200, 30, 160), strict=True)]
    assert pixel(page, 675, 425) == pytest.approx(mixed, abs=4)


def test_a_click_tells_of_an_object(page: Any, address: str) -> None:
    opened(page, address)
    page.keyboard.press("1")
    page.get_by_text("m.tif: 469 objects").wait_for()
    settled(page)
    # Beside the nucleus is its outline, in its colour.
    assert pixel(page, 675 + 12, 425) == pytest.approx([200, 30, 160], abs=70)
    page.mouse.click(*at(page, 676, 426))
    page.locator("#object").wait_for()
    told = page.inner_text("#object").split("\n")
    assert [part for part in told if part][:6] == [
        *("Class", "nucleus", "Area", "109 \u00b5m\u00b2", "Perimeter", "46 \u00b5m"),
    ]
    page.keyboard.press("Escape")
    assert page.locator("#object").is_hidden()
    page.mouse.click(*at(page, 650, 450))
    page.locator("#object").wait_for()
    assert "stroma" in page.inner_text("#object")


def test_two_masks_beside_each_other_and_the_address_that_leads_back(
    page: Any, slide: Make, mask: Make
) -> None:
    with served(slide(), mask("a.tif"), mask("b.tif")) as address:
        opened(page, address)
        page.keyboard.press("1")
        page.get_by_label("Opacity of a.tif").fill("100")
        page.get_by_label("Opacity of b.tif").fill("0")
        page.keyboard.press("o")
        page.keyboard.press("c")
        settled(page)
        left, right = (625, 425), (675, 425)
        assert pixel(page, *left) == pytest.approx([200, 30, 160], abs=3)
        assert max(abs(a - b) for a, b in zip(pixel(page, *right), (200, 30, 160), strict=True)) > 9
        border = page.get_by_role("slider", name="Border between the masks")
        box = border.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, 300)
        page.mouse.down()
        page.mouse.move(at(page, 720, 0)[0], 300, steps=3)
        page.mouse.up()
        settled(page)
        assert pixel(page, *right) == pytest.approx([200, 30, 160], abs=3)
        told = page.url
        assert re.search(r"layers=1-100-0_0-0-0&outlines=0&compare=swipe-0-1-5\d$", told)

        again = page.context.new_page()
        opened(again, told)
        assert again.url == told
        assert pixel(again, *right) == pytest.approx([200, 30, 160], abs=3)
        again.keyboard.press("c")
        settled(again)
        other = again.locator("#other")
        assert other.is_visible()
        box = other.bounding_box()
        again.mouse.move(box["x"] + 50, box["y"] + 50)
        again.mouse.wheel(0, -300)
        settled(again)
        views = again.evaluate("[...document.querySelectorAll('.stage')].map((s) => s.clientWidth)")
        assert abs(views[0] - views[1]) <= 2
        slide_only = pixel(again, 650, 450, "other")
        assert pixel(again, 650, 450)[1] > slide_only[1] or pixel(again, 650, 450) != slide_only


def test_the_list_of_slides(page: Any, slide: Make, mask: Make, tmp_path: Path) -> None:
    slide("in/a.tif")
    slide("in/b.tif")
    mask("out/b_mask.tif", of="b.tif")
    with served(tmp_path / "in", tmp_path / "out") as address:
        opened(page, address)
        entries = page.locator("#list button")
        assert entries.count() == 2
        assert entries.nth(0).inner_text().split("\n") == ["a.tif", "no mask"]
        lines = entries.nth(1).inner_text().split("\n")
        assert lines[:2] == ["b.tif", "segmented"]
        assert re.fullmatch(r"nucleus: 0\.\d+ mm\u00b2", lines[3])
        loaded = "[...document.querySelectorAll('#list img')].every((i) => i.naturalWidth > 99)"
        wait(page, loaded)
        assert "This slide has no mask." in page.inner_text("#panel")
        page.keyboard.press("n")
        settled(page)
        assert page.inner_text("h1") == "b.tif"
        assert entries.nth(1).get_attribute("aria-current") == "true"
        assert page.get_by_role("checkbox", name="b_mask.tif").is_checked()
        assert "slide=1" in page.url
        entries.nth(0).click()
        settled(page)
        assert page.inner_text("h1") == "a.tif"


def test_hostile_names_are_text(page: Any, slide: Make, mask: Make) -> None:
    name = "<img src=x onerror=alert(1)>.tif"
    classes = ["<script>alert(2)</script>", "<b>bold</b>", '"><svg onload=alert(3)>']
    with served(slide(name), mask("<i>.tif", of=name, names=classes)) as address:
        opened(page, address + "#slide=%3Cscript%3E&layers=<svg onload=alert(4)>&compare=<b>")
        assert page.inner_text("h1") == name
        for text in (*classes, "<i>.tif"):
            assert page.get_by_text(text, exact=True).first.is_visible()
        page.keyboard.press("1")
        settled(page)
        page.mouse.click(*at(page, 676, 426))
        page.locator("#object").wait_for()
        assert classes[2] in page.inner_text("#object")


COUNT = """
  window.givenUp = 0;
  const stop = AbortController.prototype.abort;
  AbortController.prototype.abort = function () { window.givenUp++; stop.call(this); };
"""


def test_tiles_that_are_out_of_sight_are_given_up(page: Any, address: str) -> None:
    page.add_init_script(COUNT)
    opened(page, address)
    page.get_by_text("m.tif: 469 objects").wait_for()
    held = []
    page.route("**/slides/0/objects/0/0/**", lambda route: held.append(route))  # and never answered
    page.keyboard.press("1")
    for _ in range(5):
        page.keyboard.press("+")
    page.wait_for_timeout(800)
    assert held
    before = page.evaluate("window.givenUp")
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(1000)
    assert page.evaluate("window.givenUp") > before
    page.unroute("**/slides/0/objects/0/0/**")
    held.clear()
    answers = []
    page.on("response", lambda response: answers.append(response.url))
    for _ in range(50):
        page.keyboard.press("ArrowLeft")
    settled(page)
    assert [url for url in answers if "/slides/0/objects/0/0/" in url]
    assert not held


CONTRAST = """() => {
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const back = (node) => {
    for (; node; node = node.parentElement) {
      const found = colour(getComputedStyle(node).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [colour(getComputedStyle(node).color), back(node)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${node.tagName} ${node.textContent} ${ratio}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 720), (820, 1180)], ids=["laptop", "tablet"])
def test_everything_can_be_read_and_reached(
    page: Any, address: str, scheme: str, size: tuple[int, int]
) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme)
    opened(page, address)
    assert page.evaluate(CONTRAST) == []
    overflow = "document.documentElement.scrollWidth > innerWidth"
    assert page.evaluate(overflow) is False
    for button in page.get_by_role("button").all():
        if button.is_visible():
            box = button.bounding_box()
            assert min(box["width"], box["height"]) >= 24
            assert box["x"] + box["width"] <= size[0]
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"zoom-in", "zoom-out", "zoom-home", "panel-button", "help-button"} <= reached
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keyboard shortcuts").is_visible()
    assert page.evaluate(CONTRAST) == []
