"""What tests do with the page in a browser."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PIXEL = """([name, dx, dy]) => {
  const canvas = document.querySelector(`#${name} canvas:not(.marks)`);
  const at = [canvas.width / 2 + dx, canvas.height / 2 + dy].map(Math.round);
  const copy = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, ...at, 1, 1, 0, 0, 1, 1);
  return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


@contextmanager
def served(*files: Path | str) -> Iterator[str]:
    """The address of a server that shows these files; it is killed (SIGKILL) at the end."""
    command = [Path(sys.executable).with_name("gsd"), "view", "--no-browser", *files]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def opened(page: Any, address: str) -> None:
    page.goto(address)
    settled(page)


def wait(page: Any, condition: str) -> None:
    """Wait until it holds; Playwright's own way is against the page's policy."""
    for _ in range(2400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise TimeoutError(condition)


def settled(page: Any) -> None:
    """Wait until nothing moves and nothing is awaited."""
    wait(page, "document.querySelector('#scale').textContent !== ''")
    page.wait_for_timeout(700)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)


def at(page: Any, x: int, y: int) -> tuple[float, float]:
    """The place on the page of a pixel of the slide, at one pixel on one."""
    box = page.locator("#stage").bounding_box()
    return box["x"] + box["width"] / 2 + x - 650, box["y"] + box["height"] / 2 + y - 450


def pixel(page: Any, x: int, y: int, stage: str = "stage") -> list[int]:
    """The colour there."""
    return page.evaluate(PIXEL, [stage, x - 650, y - 450])
