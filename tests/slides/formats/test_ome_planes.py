"""OME-TIFFs whose red, green and blue are images of their own, in one file or several."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides import find_slides, open_slide
from genselfdiff.slides.fingerprint import files_of, fingerprint
from genselfdiff.storage.places import Url

Uint8 = NDArray[np.uint8]

NAMES = ("Red", "Green", "Blue")
FILES = ("r.ome.tif", "g.ome.tif", "b.ome.tif")


def described(
    files: Sequence[str] = FILES, names: Sequence[str] = NAMES, uuid: str = "", places: str = ""
) -> str:
    """OME-XML of a file: channels of those names, one plane in each file, or as ``places``."""
    channels = "".join(f'<Channel ID="Channel:0:{i}" Name="{n}"/>' for i, n in enumerate(names))
    places = places or "".join(
        f'<TiffData FirstC="{i}"><UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
        for i, name in enumerate(files)
    )
    size = f'SizeX="602" SizeY="413" SizeC="{len(names)}" SizeZ="1" SizeT="1"'
    scale = 'PhysicalSizeX="0.25" PhysicalSizeY="0.25"'
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
        f' UUID="urn:uuid:{uuid}"><Image ID="Image:0"><Pixels DimensionOrder="XYCZT" Type="uint8"'
        f" {size} {scale}>{channels}{places}</Pixels></Image></OME>"
    )


def write_plane(path: Path, plane: NDArray[Any], description: str = "", **layout: Any) -> Path:
    """A plane, and a level of half the size in its SubIFD."""
    layout = {"photometric": "minisblack", "tile": (64, 64), "compression": "zlib"} | layout
    with tifffile.TiffWriter(path) as writer:
        writer.write(plane, subifds=1, description=description, metadata=None, **layout)
        writer.write(plane[::2, ::2], subfiletype=1, metadata=None, **layout)
    return path


@pytest.fixture
def written(tmp_path: Path, picture: Uint8) -> Callable[..., list[Path]]:
    """Write red, green and blue into files of their own, all of which describe all."""

    def write(**told: Any) -> list[Path]:
        return [
            write_plane(tmp_path / name, picture[..., i], described(uuid=name, **told))
            for i, name in enumerate(FILES)
        ]

    return write


def refused(path: Path, told: str) -> None:
    with pytest.raises(InputError, match=told), open_slide(path):
        pass


def test_each_file_stands_for_the_slide(
    picture: Uint8, written: Callable[..., list[Path]], tmp_path: Path
) -> None:
    for path in written():
        with open_slide(path) as slide:
            assert slide.mpp == pytest.approx(0.25)
            assert [level.width for level in slide.levels] == [602, 301]
            np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), picture)
            half = slide.read_level(0, 0, 301, 207, 1)
            np.testing.assert_array_equal(half, picture[::2, ::2])
        assert sorted(each.name for each in files_of(path)) == sorted(FILES)


def test_in_a_folder_they_are_one_slide(written: Callable[..., list[Path]], tmp_path: Path) -> None:
    red, green, blue = written()
    assert find_slides([tmp_path]) == [blue]  # the first by its name
    assert find_slides([red, green]) == [red, green]  # named, each is what was asked for


def test_tifffile_sees_the_same(picture: Uint8, written: Callable[..., list[Path]]) -> None:
    with tifffile.TiffFile(written()[0]) as tiff:
        (series,) = tiff.series
        np.testing.assert_array_equal(np.moveaxis(series.asarray(), 0, -1), picture)


def test_a_companion_alone_tells_of_them(tmp_path: Path, picture: Uint8) -> None:
    for i, name in enumerate(FILES):
        write_plane(tmp_path / name, picture[..., i])
    companion = tmp_path / "set.companion.ome"
    companion.write_text(described())
    with open_slide(companion) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), picture)
    before = fingerprint(companion)
    write_plane(tmp_path / FILES[2], 255 - picture[..., 2])
    assert fingerprint(companion) != before


def test_names_tell_the_order(tmp_path: Path, picture: Uint8) -> None:
    """One file with a directory for each, whose places one element tells."""
    path = tmp_path / "planes.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        text = described(names=("b", "R", "green"), places='<TiffData IFD="0" PlaneCount="3"/>')
        for channel in (2, 0, 1):
            layout = {"photometric": "minisblack", "tile": (64, 64), "metadata": None}
            writer.write(picture[..., channel], description=text.encode(), **layout)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), picture)


def test_planes_of_16_bits(tmp_path: Path, picture: Uint8) -> None:
    for i, name in enumerate(FILES):
        write_plane(tmp_path / name, picture[..., i] * np.uint16(257), described(uuid=name))
    with open_slide(tmp_path / FILES[0]) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), picture)


def test_channels_of_other_names_may_be_fluorescence(written: Callable[..., list[Path]]) -> None:
    for names in (("DAPI", "FITC", "TRITC"), ("Red", "Green", "Green"), ("", "", "")):
        refused(written(names=names)[0], "3 channels are separate grey images, .* nor called Red")


def test_files_that_are_not_these(
    written: Callable[..., list[Path]], picture: Uint8, tmp_path: Path
) -> None:
    path, green, blue = written()
    small = write_plane(tmp_path / "small.ome.tif", picture[::2, ::2, 1], described(uuid=FILES[1]))
    small.replace(green)
    refused(path, "are not three grey images stored alike")
    write_plane(green, picture[..., 1], described(uuid="another"))
    refused(path, r"its green is in a file g\.ome\.tif of another UUID than the one that is there")
    green.write_bytes(blue.read_bytes()[:300])
    refused(path, r"r\.ome\.tif: is no readable TIFF")
    green.unlink()
    refused(path, r"its green is in g\.ome\.tif, which is not beside it; put it there")
    refused(written(files=("r.ome.tif", "../g.ome.tif", "b.ome.tif"))[0], "names? a file beside it")
    refused(written(places='<TiffData IFD="0"/>')[0], "does not tell where its three planes are")


def test_damage_names_the_file(written: Callable[..., list[Path]]) -> None:
    path, green, _ = written()
    with tifffile.TiffFile(green) as tiff:
        offset = tiff.pages.first.dataoffsets[0]
    data = bytearray(green.read_bytes())
    data[offset : offset + 20] = bytes(20)
    green.write_bytes(data)
    with open_slide(path) as slide, pytest.raises(InputError, match=r"at byte \d+ of g\.ome\.tif"):
        slide.read_level(0, 0, 64, 64)


def test_by_url_they_have_to_be_in_one_file(
    written: Callable[..., list[Path]], picture: Uint8, tmp_path: Path
) -> None:
    bucket = pytest.importorskip("fsspec").filesystem("memory")
    bucket.pipe("/planes/r.ome.tif", written()[0].read_bytes())
    told = "memory://planes/r.ome.tif: its red, green and blue lie in several files, which are read"
    with pytest.raises(InputError, match=told):
        open_slide("memory://planes/r.ome.tif")
    grey = {"photometric": "minisblack", "tile": (64, 64)}
    named = {"axes": "CYX", "Channel": {"Name": NAMES}}
    planes = np.ascontiguousarray(np.moveaxis(picture, -1, 0))
    tifffile.imwrite(tmp_path / "one.ome.tif", planes, metadata=named, **grey)
    bucket.pipe("/planes/one.ome.tif", (tmp_path / "one.ome.tif").read_bytes())
    with open_slide("memory://planes/one.ome.tif") as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), picture)
    bucket.rm("/planes", recursive=True)


def test_a_file_of_all_planes_can_be_renamed(tmp_path: Path, picture: Uint8) -> None:
    path = tmp_path / "once.ome.tif"
    uuid = '<UUID FileName="once.ome.tif">urn:uuid:once</UUID>'
    places = "".join(f'<TiffData FirstC="{i}" IFD="{i}">{uuid}</TiffData>' for i in range(3))
    with tifffile.TiffWriter(path) as writer:
        text = described(uuid="once", places=places)
        for channel in range(3):
            layout = {"photometric": "minisblack", "tile": (64, 64), "metadata": None}
            writer.write(picture[..., channel], description=text.encode(), **layout)
    with open_slide(path.rename(tmp_path / "now.ome.tif")) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 602, 413), picture)


def test_planes_that_no_image_has_cost_nothing(written: Callable[..., list[Path]]) -> None:
    odd = '<TiffData FirstC="-999999999999" PlaneCount="999999999999"/>'
    refused(written(places=odd)[0], "does not tell where its three planes are")


def test_by_url_what_a_companion_describes_counts(tmp_path: Path, picture: Uint8) -> None:
    bucket = pytest.importorskip("fsspec").filesystem("memory")
    found = []
    for pixels in (picture, 255 - picture):
        tifffile.imwrite(tmp_path / "r.ome.tif", pixels, tile=(64, 64), metadata=None)
        bucket.pipe("/set/r.ome.tif", (tmp_path / "r.ome.tif").read_bytes())
        bucket.pipe("/set/a.companion.ome", described(files=FILES[:1]).encode())
        found.append(fingerprint(Url("memory://set/a.companion.ome")))
    assert found[0] != found[1]
    bucket.rm("/set", recursive=True)
