"""Opening slides and images of any format."""

import logging
import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError, one_line
from genselfdiff.settings import check_mpp
from genselfdiff.slides.formats.dicom.elements import is_dicom
from genselfdiff.slides.formats.dicom.opening import open_dicom
from genselfdiff.slides.formats.dicom.series import is_dicom_slide
from genselfdiff.slides.formats.ome_companion import (
    COMPANION_SUFFIX,
    file_of_slide,
    read_metadata,
)
from genselfdiff.slides.formats.ome_zarr import is_zarr, open_zarr
from genselfdiff.slides.formats.openslide import OPENSLIDE_SUFFIXES, open_with_openslide
from genselfdiff.slides.formats.png_jpeg import is_picture, open_picture
from genselfdiff.slides.formats.tiff import open_tiff
from genselfdiff.slides.formats.tiff_directories import is_tiff
from genselfdiff.slides.slide import Slide
from genselfdiff.slides.stored.colour_profile import in_srgb
from genselfdiff.slides.stored.damage import Damage
from genselfdiff.slides.stored.stored_image import MAX_PIXELS_AT_ONCE, StoredImage
from genselfdiff.storage.listing import is_folder
from genselfdiff.storage.opening import open_stored
from genselfdiff.storage.places import Place, place_of
from genselfdiff.storage.stored_file import StoredFile

Uint8 = NDArray[np.uint8]

logger = logging.getLogger("genselfdiff")

_ISYNTAX = (".isyntax", ".i2syntax")


def open_slide(
    path: str | Place, *, mpp: float | None = None, on_error: str = "fail", icc: bool = False
) -> Slide:
    """Open a slide or image: SVS, OME-TIFF, pyramidal or plain TIFF, DICOM, PNG, JPEG.

    Formats of ``OPENSLIDE_SUFFIXES`` are read through OpenSlide, and folders that are an OME-Zarr
    through the zarr package, if these are installed.

    Only what is read is decoded, and decoded tiles are kept within a bound that all open slides
    share; PNG and JPEG are decoded as a whole.

    Args:
        path: the file, or the folder of an OME-Zarr or DICOM series; or its URL, see
            docs/storage.md. Any file of a series names the slide.
        mpp: micrometres per pixel of level 0, believed more than the file.
        on_error: "fail": a stored tile that is damaged is an error; "blank": it is glass, of which
            a warning is logged. A damaged PNG or JPEG is always an error.
        icc: read colours as the file's ICC profile means them, in sRGB; else as they are stored.

    Raises:
        InputError: the file is missing, empty, truncated, no image, not grey or RGB, or cannot be
            read in bounded memory, or OpenSlide is needed and missing; or ``mpp`` is out of range,
            or the profile damaged.
    """
    return open_counting(Damage(place_of(path), on_error), mpp=mpp, icc=icc)


def open_counting(damage: Damage, *, mpp: float | None = None, icc: bool = False) -> Slide:
    """Open the file that ``damage`` is of as `open_slide` does; several openings can share it."""
    if mpp is not None:
        check_mpp(mpp)
    stored = _open(damage)
    if icc:
        try:
            stored = in_srgb(stored, damage.path)
        except InputError:
            stored.close()
            raise
    elif stored.icc:
        logger.debug(
            "%s: has an ICC profile of %d bytes; it is not applied without --icc",
            damage.path,
            len(stored.icc),
        )
    return Slide(damage, stored, mpp)


def open_mask(path: str | Place) -> Slide:
    """Open an image as ``open_slide`` does, for its stored numbers: see ``mask_pixels``.

    Numbers of any type count as they are stored; where a palette gives 0 a colour, what it gives
    black is told from the others.

    Raises:
        InputError: as ``open_slide``.
    """
    damage = Damage(place_of(path))
    return Slide(damage, _open(damage, as_mask=True), None)


def _open(damage: Damage, *, as_mask: bool = False) -> StoredImage:
    path = damage.path
    if isinstance(path, Path):
        if os.path.isdir(path):  # False for a name that is too long, of which Path raises an error
            return _open_folder(path, damage, as_mask=as_mask)
        if not os.path.exists(path):
            raise InputError(f"{path}: no such file")
    elif is_zarr(path) or is_folder(path):
        return _open_folder(path, damage, as_mask=as_mask)
    try:
        with ExitStack() as on_failure:
            image = _open_file(on_failure.enter_context(open_stored(path)), damage, as_mask=as_mask)
            on_failure.pop_all()
            return image
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {one_line(error)}") from error


def _open_folder(path: Place, damage: Damage, *, as_mask: bool) -> StoredImage:
    if as_mask:
        raise InputError(f"{path}: a mask cannot be a folder; give it as a TIFF or PNG")
    if is_zarr(path):
        return open_zarr(path, damage)
    if is_dicom_slide(path):
        return open_dicom(path, damage)
    raise InputError(f"{path}: is a folder; name a slide or image in it")


def _open_file(file: StoredFile, damage: Damage, *, as_mask: bool) -> StoredImage:
    """Open a file, which is closed with the image."""
    path = damage.path
    header = file.metadata().read_at(0, 132)
    if not header:
        raise InputError(f"{path}: the file is empty; copy or download it again")
    if path.suffix.lower() in _ISYNTAX:
        raise InputError(
            f"{path}: iSyntax of Philips is not read; export it as DICOM or TIFF with the scanner's"
            " program, or convert it to DICOM with wsidicomizer (docs/formats.md)"
        )
    if path.suffix.lower() in OPENSLIDE_SUFFIXES:
        file.close()
        return open_with_openslide(path, damage)
    if is_tiff(header):
        return open_tiff(file, damage, as_mask=as_mask)
    if is_picture(header):
        return open_picture(file, header, damage, as_mask=as_mask)
    if is_dicom(header) and not as_mask:
        file.close()
        return open_dicom(path, damage)
    if path.name.lower().endswith(COMPANION_SUFFIX) and not as_mask:
        file.close()
        return open_tiff(open_stored(file_of_slide(path)), damage, xml=read_metadata(path))
    raise InputError(
        f"{path}: is no TIFF, SVS, DICOM, PNG or JPEG, or damaged; convert images to a tiled TIFF"
    )


def read_image(path: str | Place, *, icc: bool = False) -> Uint8:
    """Read a whole image at level 0 as (h, w, 3) uint8 RGB.

    Raises:
        InputError: as ``open_slide``; or the image has more than 2**28 pixels.
    """
    with open_slide(path, icc=icc) as slide:
        if slide.width * slide.height > MAX_PIXELS_AT_ONCE:
            raise InputError(
                f"{path}: {slide.width} x {slide.height} pixels are too many to read at once; cut"
                " it into smaller images"
            )
        return slide.read_level(0, 0, slide.width, slide.height)
