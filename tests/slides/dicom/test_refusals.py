"""DICOM that cannot be read ends in one line that says why."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import dataset, frame_at, frames_of, instance, put_frames, pydicom, uid
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides import open_slide

Uint8 = NDArray[np.uint8]
Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"SOPClassUID": uid.CTImageStorage}, "is DICOM, but no whole slide image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, "there are: LABEL"),
        ({"BitsAllocated": 16}, "its pixels have 16 bits; 8 are expected"),
        (
            {"PhotometricInterpretation": "PALETTE COLOR"},
            "3 sample.s. of PALETTE COLOR are neither",
        ),
        ({"Rows": None}, "does not tell its Rows"),
        ({"Rows": 32}, "it has 20 frames where 35 are needed"),
        ({"NumberOfFrames": 19}, "its 20 items are not those of 19 frames"),
        ({"NumberOfFrames": 10**9}, "frames"),
        ({"TotalPixelMatrixColumns": 2**31}, "far too small for 2147483648 x 207 pixels"),
        ({"TotalPixelMatrixColumns": 0}, "is 0 x 207 pixels"),
        ({"PixelData": None}, "has no pixels"),
    ],
)
def test_elements(dicom: Write, picture: Uint8, elements: dict[str, Any], message: str) -> None:
    folder = dicom(instance(picture, **elements))
    with pytest.raises(InputError, match=message) as refused:
        open_slide(folder / "0.dcm")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (uid.RLELossless, "RLE"),
        (uid.JPEGLSLossless, "JPEG-LS"),
        (uid.JPEGLossless, "lossless JPEG"),
        (uid.MPEG2MPML, "transfer syntax 1.2.840.10008.1.2.4.100"),
    ],
)
def test_compressions(dicom: Write, picture: Uint8, syntax: str, name: str) -> None:
    made = instance(picture)
    made.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(InputError, match=f"are compressed as {name}, which is not read"):
        open_slide(dicom(made))


def test_channels(dicom: Write, picture: Uint8) -> None:
    grey = np.ascontiguousarray(picture[..., 0])
    made = instance(grey, colours="MONOCHROME2", NumberOfOpticalPaths=3)
    with pytest.raises(InputError, match="its 3 optical paths are separate grey images"):
        open_slide(dicom(made))


@pytest.mark.parametrize(
    ("place", "message"),
    [((10, 0), r"its frame at \(10, 0\) lies on no grid"), ((640, 0), "lies on no grid")],
)
def test_places(dicom: Write, picture: Uint8, place: tuple[int, int], message: str) -> None:
    made = instance(picture, sparse=True)
    made.PerFrameFunctionalGroupsSequence[0] = frame_at(*place)
    with pytest.raises(InputError, match=message):
        open_slide(dicom(made))


def test_frames_without_a_place(dicom: Write, picture: Uint8) -> None:
    made = instance(picture, sparse=True)
    made.PerFrameFunctionalGroupsSequence = list(made.PerFrameFunctionalGroupsSequence)[1:]
    with pytest.raises(InputError, match="it tells the places of 19 of 20 frames"):
        open_slide(dicom(made))


def test_more_items_than_frames(dicom: Write, picture: Uint8) -> None:
    made = instance(picture)
    put_frames(made, [*frames_of(made), *frames_of(made)[:3]], has_bot=False)
    made.NumberOfFrames = 20
    with pytest.raises(InputError, match="its 23 items are not those of 20 frames"):
        open_slide(dicom(made))


@pytest.mark.parametrize("has_table", [True, False])
def test_truncated(dicom: Write, picture: Uint8, has_table: bool) -> None:
    made = instance(picture)
    put_frames(made, frames_of(made), has_bot=has_table)
    file = dicom(made) / "0.dcm"
    with open_slide(file) as slide:
        whole = slide.read_level(0, 0, 301, 207)
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"0\.dcm: is truncated: \d of 20 tiles lie beyond") as cut:
        open_slide(file)
    missing = int(str(cut.value).split("truncated: ")[1].split()[0])
    with open_slide(file, on_error="blank") as slide:
        pixels = slide.read_level(0, 0, 301, 207)
        assert slide.blank_tiles == missing
    np.testing.assert_array_equal(pixels[:128], whole[:128])
    assert (pixels[-15:, -45:] == 255).all()


def test_a_damaged_frame_is_named(dicom: Write, picture: Uint8) -> None:
    made = instance(picture)
    frames = frames_of(made)
    frames[7] = bytes(len(frames[7]))
    put_frames(made, frames)
    with (
        open_slide(dicom(made)) as slide,
        pytest.raises(
            InputError, match=r"tile \(column 2, row 1\), at byte \d+ of 0\.dcm cannot be"
        ),
    ):
        slide.read_level(0, 0, 301, 207)


@pytest.mark.parametrize("syntax", [uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_files_written_otherwise(tmp_path: Path, syntax: str) -> None:
    made = dataset(SOPClassUID=uid.VLWholeSlideMicroscopyImageStorage, SOPInstanceUID="1.2")
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=r"a\.dcm: .*which is not read"):
        open_slide(tmp_path / "a.dcm")


def test_sequences_without_end(tmp_path: Path) -> None:
    """As deep as the file is long: they are not followed."""
    nested = bytes.fromhex("4800050153510000fffffffffeff00e0ffffffff") * 5000
    file = io.BytesIO()
    pydicom.dcmwrite(file, instance(np.zeros((64, 64, 3), np.uint8)), enforce_file_format=True)
    start = file.getvalue()[: file.getvalue().index(b"\x20\x00\x0e\x00UI")]
    (tmp_path / "a.dcm").write_bytes(start + nested)
    with pytest.raises(InputError, match="its sequences lie deeper"):
        open_slide(tmp_path / "a.dcm")


def test_masks(dicom: Write, picture: Uint8) -> None:
    from genselfdiff.slides.opening import open_mask

    with pytest.raises(InputError, match="a mask cannot be a folder"):
        open_mask(dicom(instance(picture)))
