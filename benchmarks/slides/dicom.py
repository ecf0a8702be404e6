"""Reading a DICOM slide: gsd beside OpenSlide and wsidicom, processor time of one thread each.

python benchmarks/slides/dicom.py    (pip install pydicom openslide-python openslide-bin wsidicom)
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openslide
import pydicom
from wsidicom import WsiDicom

from genselfdiff.slides import open_slide, read_image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "slides" / "dicom"))

import dicom_files  # noqa: E402
from dicom_files import instance, uid  # noqa: E402

WINDOW, PAIRS = 512, 5


def windows(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Squares that cover the slide, row by row."""
    for y in range(0, height, WINDOW):
        for x in range(0, width, WINDOW):
            yield x, y, min(WINDOW, width - x), min(WINDOW, height - y)


def by_gsd(path: Path) -> None:
    with open_slide(path) as slide:
        slide.hold_rows(slide.width, WINDOW, 0)
        for window in windows(slide.width, slide.height):
            slide.read_level(*window)


def by_openslide(path: Path) -> None:
    with openslide.OpenSlide(path) as slide:
        for x, y, width, height in windows(*slide.dimensions):
            np.asarray(slide.read_region((x, y), 0, (width, height)).convert("RGB"))


def by_wsidicom(path: Path) -> None:
    with WsiDicom.open(path) as slide:
        for x, y, width, height in windows(slide.size.width, slide.size.height):
            np.asarray(slide.read_region((x, y), 0, (width, height)))


def seconds(read: Callable[[Path], None], path: Path) -> float:
    start = time.process_time()
    read(path)
    return time.process_time() - start


def places_by_pydicom(path: Path) -> None:
    """What has to be known of each tile before one is read."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    for group in header.PerFrameFunctionalGroupsSequence:
        (place,) = group.PlanePositionSlideSequence
        _ = place.ColumnPositionInTotalImagePixelMatrix, place.RowPositionInTotalImagePixelMatrix


def print_opening(tiles: int = 225) -> None:
    """Compare opening a slide of ``tiles`` x ``tiles`` tiles that tell their places."""
    dicom_files.TILE = 16
    glass = np.full((16 * tiles, 16 * tiles, 3), 240, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sparse.dcm")
        instance(glass, sparse=True).save_as(path, enforce_file_format=True)
        ours, theirs = (
            seconds(read, path)
            for read in (lambda path: open_slide(path).close(), places_by_pydicom)
        )
    print(
        f"opening {tiles**2} tiles that tell their places: {ours:.2f} s; by pydicom {theirs:.2f} s"
    )


def main() -> None:
    """Write slides of real tissue, see that the three agree, and print medians of paired ratios."""
    dicom_files.TILE = 256
    tissue = read_image(ROOT / "examples" / "CMU-1-Small-Region.svs")[:2048, :2048]
    slides = {
        "JPEG": (np.tile(tissue, (3, 3, 1)), uid.JPEGBaseline8Bit, "YBR_FULL_422"),
        "JPEG 2000": (tissue, uid.JPEG2000, "YBR_ICT"),
    }
    for name, (pixels, syntax, colours) in slides.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "level.dcm")
            instance(pixels, syntax=syntax, colours=colours).save_as(path, enforce_file_format=True)
            with open_slide(path) as ours, WsiDicom.open(path) as theirs:
                seen = ours.read_level(100, 100, 900, 900)
                assert (seen == np.asarray(theirs.read_region((100, 100), 0, (900, 900)))).all()
            rounds = [
                [seconds(read, path) for read in (by_gsd, by_openslide, by_wsidicom)]
                for _ in range(PAIRS)
            ]
        speed = pixels.shape[0] * pixels.shape[1] / 1e6 / np.median([gsd for gsd, *_ in rounds])
        ratios = [np.median([other[i] / other[0] for other in rounds]) for i in (1, 2)]
        others = f"OpenSlide {ratios[0]:.2f}, wsidicom {ratios[1]:.2f}"
        print(f"{name}: gsd {speed:.0f} Mpx/s; times as long as gsd: {others}")
    print_opening()


if __name__ == "__main__":
    main()
