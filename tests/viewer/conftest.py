"""A slide with masks, as the page shows them."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tifffile

from genselfdiff.masks import MaskWriter, ProbabilityWriter, PyramidShape

NAMES = ["background", "stroma", "nucleus"]
PALETTE = [(255, 255, 255), (60, 160, 60), (200, 30, 160)]
WIDTH, HEIGHT = 1300, 900

Make = Callable[..., Path]


class Samples:
    """Writes files into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def slide(self, name: str = "s.tif") -> Path:
        """Write a slide of that name, 0.5 um/px, in two levels of JPEG tiles."""
        path = self._place(name)
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        waves = np.stack((np.sin(x / 90), np.sin(y / 70), np.sin((x + y) / 99)), axis=2)
        pixels = (128 + 99 * waves).astype(np.uint8)
        options = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"}
        with tifffile.TiffWriter(path) as tiff:
            for step in (1, 4):
                resolution = (2e4 / step, 2e4 / step)
                kind = {"resolutionunit": "CENTIMETER", "subfiletype": 1 if step > 1 else 0}
                part = np.ascontiguousarray(pixels[::step, ::step])
                tiff.write(part, resolution=resolution, **kind, **options)
        return path

    def mask(
        self,
        name: str = "m.tif",
        labels: np.ndarray | None = None,
        *,
        of: str = "s.tif",
        names: Sequence[str] = NAMES,
    ) -> Path:
        """Write a mask of that name; ``of`` is the name of the slide that it tells.

        By default nuclei on a grid of 50 pixels, in a band of stroma.
        """
        if labels is None:
            y, x = np.mgrid[:HEIGHT, :WIDTH]
            labels = np.where(np.abs(y - HEIGHT / 2) < 300, 1, 0).astype(np.uint8)
            labels[(y % 50 - 25) ** 2 + (x % 50 - 25) ** 2 < 144] = 2
        path = self._place(name)
        shape = PyramidShape(labels.shape[1], labels.shape[0], 0.5)
        told = {"job": {"slide": f"{of} 0123456789abcdef"}} if of else {}
        options = {"palette": PALETTE, "class_names": names, "description": told}
        with MaskWriter(path, shape, **options) as writer:
            writer.write_rows(labels)
        return path

    def probabilities(self, name: str = "m_probabilities.tif", *, of: str = "s.tif") -> Path:
        """Write probabilities of three classes: 10, 20 and 225 of 255."""
        planes = np.empty((3, HEIGHT, WIDTH), np.uint8)
        planes[:] = np.array([10, 20, 225])[:, None, None]
        shape = PyramidShape(WIDTH, HEIGHT, 0.5)
        job = {"slide": f"{of} 0123456789abcdef"}
        path = self._place(name)
        with ProbabilityWriter(path, shape, class_names=NAMES, job=job) as writer:
            writer.push(planes)
        return path

    def _place(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        return path


@pytest.fixture
def slide(tmp_path: Path) -> Make:
    return Samples(tmp_path).slide


@pytest.fixture
def mask(tmp_path: Path) -> Make:
    return Samples(tmp_path).mask


@pytest.fixture
def probabilities(tmp_path: Path) -> Make:
    return Samples(tmp_path).probabilities


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A slide, its mask and its probabilities, which no test changes."""
    samples = Samples(tmp_path_factory.mktemp("shown"))
    return [samples.slide(), samples.mask(), samples.probabilities()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; tests are skipped where it or Playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that must not complain, nor ask anything of other hosts."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    page.set_default_timeout(120_000)
    complaints, hosts = [], set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    yield page
    assert not complaints
    assert hosts <= {"127.0.0.1", None}  # None: pictures in memory
    context.close()
