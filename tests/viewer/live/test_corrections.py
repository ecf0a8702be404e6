"""Fields that begin as a model predicts them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from browsing import at, opened, served
from PIL import Image
from viewer_client import Client

from genselfdiff.live.blocks import Block, BlockStore, Picture
from genselfdiff.live.live_mask import LiveMask
from genselfdiff.live.predictions import Model
from genselfdiff.viewer.collection import collect
from genselfdiff.viewer.corrections.part import corrections_part
from genselfdiff.viewer.library import Library

Make = Callable[..., Path]

WIDTH, HEIGHT = 1300, 900


def test_a_field_begins_as_it_is_predicted_once_all_of_it_is(slide: Make, tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    labels[(y % 40 < 23) & (x % 30 < 17)] = 1
    model = Model("m.ts")
    predictions: Any = SimpleNamespace(store=BlockStore(2**24), models=[model])
    library = Library(collect([slide()]))
    part = corrections_part(library, tmp_path / "c", partial(LiveMask, library, predictions))
    client = Client(library, part)

    def frame(number: int) -> Any:
        told = {"id": "c0ffee" * 4, "kind": "field", "model": number}
        box = {"x": 490, "y": 500, "width": 600, "height": 50}
        return client.request("POST", "corrections/0", json=told | box)

    assert "is being read" in frame(0).text
    model.classes = [("glass", (255, 255, 255)), ("gland", (1, 2, 3))]
    assert (frame(1).status_code, frame(1).text) == (422, "there is no such mask")
    for block in (Block(c, r) for c in range(3) for r in range(2)):
        assert frame(0).text.startswith("not all of the field is predicted yet")
        left, top, width, height = block.window(WIDTH, HEIGHT)
        window = labels[top : top + height, left : left + width]
        predictions.store.put(Picture(0, 0), block, window)
    told = frame(0).json()
    assert [each["name"] for each in told["classes"]] == ["glass", "gland"]
    answer = client.get(f"corrections/0/fields/{'c0ffee' * 4}/0/0/600/50")
    shown = np.asarray(Image.open(answer))
    np.testing.assert_array_equal(shown[..., 0], labels[500:550, 490:1090])


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
        page.get_by_text("All that is seen is predicted.").wait_for()
        page.keyboard.press("f")
        chosen = page.get_by_label("A field begins").locator("option:checked")
        assert chosen.inner_text() == "as darkness.ts (live) shows it"
        page.mouse.move(*at(page, 600, 400))
        page.mouse.down()
        page.mouse.move(*at(page, 750, 600), steps=3)
        page.mouse.up()
        page.get_by_role("button", name="Remove field 1").wait_for()
    (start,) = (folder / "starts").iterdir()
    labels = np.asarray(Image.open(start))[..., 0]
    assert set(np.unique(labels)) == {0, 1}
