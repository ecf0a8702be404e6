"""Which pages of a TIFF are the levels of the slide, and which show something else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tifffile import TiffFile, TiffPage

from genselfdiff.slides import image_xml
from genselfdiff.slides.stored_image import is_reduction

_DESCRIPTION = 270
_REDUCED, _TRANSPARENCY_MASK = 1, 4  # bits of NewSubfileType

_OTHER_PICTURES = re.compile(r"\s*(label|macro|thumbnail|overview)\b", re.I)
"""How the descriptions of pages begin that show the slide's label or the whole glass."""


@dataclass(frozen=True)
class LevelPage:
    """A page, and how much of it is the slide: ``width`` x ``height`` pixels at its top left."""

    page: TiffPage
    width: int
    height: int


def description_of(page: TiffPage) -> str:
    """Return what a page tells of itself: UTF-8, else each byte as the letter of Latin-1."""
    told = page.tags.valueof(_DESCRIPTION, default="")
    if not isinstance(told, bytes):
        return page.description
    told = told.rstrip(b"\0")
    try:
        return told.decode()
    except UnicodeDecodeError:
        return told.decode("latin-1")


def slide_pages(tiff: TiffFile) -> tuple[list[LevelPage], str]:
    """Return the pages of the pyramid, largest first, and the description of the file.

    Raises:
        ValueError: there is no image, or its channels are images of their own.
    """
    pages = [page for page in tiff.pages if isinstance(page, TiffPage)]
    if not pages:
        raise ValueError("it holds no image")
    xml = description_of(pages[0])
    others = image_xml.ome_other_sizes(xml)
    slides = [page for page in pages if not _is_other(page) and _size(page) not in others] or pages
    whole = [page for page in slides if not page.subfiletype & _REDUCED] or slides
    main = max(whole, key=lambda page: page.imagewidth * page.imagelength)
    _refuse_separate_channels(main, xml)
    if image_xml.is_philips(xml):
        return _philips_levels(main, slides), xml
    reduced = [page for page in (*slides, *_sub_pages(main)) if _is_level_of(main, page)]
    by_size = {_size(page): page for page in reversed(reduced)}
    levels = [main, *(by_size[size] for size in sorted(by_size, reverse=True))]
    return [LevelPage(page, *_size(page)) for page in levels], xml


def _size(page: TiffPage) -> tuple[int, int]:
    return page.imagewidth, page.imagelength


def _is_other(page: TiffPage) -> bool:
    """Tell whether a page is a photograph of the slide's label or of the whole glass, or a mask."""
    text = description_of(page)
    if text.startswith("Aperio"):
        text = "".join(text.splitlines()[1:2])
    return bool(_OTHER_PICTURES.match(text)) or bool(page.subfiletype & _TRANSPARENCY_MASK)


def _sub_pages(page: TiffPage) -> Iterator[TiffPage]:
    size = page.parent.filehandle.size
    page.subifds = tuple(place for place in page.subifds or () if place < size)
    if page.subifds and page.pages is not None:
        yield from (sub for sub in page.pages if isinstance(sub, TiffPage))


def _is_level_of(main: TiffPage, page: TiffPage) -> bool:
    """Tell whether ``page`` is ``main`` made smaller.

    Levels are stored alike; this leaves out the thumbnail of SVS files, which is not tiled.
    """
    return is_reduction(_size(main), _size(page)) and _is_stored_alike(main, page)


def _is_stored_alike(main: TiffPage, page: TiffPage) -> bool:
    return (
        page.is_tiled == main.is_tiled
        and page.samplesperpixel == main.samplesperpixel
        and page.bitspersample == main.bitspersample
        and page.sampleformat == main.sampleformat
    )


def _philips_levels(main: TiffPage, pages: list[TiffPage]) -> list[LevelPage]:
    """Each half of the one before, filled up to whole tiles, which its size then tells."""
    levels = [LevelPage(main, *_size(main))]
    for page in pages[pages.index(main) + 1 :]:
        downsample = 2 ** len(levels)
        size = -(-main.imagewidth // downsample), -(-main.imagelength // downsample)
        if not page.is_tiled or not _is_stored_alike(main, page):
            continue
        filled_up = -(-size[0] // page.tilewidth) * page.tilewidth
        filled_down = -(-size[1] // page.tilelength) * page.tilelength
        if _size(page) not in (size, (filled_up, filled_down)):
            break
        levels.append(LevelPage(page, *size))
    return levels


def _refuse_separate_channels(main: TiffPage, xml: str) -> None:
    for _, pixels in image_xml.ome_images(xml):
        channels = pixels.get("SizeC", "1")
        size = (pixels.get("SizeX"), pixels.get("SizeY"))
        if size == (str(main.imagewidth), str(main.imagelength)) and (
            main.samplesperpixel == 1 and channels != "1"
        ):
            raise ValueError(f"its {channels} channels are separate grey images, not one in RGB")
