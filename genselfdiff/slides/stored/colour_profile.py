"""Colours as a scanner's ICC profile means them, in sRGB."""

import io
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides.stored.notes import tell_once
from genselfdiff.slides.stored.stored_image import Piece, StoredImage, StoredLevel
from genselfdiff.storage.places import Place

Uint8 = NDArray[np.uint8]

_RGB = "RGB"


def in_srgb(image: StoredImage, path: Place) -> StoredImage:
    """The same image in sRGB, by its profile, relative colorimetric (ICC.1, 6.2.3).

    White stays white. An image without a profile is left as it is, and that is told.

    Args:
        image: as it is stored.
        path: where it is, for messages.

    Raises:
        InputError: the profile is damaged, or not one of RGB.
    """
    if not image.icc:
        tell_once(
            logging.WARNING, f"{path}: has no ICC profile to apply; its colours are read as stored"
        )
        return image
    convert = partial(_converted, _transform(image.icc, path))
    return replace(image, levels=tuple(_LevelInSrgb(level, convert) for level in image.levels))


def _transform(profile: bytes, path: Place) -> ImageCms.ImageCmsTransform:
    """Threads may apply it at once: it keeps nothing of the pixels that it has seen."""
    try:
        stored = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = stored.profile.xcolor_space.strip()
        if space != _RGB:
            raise ValueError(f"it is one of {space}, not of RGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        return ImageCms.buildTransform(
            stored, ImageCms.createProfile("sRGB"), _RGB, _RGB, intent, ImageCms.Flags.NOCACHE
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: its ICC profile cannot be applied ({one_line(error)}); read it without --icc"
        ) from error


def _converted(transform: ImageCms.ImageCmsTransform, pixels: Uint8) -> Uint8:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    transform.apply_in_place(picture)
    return np.asarray(picture)


class _LevelInSrgb(StoredLevel):
    """A level in sRGB: of its pieces only these are kept.

    Args:
        stored: the level as it is stored.
        convert: from (h, w, 3) to the same in sRGB.
    """

    def __init__(self, stored: StoredLevel, convert: Callable[[Uint8], Uint8]) -> None:
        size, piece = (stored.width, stored.height), (stored.piece_width, stored.piece_height)
        super().__init__(*size, *piece, stored.damage)
        self._stored = stored
        self._convert = convert

    def decode(self, column: int, row: int) -> Uint8:
        return self._convert(self._stored.decode(column, row))

    def shared_with(self, column: int, row: int) -> Piece:
        return self._stored.shared_with(column, row)

    def expect(self, pieces: Iterable[Piece]) -> None:
        self._stored.expect(pieces)

    def want(self, pieces: Iterable[Piece]) -> None:
        self._stored.want(pieces)

    def forget(self) -> None:
        super().forget()
        self._stored.forget()
