"""Which pages of a TIFF are the levels of the slide, and which show something else."""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tifffile import TiffFile, TiffPage

from genselfdiff.errors import InputError
from genselfdiff.slides.formats import tiff_xml
from genselfdiff.slides.formats.ome_companion import files_told, metadata_file, read_companion
from genselfdiff.slides.stored.notes import tell_once
from genselfdiff.slides.stored.orientation import page_orientation
from genselfdiff.slides.stored.pixel_format import UnreadKind
from genselfdiff.slides.stored.stored_image import is_reduction
from genselfdiff.storage.places import Place

_DESCRIPTION = 270
_REDUCED, _TRANSPARENCY_MASK = 1, 4  # bits of NewSubfileType

_GREY = (0, 1)
_ORIENTATION = 274


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


def file_description(tiff: TiffFile, path: Place) -> str:
    """Return what a file tells of itself; that of an OME-TIFF may lie in a file beside it."""
    pages = (page for page in tiff.pages if isinstance(page, TiffPage))
    xml = next(map(description_of, pages), "")
    companion = metadata_file(xml)
    return (read_companion(path, companion) if companion else None) or xml


def slide_pages(tiff: TiffFile, path: Place, xml: str) -> list[LevelPage]:
    """Return the pages of the pyramid, largest first, of a file with the description ``xml``.

    Other images that are left out, but those of label and glass, are told with the ``path``.

    Raises:
        UnreadKind: its channels are images of their own, or may be.
        ValueError: there is no image.
    """
    pages = [page for page in tiff.pages if isinstance(page, TiffPage)]
    if not pages:
        raise ValueError("it holds no image")
    images = tiff_xml.ome_images(xml)
    others = tiff_xml.ome_other_sizes(images)
    slides = [page for page in pages if not _is_other(page) and _size(page) not in others]
    if not slides:
        tell_once(
            logging.WARNING,
            f"{path}: holds nothing but what calls itself a label, a photograph or a mask; it is"
            " read as it is",
        )
        slides = pages
    whole = [page for page in slides if not page.subfiletype & _REDUCED] or slides
    main = _largest_scan(whole)
    planes = [page for page in whole if _is_plane_beside(main, page)]
    own = [pixels for _, pixels in images if tiff_xml.ome_size(pixels) == _size(main)]
    _check_planes(main, max(len(planes), _told_planes(main)), own, path)
    if tiff_xml.is_philips(xml):
        return _philips_levels(main, slides)
    apart = {tiff_xml.ome_size(pixels) for _, pixels in images} - {_size(main)}
    chain = [page for page in slides if _size(page) not in apart]
    reduced = [page for page in (*chain, *_sub_pages(main)) if _is_level_of(main, page)]
    by_size = {_size(page): page for page in reversed(reduced)}
    levels = [main, *(by_size[size] for size in sorted(by_size, reverse=True))]
    left = {_size(page) for page in whole if page.is_tiled == main.is_tiled}
    _tell_left_out(left - {_size(page) for page in levels}, main, path)
    return [LevelPage(page, *_size(page)) for page in levels]


def pages_of_plane(tiff: TiffFile, directory: int) -> list[LevelPage]:
    """Return the pages of one plane of an OME-TIFF, largest first.

    Raises:
        ValueError: the file has no such directory.
    """
    if not 0 <= directory < len(tiff.pages):
        raise ValueError(f"it has no directory {directory}")
    main = tiff.pages[directory].aspage()
    reduced = {_size(page): page for page in _sub_pages(main) if _is_level_of(main, page)}
    pages = [main, *(reduced[size] for size in sorted(reduced, reverse=True))]
    return [LevelPage(page, *_size(page)) for page in pages]


def require_one_mask(tiff: TiffFile, path: Place) -> None:
    """Raise InputError where a file holds a second image of the size of the first."""
    first = tiff.pages.first
    try:
        second = tiff.pages[1].aspage()
    except IndexError:
        return
    if _size(second) == _size(first):
        raise InputError(
            f"{path}: holds several images of {first.imagewidth} x {first.imagelength} pixels; save"
            " the one that is the mask"
        )


