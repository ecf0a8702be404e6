"""OME-TIFFs in several files: metadata in a companion, planes in other files."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides import open_slide
from genselfdiff.slides.fingerprint import fingerprint

Uint8 = NDArray[np.uint8]

COMPANION = "set.companion.ome"
BINARY_ONLY = f'<BinaryOnly MetadataFile="{COMPANION}" UUID="urn:uuid:0"/>'


def ome(content: str) -> str:
    namespace = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{namespace}">{content}</OME>'


def image(names: list[str], width: int, height: int) -> str:
    """An RGB image whose planes lie in files, one each."""
    data = "".join(
        f'<TiffData FirstZ="{i}" IFD="0"><UUID FileName="{name}">urn:uuid:{i}</UUID></TiffData>'
        for i, name in enumerate(names)
    )
    size = f'SizeX="{width}" SizeY="{height}" SizeZ="{len(names)}" SizeC="3" SizeT="1"'
    scale = 'PhysicalSizeX="0.25" PhysicalSizeY="0.25"'
    channel = '<Channel ID="Channel:0:0" SamplesPerPixel="3"/>'
    pixels = f'<Pixels DimensionOrder="XYCZT" Type="uint8" {size} {scale}>{channel}{data}</Pixels>'
    return f'<Image Name="slide">{pixels}</Image>'


@pytest.fixture
def written(tmp_path: Path, picture: Uint8) -> Callable[..., list[Path]]:
    """Planes 0.ome.tif, 1.ome.tif ... with that description, each a pyramid in SubIFDs."""

    def write(description: str, count: int = 2) -> list[Path]:
        paths = [tmp_path / f"{i}.ome.tif" for i in range(count)]
        layout = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib", "metadata": None}
        for i, path in enumerate(paths):
            with tifffile.TiffWriter(path) as writer:
                pixels = picture + np.uint8(i)
                writer.write(pixels, subifds=1, description=description, **layout)
                writer.write(pixels[::2, ::2], subfiletype=1, **layout)
        return paths

    return write


def test_metadata_in_a_companion(
    tmp_path: Path, picture: Uint8, written: Callable[..., list[Path]]
) -> None:
    paths = written(ome(BINARY_ONLY))
    label = image(["9.ome.tif"], 80, 60)
    companion = tmp_path / COMPANION
    companion.write_text(ome(label + image([path.name for path in paths], 602, 413)))
    for path, plane in ((paths[0], 0), (paths[1], 1), (companion, 0)):
        with open_slide(path) as slide:
            assert slide.mpp == pytest.approx(0.25)
            assert [level.width for level in slide.levels] == [602, 301]
            seen = slide.read_level(0, 0, 602, 413)
        np.testing.assert_array_equal(seen, picture + np.uint8(plane))
        np.testing.assert_array_equal(seen, tifffile.TiffFile(paths[plane]).pages[0].asarray())


def test_a_companion_that_is_missing(
    tmp_path: Path, picture: Uint8, written: Callable[..., list[Path]]
) -> None:
    path, _ = written(ome(BINARY_ONLY))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), picture)
        told = r"0\.ome\.tif: has its metadata in set\.companion\.ome, which is not beside it; give"
        with pytest.raises(InputError, match=told):
            slide.at_mpp(0.5)
    elsewhere = ome(BINARY_ONLY.replace(COMPANION, f"../{COMPANION}"))
    (tmp_path.parent / COMPANION).write_text(ome(image(["0.ome.tif"], 602, 413)))
    with open_slide(written(elsewhere)[0]) as slide:
        assert slide.mpp is None


def test_a_file_that_a_companion_names_is_missing(tmp_path: Path) -> None:
    companion = tmp_path / COMPANION
    for content, told in (
        (
            ome(image(["gone.ome.tif"], 602, 413)),
            "its image is in gone.ome.tif, which is not beside",
        ),
        (ome(image(["../0.ome.tif"], 602, 413)), "does not name the file of its image"),
        (ome(""), "is no OME-XML that describes an image"),
        ("text", "is no OME-XML that describes an image"),
    ):
        companion.write_text(content)
        with pytest.raises(InputError, match=told):
            open_slide(companion)


def test_one_file_of_a_stack(
    picture: Uint8, written: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    paths = written(ome(image(["0.ome.tif", "1.ome.tif"], 602, 413)))
    with caplog.at_level(logging.WARNING), open_slide(paths[1]) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), picture + np.uint8(1))
    assert f"{paths[1]}: is one of 2 files of a stack; only what is in it is read" in caplog.text


def test_a_changed_companion_makes_another_slide(
    tmp_path: Path, written: Callable[..., list[Path]]
) -> None:
    path, _ = written(ome(BINARY_ONLY))
    companion = tmp_path / COMPANION
    companion.write_text(ome(image([path.name], 602, 413)))
    before = fingerprint(path), fingerprint(companion)
    (tmp_path / "b.companion.ome").write_text(ome(image(["another.ome.tif"], 602, 413)))
    assert (fingerprint(path), fingerprint(companion)) == before
    companion.write_text(companion.read_text().replace("0.25", "0.50"))
    assert fingerprint(path) != before[0]
    assert fingerprint(companion) != before[1]


def test_isyntax(tmp_path: Path) -> None:
    path = tmp_path / "a.isyntax"
    path.write_text('<DataObject ObjectType="DPUfsImport">')
    with pytest.raises(InputError, match=r"a\.isyntax: iSyntax of Philips is not read; export it"):
        open_slide(path)
