"""Opening TIFF files: their levels, and what they say about their pixels."""

from collections.abc import Sequence
from contextlib import ExitStack

from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides.formats import tiff_xml
from genselfdiff.slides.formats.ome_companion import metadata_file
from genselfdiff.slides.formats.ome_planes import PlanesLevel, colour_planes, open_planes
from genselfdiff.slides.formats.openslide import is_for_openslide, open_with_openslide
from genselfdiff.slides.formats.tiff_directories import check_directories
from genselfdiff.slides.formats.tiff_level import TiffLevel, tiff_level
from genselfdiff.slides.formats.tiff_pages import (
    LevelPage,
    description_of,
    file_description,
    slide_pages,
)
from genselfdiff.slides.stored import stated_resolution
from genselfdiff.slides.stored.damage import Damage
from genselfdiff.slides.stored.notes import tell_of_16_bits
from genselfdiff.slides.stored.orientation import page_orientation, upright
from genselfdiff.slides.stored.pixel_format import UnreadKind, mask_format, rgb_format, told_white
from genselfdiff.slides.stored.stored_image import StoredImage
from genselfdiff.storage.stored_file import StoredFile

_ICC = 34675


def open_tiff(
    file: StoredFile, damage: Damage, *, xml: str = "", as_mask: bool = False
) -> StoredImage:
    """Open a TIFF, OME-TIFF or SVS file, which is closed with the image, or where this fails.

    What ``xml`` tells of it counts more than what the file does. With ``as_mask`` its pixels become
    what ``mask_pixels`` makes of the stored numbers.

    Raises:
        InputError: the file is damaged or truncated, or not a grey, colour or palette image, or
            stored in pieces too large to decode at once.
    """
    path = damage.path
    with ExitStack() as on_failure:
        on_failure.enter_context(file)
        directories = file.metadata()
        try:
            check_directories(directories)
            with ExitStack() as tiffs:
                tiff = tiffs.enter_context(TiffFile(directories.stream()))
                if is_for_openslide(tiff):
                    return open_with_openslide(path, damage)
                xml = xml or file_description(tiff, path)
                planes = [] if as_mask else colour_planes(xml)
                if planes:
                    parts = open_planes(planes, file, damage, on_failure, tiffs)
                else:
                    parts = [(file, slide_pages(tiff, path, xml))]
                main = parts[0][1][0].page
                white = None if as_mask else told_white(main, _significant_bits(main, xml))
                found = [_levels(pages, part, damage, white) for part, pages in parts]
                stored = [*map(PlanesLevel, zip(*found, strict=True))] if planes else found[0]
                levels = upright(stored, page_orientation(main))
                mpp, doubt = stated_resolution.believed(*_stated_sizes(main, xml))
                if companion := metadata_file(xml):
                    doubt = doubt or f"has its metadata in {companion}, which is not beside it"
                icc = _icc(main)
                if white is not None and main.bitspersample == 16 and main.colormap is None:
                    tell_of_16_bits(levels[-1], white)
        except InputError:
            raise
        except UnreadKind as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
        except Exception as error:  # damaged tags fail in many ways inside tifffile
            raise InputError(
                f"{path}: is no readable TIFF ({one_line(error)}); is it whole?"
            ) from error
        close = on_failure.pop_all().close
    return StoredImage(levels, mpp, doubt, icc, close, file.ahead_bytes)


def _levels(
    pages: Sequence[LevelPage], file: StoredFile, damage: Damage, white: int | None
) -> list[TiffLevel]:
    """``white`` is the number in 16 bits that is; None: the file is a mask."""
    levels: list[TiffLevel] = []
    for index, level in enumerate(pages):
        page = level.page
        pixels = mask_format(page) if white is None else rgb_format(page, damage.path, white)
        finer = levels[-1] if levels else None
        levels.append(tiff_level(level, index, file, damage, pixels, finer))
    return levels


def _icc(page: TiffPage) -> bytes:
    profile = page.tags.valueof(_ICC, default=b"")
    return profile if isinstance(profile, bytes) else b""


def _significant_bits(page: TiffPage, xml: str) -> int | None:
    return tiff_xml.ome_significant_bits(xml, page.imagewidth, page.imagelength)


def _stated_sizes(page: TiffPage, xml: str) -> list[stated_resolution.PixelSize | None]:
    x, y = page.resolution
    description = description_of(page)
    return [
        stated_resolution.aperio_size(description),
        stated_resolution.imagej_size(description, x, y),
        tiff_xml.ome_pixel_size(xml, page.imagewidth, page.imagelength),
        tiff_xml.philips_pixel_size(xml),
        stated_resolution.tags_size(x, y, int(page.resolutionunit)),
    ]
