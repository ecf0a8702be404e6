"""What is read of a DICOM slide is what was written, and what OpenSlide reads of it."""

import logging
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from dicom_files import (
    TILE,
    dataset,
    encoded,
    frame_at,
    frames_of,
    instance,
    put_frames,
    pydicom,
    uid,
)
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides import open_slide
from genselfdiff.slides.formats.dicom.elements import KEYWORDS

Uint8 = NDArray[np.uint8]


def read(path: Path, level: int = 0) -> NDArray[np.int64]:
    with open_slide(path) as slide:
        size = slide.levels[level].width, slide.levels[level].height
        return slide.read_level(0, 0, *size, level).astype(int)


def through_openslide(path: Path, level: int = 0) -> NDArray[np.int64]:
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(path) as slide:
        region = slide.read_region((0, 0), level, slide.level_dimensions[level])
    rgba = np.asarray(region).astype(int)
    return np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])


def test_elements_are_those_of_the_standard() -> None:
    told = pydicom.datadict
    for tag, (keyword, kind) in KEYWORDS.items():
        assert (told.keyword_for_tag(tag), told.dictionary_VR(tag)) == (keyword, kind)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("syntax", "colours", "most"),
    [
        (uid.ExplicitVRLittleEndian, "RGB", 0),
        (uid.ImplicitVRLittleEndian, "RGB", 0),
        (uid.JPEGBaseline8Bit, "YBR_FULL_422", 4),
        (uid.JPEGBaseline8Bit, "RGB", 4),
        (uid.JPEG2000Lossless, "YBR_RCT", 0),
        (uid.JPEG2000Lossless, "RGB", 0),
        (uid.JPEG2000, "YBR_ICT", 4),
        (uid.HTJ2KLossless, "YBR_RCT", 0),
    ],
)
def test_levels(
    dicom: Callable[..., Path],
    picture: Uint8,
    syntax: str,
    colours: str,
    most: float,
    sparse: bool,
) -> None:
    steps = (1, 2, 4)
    made = [instance(picture[::s, ::s], 0.5 * s, syntax, colours, sparse and s == 1) for s in steps]
    folder = dicom(*made[::-1])
    with open_slide(folder) as slide:
        sizes = [(level.width, level.height, level.downsample) for level in slide.levels]
        assert sizes == [(301, 207, 1), (151, 104, 2), (76, 52, 4)]
        assert slide.mpp == pytest.approx(0.5)
        seen = slide.read_level(70, 60, 200, 130)
    np.testing.assert_array_equal(seen, read(folder)[60:190, 70:270])
    for level, step in enumerate(steps):
        pixels = read(folder, level)
        difference = abs(pixels - picture[::step, ::step])
        assert difference.mean() <= most
        if syntax not in (uid.ImplicitVRLittleEndian, uid.HTJ2KLossless):  # which it does not read
            np.testing.assert_array_equal(pixels, through_openslide(folder / "0.dcm", level))


def test_grey(dicom: Callable[..., Path], picture: Uint8) -> None:
    grey = np.ascontiguousarray(picture[..., 0])
    for number, colours in enumerate(("MONOCHROME2", "MONOCHROME1")):
        made = instance(grey, syntax=uid.JPEG2000Lossless, colours=colours)
        pixels = read(dicom(made, folder=colours))
        shown = 255 - grey if number else grey
        np.testing.assert_array_equal(pixels, np.repeat(shown[..., None], 3, axis=2))


def test_planes_and_ycbcr_without_compression(dicom: Callable[..., Path], picture: Uint8) -> None:
    made = instance(picture, syntax=uid.ExplicitVRLittleEndian, colours="RGB")
    tiles = np.frombuffer(made.PixelData, np.uint8).reshape(-1, TILE, TILE, 3)
    planes = [np.ascontiguousarray(np.moveaxis(tile, -1, 0)).tobytes() for tile in tiles]
    put_frames(made, planes)
    made.PlanarConfiguration = 1
    np.testing.assert_array_equal(read(dicom(made, folder="planes")), picture)
    ycbcr = np.full((70, 70, 3), (76, 85, 255), np.uint8)
    made = instance(ycbcr, syntax=uid.ExplicitVRLittleEndian, colours="YBR_FULL")
    assert abs(read(dicom(made, folder="ycbcr")) - (254, 0, 0)).max() <= 1


def silent(jpeg: bytes) -> bytes:
    """A JPEG whose components tell nothing of their colours, and no marker does."""
    data = bytearray(jpeg)
    at = data.find(b"\xff\xee")
    del data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    for marker, first, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):
        at = data.find(marker)
        for component in range(3):
            data[at + first + step * component] = component + 1
    return bytes(data)


def test_rgb_in_jpegs_that_do_not_tell(dicom: Callable[..., Path], picture: Uint8) -> None:
    made = instance(picture, colours="RGB")
    put_frames(made, [silent(frame) for frame in frames_of(made)])
    pixels = read(dicom(made))
    assert abs(pixels - picture).max() <= 6
    np.testing.assert_array_equal(pixels, through_openslide(dicom(made) / "0.dcm"))


def test_ycbcr_in_jpeg_2000_that_does_not_tell(dicom: Callable[..., Path], picture: Uint8) -> None:
    made = instance(picture, colours="YBR_FULL", syntax=uid.JPEG2000)
    red = np.full((TILE, TILE, 3), (76, 85, 255), np.uint8)
    frame = imagecodecs.jpeg2k_encode(red, codecformat="j2k", mct=False, level=0, reversible=True)
    put_frames(made, [frame] * made.NumberOfFrames)
    assert abs(read(dicom(made)) - (254, 0, 0)).max() <= 1


