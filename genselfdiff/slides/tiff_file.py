"""Opening TIFF files: their levels, and what they say about their pixels."""

from contextlib import ExitStack
from pathlib import Path

from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides import resolution
from genselfdiff.slides.damage import Damage
from genselfdiff.slides.stored_image import StoredImage
from genselfdiff.slides.tiff_directories import check_directories
from genselfdiff.slides.tiff_level import tiff_level
from genselfdiff.slides.tiff_pages import description_of, slide_pages

_ICC = 34675


def open_tiff(path: Path, damage: Damage, *, as_mask: bool = False) -> StoredImage:
    """Open a TIFF, OME-TIFF or SVS file.

    With ``as_mask`` its pixels become white where a stored number is not 0, else black.

    Raises:
        InputError: the file is damaged or truncated, or not a grey, colour or palette image, or
            stored in pieces too large to decode at once.
    """
    with ExitStack() as on_failure:
        file = on_failure.enter_context(path.open("rb", buffering=0))
        try:
            check_directories(file)
            with TiffFile(path) as tiff:
                pages, xml = slide_pages(tiff)
                levels = tuple(
                    tiff_level(level, index, file, damage, as_mask)
                    for index, level in enumerate(pages)
                )
                main = pages[0].page
                mpp, doubt = resolution.believed(*_stated_sizes(main, xml))
                icc_bytes = main.tags[_ICC].count if _ICC in main.tags else 0
        except InputError:
            raise
        except Exception as error:  # damaged tags fail in many ways inside tifffile
            raise InputError(
                f"{path}: is no readable TIFF ({one_line(error)}); is it whole?"
            ) from error
        on_failure.pop_all()
    return StoredImage(levels, mpp, doubt, icc_bytes, file.close)


def _stated_sizes(page: TiffPage, xml: str) -> list[resolution.PixelSize | None]:
    x, y = page.resolution
    description = description_of(page)
    return [
        resolution.aperio_size(description),
        resolution.imagej_size(description, x, y),
        resolution.ome_size(xml, page.imagewidth, page.imagelength),
        resolution.philips_size(xml),
        resolution.tags_size(x, y, int(page.resolutionunit)),
    ]
