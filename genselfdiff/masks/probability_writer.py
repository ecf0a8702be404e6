"""Writing the probabilities of a slide's classes beside its mask."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genselfdiff.masks.bigtiff import Tag, number_tag, text_tag
from genselfdiff.masks.pyramid_pages import PyramidShape
from genselfdiff.masks.pyramid_writer import PyramidWriter
from genselfdiff.resumable_file import ResumableFile

Uint8 = NDArray[np.uint8]

_GREY, _EXTRA_SAMPLES = 1, 338


def as_bytes(probabilities: NDArray[np.float32]) -> Uint8:
    """0..1 to 0..255, rounded."""
    return np.rint(probabilities * np.float32(255)).astype(np.uint8)


class ProbabilityWriter(PyramidWriter):
    """Writes probabilities, see ``as_bytes``, as one plane a class; see ``PyramidWriter``.

    A pixel of a smaller page is the mean of the four below it. The ImageDescription of the first
    page is JSON: ``{"classes": [...], "mpp": ..., "job": ...}``.

    Args:
        file, shape: see ``PyramidWriter``; the tiles are always of 256 pixels.
        class_names: the name of each class.
        job: what has made them, as JSON can hold it.
    """

    def __init__(
        self,
        file: str | Path | ResumableFile,
        shape: PyramidShape,
        *,
        class_names: Sequence[str],
        job: dict[str, Any] | None = None,
    ) -> None:
        # Smaller tiles than a mask's: there is a band of them for each class.
        super().__init__(file, replace(shape, tile=256), planes=len(class_names))
        self._description = {"classes": list(class_names)} | ({} if job is None else {"job": job})

    def halve(self, rows: Uint8) -> Uint8:  # noqa: D102
        height, width = rows.shape[1:]
        if height % 2 or width % 2:
            rows = np.pad(rows, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
        total = rows[:, ::2].astype(np.uint16) + rows[:, 1::2]
        return ((total[..., ::2] + total[..., 1::2] + 2) // 4).astype(np.uint8)

    def page_tags(self, level: int) -> list[Tag]:  # noqa: D102
        tags = [number_tag(262, "short", _GREY)]
        if self.planes > 1:
            tags.append(number_tag(_EXTRA_SAMPLES, "short", *[0] * (self.planes - 1)))
        if level == 0:
            description = self._description | {"mpp": self.mpp}
            tags.append(text_tag(270, json.dumps(description, sort_keys=True)))
        return tags