def _largest_scan(pages: list[TiffPage]) -> TiffPage:
    """The largest page; but scans are tiled, and a larger page beside them is a photograph."""
    tiled = [page for page in pages if page.is_tiled]
    scans = [
        page
        for page in pages
        if page.is_tiled or not tiled or any(is_reduction(_size(page), _size(t)) for t in tiled)
    ]
    return max(scans, key=lambda page: page.imagewidth * page.imagelength)


def _is_plane_beside(main: TiffPage, page: TiffPage) -> bool:
    return _size(page) == _size(main) and _is_stored_alike(main, page)


def _told_planes(main: TiffPage) -> int:
    """Images of the size of ``main`` that ImageJ or tifffile tell of; not all have directories."""
    text = description_of(main)
    if text.startswith("ImageJ=") and (told := re.search(r"^images=(\d{1,9})\s*$", text, re.M)):
        return int(told[1])
    if told := re.match(r'\{"shape": \[([\d, ]{1,99})\]', text):
        values = math.prod(int(side) for side in told[1].split(",") if side.strip())
        return values // (main.imagewidth * main.imagelength * main.samplesperpixel)
    return 1


def _check_planes(main: TiffPage, planes: int, own: list[tiff_xml.Element], path: Place) -> None:
    """Tell of a stack; refuse grey images that may be the channels of one.

    ``own``: what OME-XML says of images of the size of ``main``.
    """
    for pixels in own:
        if len(files := files_told(pixels)) > 1:
            tell_once(
                logging.WARNING,
                f"{path}: is one of {len(files)} files of a stack; only what is in it is read",
            )
        channels = pixels.get("SizeC", "1")
        if main.samplesperpixel == 1 and channels != "1":
            raise UnreadKind(
                f"its {channels} channels are separate grey images, not one in RGB, nor called Red,"
                " Green and Blue"
            )
    if planes < 2:
        return
    text = description_of(main)
    of_one_channel = own or (text.startswith("ImageJ=") and "channels=" not in text)
    if main.photometric in _GREY and main.samplesperpixel == 1 and not of_one_channel:
        raise UnreadKind(
            f"it holds {planes} grey images of one size, which may be the red, green and blue of"
            " one; save it as RGB, or one of them alone"
        )
    tell_once(
        logging.WARNING,
        f"{path}: holds {planes} images of {main.imagewidth} x {main.imagelength} pixels, as a"
        " stack does; only the first is read",
    )


def _tell_left_out(sizes: set[tuple[int, int]], main: TiffPage, path: Place) -> None:
    if sizes:
        listed = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
        more = ", ..." if len(sizes) > 3 else ""
        tell_once(
            logging.WARNING,
            f"{path}: the image of {main.imagewidth} x {main.imagelength} pixels is read, others in"
            f" the file are not: {listed}{more}",
        )


def _size(page: TiffPage) -> tuple[int, int]:
    return page.imagewidth, page.imagelength


def _is_other(page: TiffPage) -> bool:
    """Tell whether a page is a photograph of the slide's label or of the whole glass, or a mask."""
    text = description_of(page)
    if text.startswith("Aperio"):
        text = "".join(text.splitlines()[1:2])
    is_named = tiff_xml.begins_as_other_image(text)
    return is_named or bool(page.subfiletype & _TRANSPARENCY_MASK)


def _sub_pages(page: TiffPage) -> Iterator[TiffPage]:
    size = page.parent.filehandle.size
    page.subifds = tuple(place for place in page.subifds or () if place < size)
    if page.subifds and page.pages is not None:
        yield from (sub for sub in page.pages if isinstance(sub, TiffPage))


def _is_level_of(main: TiffPage, page: TiffPage) -> bool:
    """Tell whether ``page`` is ``main`` made smaller.

    Levels are stored alike; this leaves out the thumbnail of SVS files, which is not tiled.
    """
    return (
        is_reduction(_size(main), _size(page))
        and _is_stored_alike(main, page)
        and (_ORIENTATION not in page.tags or page_orientation(page) == page_orientation(main))
    )


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
