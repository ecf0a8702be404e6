"""Live predictions in a real browser; skipped where Chromium or Playwright is missing."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import at, opened, pixel, served, settled

Make = Callable[..., Path]

RED = [255, 0, 0]


def test_what_is_seen_is_predicted(
    page: Any,
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
) -> None:
    slide = write_slide(picture(900, 1300, size=50))
    with served(slide, "--model", darkness_model) as address:
        opened(page, address)
        page.get_by_role("checkbox", name="darkness.ts (live)").wait_for()
        page.get_by_label("Opacity of darkness.ts (live)").fill("100")
        page.get_by_text("All that is seen is predicted.").wait_for()
        page.keyboard.press("1")
        page.get_by_text("All that is seen is predicted.").wait_for()
        settled(page)
        assert pixel(page, 675, 525) == pytest.approx(RED, abs=3)
        assert pixel(page, 600, 450)[1] > 100
        nucleus = page.get_by_role("checkbox", name="nucleus")
        nucleus.uncheck()
        settled(page)
        assert pixel(page, 675, 525) == pytest.approx([90, 40, 130], abs=30)
        nucleus.check()
        settled(page)
        told = page.url
        assert "layers=1-100-0" in told

        again = page.context.new_page()
        opened(again, told)
        again.get_by_text("All that is seen is predicted.").wait_for()
        settled(again)
        assert again.url == told
        assert pixel(again, 675, 525) == pytest.approx(RED, abs=3)
        again.mouse.click(*at(again, 675, 525))  # objects are those of masks
        settled(again)
        assert again.locator("#object").is_hidden()


def test_a_model_that_is_none_is_told(page: Any, write_slide: Make, tmp_path: Path) -> None:
    model = tmp_path / "<b>none.ts"
    model.write_text("this is none")
    with served(write_slide(np.full((90, 90, 3), 200, np.uint8)), "--model", model) as address:
        opened(page, address)
        page.get_by_text(re.compile("<b>none.ts: (?!the model is being read)")).first.wait_for()


def test_a_whole_slide_is_segmented_and_shown(
    page: Any,
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
    tmp_path: Path,
) -> None:
    slide = write_slide(picture(900, 1300, size=50))
    with served(slide, "--model", darkness_model, "--masks", tmp_path / "masks") as address:
        opened(page, address)
        page.get_by_text("All that is seen is predicted.").wait_for()
        page.keyboard.press("1")
        settled(page)
        seen = page.url
        page.get_by_role("button", name="Segment all").click()
        page.get_by_role("button", name="Stop").wait_for()
        page.get_by_role("checkbox", name="slide_mask.tif").wait_for(timeout=60_000)
        settled(page)
        page.get_by_text("Finished", exact=True).wait_for()
        assert page.get_by_role("checkbox", name="slide_mask.tif").is_checked()
        assert not page.get_by_role("checkbox", name="darkness.ts (live)").is_checked()
        page.get_by_text("Off: tick the box of a layer that is called (live)").wait_for()
        assert page.url.partition("&layers")[0] == seen.partition("&layers")[0]
        page.get_by_label("Opacity of slide_mask.tif").fill("100")
        page.get_by_text("objects", exact=False).first.wait_for()
        settled(page)
        assert pixel(page, 675, 525) == pytest.approx(RED, abs=3)
        page.mouse.click(*at(page, 675, 525))
        page.locator("#object").wait_for()
    assert (tmp_path / "masks" / "slide_mask.tif").exists()


CONFIG = """
[finetune]
architecture = "tiny"
width = 8
tile_size = 64
batch_size = 2
steps = 5
log_every = 1
validate_every = 5
"""


def test_what_was_trained_predicts_beside_the_model_before(
    page: Any,
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
    labelled: Path,
    tmp_path: Path,
) -> None:
    config, runs = tmp_path / "train.toml", tmp_path / "runs"
    config.write_text(CONFIG)
    slide = write_slide(picture(300, 400, size=50))
    options = ["--corrections", labelled, "--init", "none", "--train-config", config]
    with served(slide, "--model", darkness_model, "--runs", runs, *options) as address:
        opened(page, address)
        page.get_by_text("All that is seen is predicted.").wait_for()
        page.get_by_role("button", name="Train", exact=True).click()
        page.get_by_role("button", name="Stop").wait_for()
        page.get_by_role("checkbox", name="run1 (live)").wait_for(timeout=90_000)
        page.get_by_role("img", name=re.compile("Loss from .* at step 5")).wait_for()
        page.get_by_role("img", name=re.compile("Validation Dice from .* at step 5")).wait_for()
        page.get_by_role("slider", name="Border between the masks").wait_for()
        page.get_by_text("All that is seen is predicted.").wait_for()
        settled(page)
        assert "compare=swipe-0-1-50" in page.url
        chosen = (
            "[...document.querySelectorAll('#panel select')].map((s) => s.selectedOptions[0].text)"
        )
        assert page.evaluate(chosen)[-2:] == ["darkness.ts (live)", "run1 (live)"]
        page.reload()
        page.get_by_role("checkbox", name="run1 (live)").wait_for()
        settled(page)
        assert "compare=swipe-0-1-50" in page.url
    assert (runs / "run1" / "model.ts").exists()
