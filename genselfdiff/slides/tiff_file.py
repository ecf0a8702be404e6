"""TIFF files: which of their pages are the levels of the slide, and its resolution."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError, one_line
from genselfdiff.slides import resolution
from genselfdiff.slides.damage import Damage
from genselfdiff.slides.stored_image import StoredImage
from genselfdiff.slides.tiff_directories import check_directories
from genselfdiff.slides.tiff_level import tiff_level

_REDUCED, _TRANSPARENCY_MASK = 1, 4  # bits of NewSubfileType

_SIZE_TOLERANCE = 2
"""Pixels by which a level's size may differ from the slide's over its downsampling."""


def is_tiff(header: bytes) -> bool:
    """Tell by the first bytes whether a file is a TIFF or BigTIFF."""
    return header[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


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
                pages, mpp = _pages_of_slide(tiff)
                levels = tuple(
                    tiff_level(page, index, file, damage, as_mask)
                    for index, page in enumerate(pages)
                )
        except InputError:
            raise
        except Exception as error:  # damaged tags fail in many ways inside tifffile
            raise InputError(
                f"{path}: is no readable TIFF ({one_line(error)}); is it whole?"
            ) from error
        on_failure.pop_all()
    return StoredImage(levels, mpp, file.close)


def _pages_of_slide(tiff: TiffFile) -> tuple[list[TiffPage], float | None]:
    """Return the pages of the pyramid, largest first, and the mpp of the largest."""
    pages = [page for page in tiff.pages if isinstance(page, TiffPage)]
    if not pages:
        raise ValueError("it holds no image")
    slides = [page for page in pages if not _is_extra(page)] or pages
    whole = [page for page in slides if not page.subfiletype & _REDUCED] or slides
    main = max(whole, key=lambda page: page.imagewidth * page.imagelength)
    xml = pages[0].description
    _refuse_separate_channels(main, xml)
    reduced = [page for page in (*slides, *_sub_pages(main)) if _is_level_of(main, page)]
    by_size = {(page.imagewidth, page.imagelength): page for page in reversed(reduced)}
    return [main, *(by_size[size] for size in sorted(by_size, reverse=True))], _mpp(main, xml)


def _is_extra(page: TiffPage) -> bool:
    """Tell whether a page is a photograph of the slide's label or of the whole glass, or a mask."""
    lines = page.description.splitlines() if page.description.startswith("Aperio") else []
    words = {line.split(" ", 1)[0].lower() for line in lines[1:2]}
    return bool(words & {"label", "macro"}) or bool(page.subfiletype & _TRANSPARENCY_MASK)


def _sub_pages(page: TiffPage) -> Iterator[TiffPage]:
    if page.subifds and page.pages is not None:
        yield from (sub for sub in page.pages if isinstance(sub, TiffPage))


def _is_level_of(main: TiffPage, page: TiffPage) -> bool:
    """Tell whether ``page`` is ``main`` made smaller.

    Levels are stored alike; this leaves out the thumbnail of SVS files, which is not tiled.
    """
    if not 0 < page.imagewidth < main.imagewidth or not 0 < page.imagelength < main.imagelength:
        return False
    across = main.imagewidth / page.imagewidth
    down = main.imagelength / page.imagelength
    downsample = (across * down) ** 0.5
    return (
        abs(main.imagewidth / downsample - page.imagewidth) <= _SIZE_TOLERANCE
        and abs(main.imagelength / downsample - page.imagelength) <= _SIZE_TOLERANCE
        and page.is_tiled == main.is_tiled
        and page.samplesperpixel == main.samplesperpixel
        and page.bitspersample == main.bitspersample
        and page.sampleformat == main.sampleformat
    )


def _refuse_separate_channels(main: TiffPage, xml: str) -> None:
    for pixels in resolution.ome_pixels(xml):
        channels = pixels.get("SizeC", "1")
        size = (pixels.get("SizeX"), pixels.get("SizeY"))
        if size == (str(main.imagewidth), str(main.imagelength)) and (
            main.samplesperpixel == 1 and channels != "1"
        ):
            raise ValueError(f"its {channels} channels are separate grey images, not one in RGB")


def _mpp(page: TiffPage, xml: str) -> float | None:
    x, y = page.resolution
    return (
        resolution.mpp_from_aperio(page.description)
        or resolution.mpp_from_ome(xml, page.imagewidth, page.imagelength)
        or resolution.mpp_from_tiff_tags(x, y, int(page.resolutionunit))
    )
