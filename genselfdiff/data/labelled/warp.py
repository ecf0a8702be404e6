"""Turning and magnifying a crop together with its labels, in one resampling."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample


@dataclass(frozen=True)
class Warp:
    """A turn about the middle of a crop and a magnification, taken from a larger window.

    Attributes:
        scale: pixels of the crop per pixel of the window: above 1 the crop shows less, larger.
        degrees: by which what the crop shows is turned counter-clockwise.
    """

    scale: float
    degrees: float

    def window_side(self, size: int) -> int:
        """Side of the square window, in pixels, in which a crop of ``size`` pixels lies wholly."""
        angle = math.radians(self.degrees)
        reach = (size - 1) / self.scale * (abs(math.cos(angle)) + abs(math.sin(angle)))
        return math.ceil(reach) + 1

    def apply(
        self, window: NDArray[np.uint8], labels: NDArray[np.uint8], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Resample the middle of a window and its labels at the same places.

        Args:
            window: uint8 (W, W, 3) with W = ``window_side(size)``.
            labels: uint8 (W, W).
            size: side of the crop in pixels.

        Returns:
            The crop, uint8 (3, size, size), bilinear between pixel centres, and its labels, uint8
            (size, size), each that of the nearest pixel.
        """
        places = self._places(size, len(labels))
        # Copies, because torch warns of arrays that must not be written to.
        pixels = torch.from_numpy(window.copy()).permute(2, 0, 1)[None].float()
        classes = torch.from_numpy(labels.copy())[None, None].float()
        # "border" only stands for places that rounding puts outside by a millionth of a pixel.
        crop = grid_sample(pixels, places, "bilinear", "border", align_corners=False)
        nearest = grid_sample(classes, places, "nearest", "border", align_corners=False)
        return (
            crop[0].add_(0.5).to(torch.uint8).numpy(),
            nearest[0, 0].to(torch.uint8).numpy(),
        )

    def _places(self, size: int, side: int) -> torch.Tensor:
        """Where each pixel of the crop lies, as `grid_sample` counts: the window from -1 to 1.

        Its own `affine_grid` takes as long as both resamplings.
        """
        along = (np.arange(size) - (size - 1) / 2) * (2 / (self.scale * side))
        angle = math.radians(self.degrees)
        x, y = along[None, :], along[:, None]
        places = np.empty((1, size, size, 2), np.float32)
        places[0, ..., 0] = math.cos(angle) * x - math.sin(angle) * y
        places[0, ..., 1] = math.sin(angle) * x + math.cos(angle) * y
        return torch.from_numpy(places)
