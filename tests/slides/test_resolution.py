"""mpp from each kind of metadata, and from files that carry it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genselfdiff.slides import open_slide
from genselfdiff.slides.formats import tiff_xml
from genselfdiff.slides.stored import stated_resolution

APERIO = "Aperio Image Library v11.2.1 \r\n46000x32914 (256x256) JPEG/RGB Q=30|AppMag = 20|{}|X = 1"


def mpp(size: stated_resolution.PixelSize | None) -> float | None:
    return stated_resolution.believed(size)[0]


def ome(**attributes: object) -> str:
    text = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels SizeX="10" SizeY="10" PhysicalSizeX="9"/></Image>'
        f'<Image ID="Image:1"><Pixels SizeX="300" SizeY="200" {text}/></Image></OME>'
    )


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("MPP = 0.4990", 0.499),
        ("MPP=0.25", 0.25),
        ("MPP = 0,25", 0.25),
        ("MPP = 0", None),
        ("MPP = " + "9" * 400, None),
        ("MPP = 1..2", None),
        ("MPP = 400", None),
        ("MPPX = 0.3", None),
    ],
)
def test_aperio(field: str, expected: float | None) -> None:
    assert mpp(stated_resolution.aperio_size(APERIO.format(field))) == pytest.approx(expected)
    assert stated_resolution.aperio_size("ImageJ=1.5|" + field) is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}, 0.25),
        ({"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}, 0.25),
        (
            {
                "PhysicalSizeX": 0.0005,
                "PhysicalSizeXUnit": "mm",
                "PhysicalSizeY": 0.0005,
                "PhysicalSizeYUnit": "mm",
            },
            0.5,
        ),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.2505}, 0.25025),
        ({"PhysicalSizeX": "0,25", "PhysicalSizeY": "0,25"}, 0.25),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "micron", "PhysicalSizeY": 0.25}, 0.25),
        ({"PhysicalSizeX": "9" * 400, "PhysicalSizeY": "9" * 400}, None),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}, None),  # not square
        ({"PhysicalSizeX": 0.25}, None),
        ({"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1}, None),
        ({"PhysicalSizeX": "wide", "PhysicalSizeY": 1}, None),
        ({}, None),
    ],
)
def test_ome(attributes: dict[str, object], expected: float | None) -> None:
    found = mpp(tiff_xml.ome_pixel_size(ome(**attributes), 300, 200))
    assert found == (expected and pytest.approx(expected, rel=1e-5))


def test_ome_takes_the_image_of_that_size() -> None:
    xml = ome(PhysicalSizeX=0.25, PhysicalSizeY=0.25)
    assert tiff_xml.ome_pixel_size(xml, 301, 200) is None


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-16", "no-such"])
def test_ome_is_decoded_already_whatever_its_encoding(encoding: str) -> None:
    size = {"PhysicalSizeXUnit": "\u00b5m", "PhysicalSizeYUnit": "\u00b5m"}
    xml = ome(PhysicalSizeX=0.25, PhysicalSizeY=0.25, **size).replace("UTF-8", encoding)
    assert mpp(tiff_xml.ome_pixel_size(xml, 300, 200)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "part", [" " * 2**24, "<a/>" * 2**19, "<a>" * 2**19, "<a " + "a='' " * 2**19]
)
def test_endless_xml_is_not_parsed(part: str) -> None:
    with pytest.raises(ValueError, match="more than that of any slide"):
        tiff_xml.ome_pixel_size("<OME>" + part, 300, 200)


@pytest.mark.parametrize(
    ("lines", "unit", "expected"),
    [
        ("unit=micron", 1, 0.5),
        ("unit=um", 1, 0.5),
        ("unit=\\u00B5m", 1, 0.5),
        ("unit=\u00b5m\r", 1, 0.5),
        ("unit=mm\nyunit=mm", 1, None),
        ("unit=micron\nyunit=nm", 1, None),  # not square
        ("unit=micron", 3, 0.5),  # ImageJ does not look at ResolutionUnit
        ("unit=pixel", 1, None),
        ("min=0.0", 1, None),
    ],
)
def test_imagej(
    tiff: Callable[..., Path], picture: np.ndarray, lines: str, unit: int, expected: float | None
) -> None:
    description = f"ImageJ=1.53t\n{lines}\nmax=255.0\n".encode("latin-1")
    tags = [(270, 2, len(description) + 1, description + b"\0", True)]
    scale = {"resolution": (2.0, 2.0), "resolutionunit": unit}
    path = tiff(picture, metadata=None, extratags=tags, **scale)
    with open_slide(path) as slide:
        assert slide.mpp == expected


@pytest.mark.parametrize("stray", [b"\x03(:.):\x8d,\x81", "Größe".encode("latin-1"), b"\xb5"])
@pytest.mark.parametrize("kind", [2, 1, 7])
def test_descriptions_that_are_not_ascii(
    tiff: Callable[..., Path], picture: np.ndarray, stray: bytes, kind: int
) -> None:
    description = APERIO.format("MPP = 0.4990").encode() + b"|Time = " + stray + b"\0"
    tags = [(270, kind, len(description), description, True)]
    with open_slide(tiff(picture, "a.svs", metadata=None, extratags=tags)) as slide:
        assert slide.mpp == 0.499


@pytest.mark.parametrize("xml", ["", "<OME", "<OME><Pixels></OME>", "<!ENTITY a 'b'><OME/>"])
def test_broken_ome(xml: str) -> None:
    assert tiff_xml.ome_pixel_size(xml, 300, 200) is None


@pytest.mark.parametrize(
    ("x", "y", "unit", "expected"),
    [
        (20_000, 20_000, 3, 0.5),
        (101_600, 101_600, 2, 0.25),
        (20_000, 20_000, 1, None),  # no unit
        (72, 72, 2, None),
        (96, 96, 2, None),
        (300, 300, 2, None),
        (600, 600, 2, None),
        (118, 118, 3, None),  # 300 dpi in centimetres
        (1, 1, 2, None),
        (0, 0, 3, None),
        (1e9, 1e9, 3, None),
    ],
)
def test_tiff_tags(x: float, y: float, unit: int, expected: float | None) -> None:
    assert mpp(stated_resolution.tags_size(x, y, unit)) == pytest.approx(expected)


def test_svs(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    description = APERIO.format("MPP = 0.4990").replace("\r", "")
    path = tiff(
        picture,
        "a.svs",
        description=description,
        metadata=None,
        resolution=(10_000, 10_000),
        resolutionunit="CENTIMETER",
    )
    with open_slide(path) as slide:
        assert slide.mpp == 0.499  # not the 1.0 of the tags


def test_ome_tiff(pyramid: Callable[..., Path]) -> None:
    size = {"PhysicalSizeX": 454, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.454}
    path = pyramid("a.ome.tif", subifds=True, metadata={"axes": "YXS", **size})
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.454)


@pytest.mark.parametrize(("per_cm", "mpp"), [(40_000, 0.25), (118.11, None)])
def test_plain_tiff(
    tiff: Callable[..., Path], picture: np.ndarray, per_cm: float, mpp: float | None
) -> None:
    path = tiff(picture, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(mpp)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize(("dpi", "mpp"), [(72, None), (96, None), (300, None), (50_800, 0.5)])
def test_pictures(
    tmp_path: Path, picture: np.ndarray, name: str, dpi: int, mpp: float | None
) -> None:
    Image.fromarray(picture).save(tmp_path / name, dpi=(dpi, dpi))
    with open_slide(tmp_path / name) as slide:
        assert slide.mpp == (mpp and pytest.approx(mpp, rel=1e-3))


def test_the_callers_word_wins(tiff: Callable[..., Path], picture: np.ndarray) -> None:
    path = tiff(picture, resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    with open_slide(path, mpp=0.5) as slide:
        assert slide.mpp == 0.5
