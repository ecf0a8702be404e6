"""Frames a second of the page over a mask of a million objects, in headless Chromium.

    python benchmarks/viewer/frames.py [--nuclei 1000] [--keep FOLDER]

Needs Chromium and Playwright. The page pans and zooms for four seconds each, and
requestAnimationFrame tells when it was drawn. Chromium draws without a GPU here.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright
from sample_slide import write_mask, write_slide
from tiles import cpu_seconds, peak_mib

SECONDS = 4.0

FRAMES = """(seconds) => new Promise((done) => {
  const times = [];
  const note = (time) => {
    times.push(time);
    if (time - times[0] < 1000 * seconds) requestAnimationFrame(note);
    else done(times);
  };
  requestAnimationFrame(note);
})"""


def measure(page: Any, name: str, act: Any) -> None:
    """Frames while ``act`` is done again and again."""
    page.evaluate(f"() => {{ window.frames_ = ({FRAMES})({SECONDS}); }}")  # not awaited
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        act()
        page.wait_for_timeout(30)
    times = np.array(page.evaluate("window.frames_"))
    took = np.diff(times)
    print(
        f"{name}: {len(took) / (times[-1] - times[0]) * 1e3:.0f} frames a second;"
        f" p95 {np.percentile(took, 95):.0f} ms, longest {took.max():.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=int, default=1000, help="the square root of their number")
    parser.add_argument("--keep", type=Path, help="folder that slide and mask are kept in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.keep or Path(folder)
        slide, mask = place / "million.tif", place / f"million_mask_{arguments.nuclei}.tif"
        if not mask.exists():
            write_slide(slide, write_mask(mask, slide.name, arguments.nuclei))
        command = [Path(sys.executable).with_name("gsd"), "view", slide, mask, "--no-browser"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with sync_playwright() as running:
            path = shutil.which("chromium")
            chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = chromium.new_page(viewport={"width": 1280, "height": 720})
            page.goto(address)
            begin = time.monotonic()
            page.get_by_text(f"{arguments.nuclei**2:,} objects").wait_for(timeout=600_000)
            cpu = cpu_seconds(server.pid)
            print(f"load {os.getloadavg()[0]:.1f}; objects found {time.monotonic() - begin:.0f} s")
            print(f"CPU time of the server until then: {cpu:.0f} s")
            page.wait_for_timeout(2000)
            page.mouse.move(500, 400)
            measure(page, "nothing moves", lambda: None)
            for zoom in ("whole slide", "half size", "full size"):
                if zoom != "whole slide":
                    page.keyboard.press("1")
                if zoom == "half size":
                    page.wait_for_timeout(1000)
                    page.mouse.wheel(0, 200)
                page.wait_for_timeout(3000)
                keys = iter(["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"] * 1000)
                measure(page, f"pan, {zoom}", lambda keys=keys: page.keyboard.press(next(keys)))
                signs = iter([1, 1, 1, -1, -1, -1] * 1000)
                measure(
                    page, f"zoom, {zoom}", lambda signs=signs: page.mouse.wheel(0, 90 * next(signs))
                )
            page.screenshot(path=place / "frames.png")
            chromium.close()
        print(f"peak memory of the server: {peak_mib(server.pid):.0f} MiB")
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