def test_tiles_that_are_not_stored(dicom: Callable[..., Path], picture: Uint8) -> None:
    """At level 0 they are glass; a coarser level is made of the finer one."""
    lossless = {"syntax": uid.JPEG2000Lossless, "colours": "YBR_RCT", "sparse": True}
    folder = dicom(
        instance(picture, without={3}, **lossless),
        instance(picture[::2, ::2], 1.0, without={0}, **lossless),
    )
    pixels = read(folder)
    expected = picture.copy()
    expected[:TILE, 3 * TILE : 4 * TILE] = 255
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(pixels, through_openslide(folder / "0.dcm"))
    coarse = read(folder, 1)
    assert abs(coarse[:TILE, :TILE] - picture[: 2 * TILE : 2, : 2 * TILE : 2]).mean() < 12
    np.testing.assert_array_equal(coarse[:, TILE:], picture[::2, 2 * TILE :: 2])


@pytest.mark.parametrize(
    "kind", ["table", "none", "extended", "fragments", "wrong", "fragments and table"]
)
def test_where_frames_are_told(dicom: Callable[..., Path], picture: Uint8, kind: str) -> None:
    made = instance(picture, syntax=uid.JPEG2000Lossless, colours="YBR_RCT")
    frames = frames_of(made)
    if kind == "extended":
        made.PixelData, made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths = (
            pydicom.encaps.encapsulate_extended(frames)
        )
    else:
        fragments = 3 if kind.startswith("fragments") else 1
        has_table = kind not in ("none", "fragments")
        put_frames(made, frames, has_bot=has_table, fragments_per_frame=fragments)
    if kind == "wrong":  # as a table of 32 bits beyond 4 GiB
        data = bytearray(made.PixelData)
        data[8 + 4 * 10 : 8 + 4 * 11] = bytes(4)
        made.PixelData = bytes(data)
    folder = dicom(made)
    np.testing.assert_array_equal(read(folder), picture)


def test_sequences_of_undefined_length(dicom: Callable[..., Path], picture: Uint8) -> None:
    """Others are passed over, with pictures in them."""
    made = instance(picture, sparse=True, syntax=uid.JPEG2000Lossless, colours="YBR_RCT")
    icon = dataset(Rows=8, Columns=8)
    put_frames_of_icon = instance(picture[:TILE, :TILE])
    icon.PixelData = put_frames_of_icon.PixelData
    icon["PixelData"].VR, icon["PixelData"].is_undefined_length = "OB", True
    made.IconImageSequence = [icon]
    for sequence in (
        made["IconImageSequence"],
        made["PerFrameFunctionalGroupsSequence"],
        made.PerFrameFunctionalGroupsSequence[0]["PlanePositionSlideSequence"],
    ):
        sequence.is_undefined_length = True
        sequence.value[0].is_undefined_length_sequence_item = True
    np.testing.assert_array_equal(read(dicom(made)), picture)


@pytest.mark.parametrize("sparse", [False, True])
def test_of_focal_planes_the_first_is_read(
    dicom: Callable[..., Path], picture: Uint8, sparse: bool, caplog: pytest.LogCaptureFixture
) -> None:
    made = instance(picture, syntax=uid.JPEG2000Lossless, colours="YBR_RCT", sparse=sparse)
    frames, others = (
        frames_of(made),
        frames_of(instance(255 - picture, syntax=uid.JPEG2000Lossless, colours="YBR_RCT")),
    )
    if sparse:
        groups = list(made.PerFrameFunctionalGroupsSequence)
        deeper = [frame_at(0, 0, depth=1.5) for _ in groups]
        made.PerFrameFunctionalGroupsSequence = groups + deeper
    put_frames(made, frames + others)
    made.TotalPixelMatrixFocalPlanes = 2
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read(dicom(made)), picture)
    assert "focal planes; only the first is read" in caplog.text


def test_of_optical_paths_the_first_is_read(
    dicom: Callable[..., Path], picture: Uint8, caplog: pytest.LogCaptureFixture
) -> None:
    made = instance(picture, sparse=True, syntax=uid.JPEG2000Lossless, colours="YBR_RCT")
    black = encoded(np.zeros((TILE, TILE, 3), np.uint8), uid.JPEG2000Lossless, "YBR_RCT")
    put_frames(made, [black, *frames_of(made)])
    groups = list(made.PerFrameFunctionalGroupsSequence)
    made.PerFrameFunctionalGroupsSequence = [frame_at(0, 0, path="2"), *groups]
    made.OpticalPathSequence = [dataset(OpticalPathIdentifier=path) for path in "12"]
    made.NumberOfOpticalPaths = 2
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read(dicom(made)), picture)
    assert "optical paths" in caplog.text


def test_of_one_plane_all_frames_are_read_whatever_their_depth_and_path(
    dicom: Callable[..., Path], picture: Uint8
) -> None:
    """Focus may follow the tissue, and one path may be called anything."""
    made = instance(picture, sparse=True, syntax=uid.JPEG2000Lossless, colours="YBR_RCT")
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSlideSequence[0].ZOffsetInSlideCoordinateSystem = 0.1 * (number % 3)
        group.OpticalPathIdentificationSequence[0].OpticalPathIdentifier = "bright"
    np.testing.assert_array_equal(read(dicom(made)), picture)


def test_a_slide_of_which_no_frame_is_read_is_refused(
    dicom: Callable[..., Path], picture: Uint8
) -> None:
    made = instance(picture, sparse=True, syntax=uid.JPEG2000Lossless, colours="YBR_RCT")
    made.OpticalPathSequence = [dataset(OpticalPathIdentifier=path) for path in "23"]
    made.NumberOfOpticalPaths = 2
    with pytest.raises(InputError, match="none of its frames is of its first optical path"):
        read(dicom(made))
