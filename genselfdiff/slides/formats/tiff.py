"""Opening TIFF files: their levels, and what they say about their pixels."""

from contextlib import ExitStack

from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides.formats import tiff_xml
from genselfdiff.slides.formats.ome_companion import metadata_file
from genselfdiff.slides.formats.openslide import is_for_openslide, open_with_openslide
from genselfdiff.slides.formats.tiff_directories import check_directories
from genselfdiff.slides.formats.tiff_level import TiffLevel, tiff_level
from genselfdiff.slides.formats.tiff_pages import description_of, slide_pages
from genselfdiff.slides.stored import stated_resolution
from genselfdiff.slides.stored.damage import Damage
from genselfdiff.slides.stored.notes import tell_of_16_bits
from genselfdiff.slides.stored.orientation import page_orientation, upright
from genselfdiff.slides.stored.pixel_format import UnreadKind, mask_format, rgb_format, told_white
from genselfdiff.slides.stored.stored_image import StoredImage
from genselfdiff.storage.stored_file import StoredFile

_ICC = 34675


def open_tiff(file: StoredFile, damage: Damage, *, as_mask: bool = False) -> StoredImage:
    """Open a TIFF, OME-TIFF or SVS file, which is closed with the image, or where this fails.

    With ``as_mask`` its pixels become what ``mask_pixels`` makes of the stored numbers.

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
            with TiffFile(directories.stream()) as tiff:
                if is_for_openslide(tiff):
                    return open_with_openslide(path, damage)
                pages, xml = slide_pages(tiff, path)
                main = pages[0].page
                white = told_white(main, _significant_bits(main, xml))
                stored: list[TiffLevel] = []
                for index, level in enumerate(pages):
                    page = level.page
                    pixels = mask_format(page) if as_mask else rgb_format(page, path, white)
                    finer = stored[-1] if stored else None
                    stored.append(tiff_level(level, index, file, damage, pixels, finer))
                levels = upright(stored, page_orientation(main))
                mpp, doubt = stated_resolution.believed(*_stated_sizes(main, xml))
                if companion := metadata_file(xml):
                    doubt = doubt or f"has its metadata in {companion}, which is not beside it"
                icc = _icc(main)
                if main.bitspersample == 16 and main.colormap is None and not as_mask:
                    tell_of_16_bits(levels[-1], white)
        except InputError:
            raise
        except UnreadKind as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
        except Exception as error:  # damaged tags fail in many ways inside tifffile
            raise InputError(
                f"{path}: is no readable TIFF ({one_line(error)}); is it whole?"
            ) from error
        on_failure.pop_all()
    return StoredImage(levels, mpp, doubt, icc, file.close, file.ahead_bytes)


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
