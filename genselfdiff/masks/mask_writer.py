"""Writing a label mask of any height as a pyramidal TIFF, row by row."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage

from genselfdiff.masks.bigtiff import Tag, number_tag, text_tag
from genselfdiff.masks.ome_description import is_ome, ome_description
from genselfdiff.masks.pyramid_pages import PyramidShape
from genselfdiff.masks.pyramid_writer import SOFTWARE, PyramidWriter
from genselfdiff.resumable_file import ResumableFile
from genselfdiff.slides.formats import is_tiff
from genselfdiff.storage.opening import open_stored
from genselfdiff.storage.places import Place

Uint8 = NDArray[np.uint8]

_PALETTE = 3


class MaskWriter(PyramidWriter):
    """Writes class indices with a colour map, see ``PyramidWriter``.

    A pixel of a smaller page is the most frequent class of the four below it, of equally frequent
    ones the higher: classes are never blended, and thin objects stay visible. The ImageDescription
    of the first page is JSON: ``{"classes": [...], "mpp": ..., "pixels": [...], ...}``, the number
    of pixels of each class in the window, ``from_damaged`` and ``cores`` if so, and
    ``description``; in an OME-TIFF it is an annotation.

    Args:
        file, shape: see ``PyramidWriter``.
        palette: (red, green, blue) of each class, 0 to 255.
        class_names: the name of each class.
        cores: a hidden plane tells where the cores of objects are, 1 or 0; see
            ``ModelInfo.instances``.
        description: what else the ImageDescription tells.

    Raises:
        OutputError: as ``PyramidWriter``.
        ValueError: as ``PyramidWriter``, or the palette has not one colour for each name, or more
            than 256.
    """

    def __init__(
        self,
        file: str | Path | ResumableFile,
        shape: PyramidShape,
        *,
        palette: Sequence[tuple[int, int, int]],
        class_names: Sequence[str],
        cores: bool = False,
        description: dict[str, Any] | None = None,
    ) -> None:
        if not 1 <= len(palette) <= 256 or len(palette) != len(class_names):
            raise ValueError(f"{len(palette)} colours for {len(class_names)} classes; 256 at most")
        if any(len(colour) != 3 or not all(0 <= c <= 255 for c in colour) for colour in palette):
            raise ValueError("colours must be three numbers from 0 to 255")
        super().__init__(file, shape, planes=1, hidden=int(cores))
        self._palette = palette
        self._class_names = class_names
        self._description = ({"cores": True} if cores else {}) | (description or {})

    def write_rows(self, labels: Uint8) -> None:
        """Write the next rows of the window, beginning at its top.

        Args:
            labels: (rows, width) uint8 class indices, any number of rows.

        Raises:
            ValueError: wrong shape or type, more rows than the window has, or a class beyond the
                palette.
        """
        highest = int(labels.max(initial=0))
        if highest >= len(self._palette):
            raise ValueError(
                f"{self.path}: class {highest} is beyond the {len(self._palette)} of the palette"
            )
        self.push(labels[None])

    def halve(self, rows: Uint8) -> Uint8:  # noqa: D102
        return halve_labels(rows[0])[None]

    def count(self, rows: Uint8) -> None:  # noqa: D102
        rest = rows.size
        for label in range(len(self._palette) - 1, 0, -1):
            there = int(np.count_nonzero(rows == label))
            self.counts[label] += there
            rest -= there
        self.counts[0] += rest

    def page_tags(self, level: int) -> list[Tag]:  # noqa: D102
        # TIFF keeps all reds first, in 16 bits.
        colours = np.zeros((3, 256), np.int64)
        colours[:, : len(self._palette)] = np.transpose(self._palette) * 257
        tags = [
            number_tag(262, "short", _PALETTE),
            number_tag(320, "short", *colours.ravel().tolist()),
        ]
        if level == 0:
            pixels = [self.counts[label] for label in range(len(self._palette))]
            description = {"classes": list(self._class_names), "mpp": self.mpp, "pixels": pixels}
            description |= {"from_damaged": True} if self.from_damaged else {}
            description |= self._description
            tags.append(text_tag(270, self._text(description)))
        return tags

    def _text(self, description: dict[str, Any]) -> str:
        if is_ome(self.path):
            name = self.path.name
            return ome_description(name, self.width, self.height, description)
        return json.dumps(description, sort_keys=True)


def is_own_mask(path: Place) -> bool:
    """Whether gsd has written the TIFF, of classes or other; False if it cannot be read."""
    return _has_first_page(path, lambda page: page.software == SOFTWARE)


def is_own_class_mask(path: Place) -> bool:
    """Whether ``MaskWriter`` has written the file; False if it cannot be read."""
    return _has_first_page(
        path, lambda page: page.software == SOFTWARE and page.photometric == _PALETTE
    )


def _has_first_page(path: Place, wanted: Callable[[TiffPage], bool]) -> bool:
    try:
        with open_stored(path) as file:
            directories = file.metadata()
            if not is_tiff(directories.read_at(0, 16)):
                return False
            with TiffFile(directories.stream()) as tiff:
                page = tiff.pages[0]
                return isinstance(page, TiffPage) and wanted(page)
    except Exception:  # damaged tags fail in many ways inside tifffile
        return False


def halve_labels(labels: Uint8) -> Uint8:
    """Halve (h, w) labels, rounding up: the most frequent of each 2 x 2, in a tie the higher.

    At an odd edge the last row or column counts twice.
    """
    height, width = labels.shape
    if height % 2 or width % 2:
        labels = np.pad(labels, ((0, height % 2), (0, width % 2)), mode="edge")
    a, b, c, d = labels[::2, ::2], labels[::2, 1::2], labels[1::2, ::2], labels[1::2, 1::2]
    # A sorting network of four: lowest <= second <= third <= highest.
    low_ab, high_ab = np.minimum(a, b), np.maximum(a, b)
    low_cd, high_cd = np.minimum(c, d), np.maximum(c, d)
    lowest, highest = np.minimum(low_ab, low_cd), np.maximum(high_ab, high_cd)
    middle_low, middle_high = np.maximum(low_ab, low_cd), np.minimum(high_ab, high_cd)
    second, third = np.minimum(middle_low, middle_high), np.maximum(middle_low, middle_high)
    mode = _choose(lowest == second, lowest, highest)
    mode = _choose(second == third, second, mode)
    return _choose(third == highest, highest, mode)


def _choose(condition: NDArray[np.bool_], yes: Uint8, no: Uint8) -> Uint8:
    """Do what np.where does; on bytes this is ten times as fast."""
    chosen: Uint8 = no ^ ((yes ^ no) & np.negative(condition.view(np.uint8)))
    return chosen
