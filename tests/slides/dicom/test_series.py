"""Which files of a folder are one slide, and what is one slide of several."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from dicom_files import dataset, frames_of, instance, put_frames, uid
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.plan import plan_outputs
from genselfdiff.slides import find_slides, is_folder_of_slides, open_slide
from genselfdiff.slides.discovery import name_of
from genselfdiff.slides.fingerprint import files_of, fingerprint
from genselfdiff.storage.places import Url
from genselfdiff.viewer.collection import collect

if TYPE_CHECKING:
    from pydicom import Dataset

Uint8 = NDArray[np.uint8]
Write = Callable[..., Path]

LOSSLESS = {"syntax": uid.JPEG2000Lossless, "colours": "YBR_RCT"}


def concatenated(made: "Dataset", sizes: Sequence[int]) -> list["Dataset"]:
    """The frames of an instance in several."""
    frames, parts, first = frames_of(made), [], 0
    for number, size in enumerate(sizes, 1):
        part = dataset(**{element.keyword: element.value for element in made})
        part.file_meta = made.file_meta
        part.SOPInstanceUID = uid.generate_uid()
        part.ConcatenationUID = "1.2.8"
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number, len(sizes)
        part.ConcatenationFrameOffsetNumber = first
        if "PerFrameFunctionalGroupsSequence" in made:
            groups = list(made.PerFrameFunctionalGroupsSequence)
            part.PerFrameFunctionalGroupsSequence = groups[first : first + size]
        put_frames(part, frames[first : first + size])
        parts.append(part)
        first += size
    return parts


def test_a_folder_is_segmented_and_shown(
    dicom: Write, picture: Uint8, tmp_path: Path, darkness_model: Path
) -> None:
    folder = dicom(instance(picture, 0.5, **LOSSLESS), folder="1.2.840.17")
    (done,) = segment_all(plan_outputs([folder], f"{tmp_path}/out/"), darkness_model, tissue=False)
    assert done.error is None
    mask = tmp_path / "out" / "1.2.840.17_mask.tif"
    assert tifffile.imread(mask).shape == (207, 301)
    (entry,) = collect([folder, mask])
    assert (entry.slide, entry.layers) == (folder, [mask])
    (again,) = segment_all(plan_outputs([folder], f"{tmp_path}/out/"), darkness_model, tissue=False)
    assert again.result.finished_before


@pytest.mark.parametrize("sparse", [False, True])
def test_a_concatenation_is_one_level(dicom: Write, picture: Uint8, sparse: bool) -> None:
    parts = concatenated(instance(picture, sparse=sparse, **LOSSLESS), [7, 12, 1])
    folder = dicom(parts[2], parts[0], parts[1], instance(picture[::2, ::2], 1.0, **LOSSLESS))
    with open_slide(folder) as slide:
        assert len(slide.levels) == 2
        np.testing.assert_array_equal(slide.read_level(0, 0, 301, 207), picture)


def test_a_concatenation_lacks_a_file(dicom: Write, picture: Uint8) -> None:
    parts = concatenated(instance(picture, **LOSSLESS), [7, 12, 1])
    with pytest.raises(InputError, match=r"a: a level of it is stored in 3 files, and part 2 is"):
        open_slide(dicom(parts[0], parts[2], folder="a"))
    with pytest.raises(InputError, match="one is there twice"):
        open_slide(dicom(*parts, parts[1], folder="b"))
    parts[1].ConcatenationFrameOffsetNumber = 8
    with pytest.raises(InputError, match=r"1\.dcm: does not go on where 0\.dcm ends"):
        open_slide(dicom(*parts, folder="c"))


def test_a_folder_of_one_series_is_a_slide(dicom: Write, picture: Uint8, tmp_path: Path) -> None:
    folder = dicom(
        instance(picture, **LOSSLESS),
        instance(picture[::2, ::2], 1.0, **LOSSLESS),
        instance(picture[:64, :64], ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"]),
        folder="1.2.840.17",
    )
    (folder / "notes.txt").touch()
    assert not is_folder_of_slides(folder)
    assert find_slides([folder]) == find_slides([tmp_path]) == [folder]
    assert name_of(folder) == "1.2.840.17"
    assert plan_outputs([folder], tmp_path / "mask.tif").pairs == ((folder, tmp_path / "mask.tif"),)
    masks = plan_outputs([tmp_path], tmp_path / "out").pairs
    assert masks == ((folder, tmp_path / "out" / "1.2.840.17_mask.tif"),)
    for path in (folder, folder / "0.dcm", folder / "2.dcm"):
        with open_slide(path) as slide:
            assert [level.width for level in slide.levels] == [301, 151]


def test_what_lies_beside_a_series_is_found_too(dicom: Write, picture: Uint8) -> None:
    folder = dicom(instance(picture))
    tifffile.imwrite(folder / "a.tif", picture, photometric="rgb")
    assert is_folder_of_slides(folder)
    assert find_slides([folder]) == [folder, folder / "a.tif"]


def test_a_folder_of_several_series_holds_several_slides(
    dicom: Write, picture: Uint8, tmp_path: Path
) -> None:
    made = [
        instance(p, s, series=u) for u in "12" for p, s in ((picture, 0.5), (picture[::2, ::2], 1))
    ]
    folder = dicom(*made)
    assert is_folder_of_slides(folder)
    assert find_slides([folder]) == [folder / "0.dcm", folder / "2.dcm"]
    masks = [mask.name for _, mask in plan_outputs([folder], tmp_path / "out").pairs]
    assert masks == ["0_mask.tif", "2_mask.tif"]
    assert files_of(folder / "3.dcm") == [folder / "2.dcm", folder / "3.dcm"]
    with pytest.raises(InputError, match="is a folder; name a slide or image in it"):
        open_slide(folder)
    with open_slide(folder / "3.dcm") as slide:
        assert len(slide.levels) == 2


def test_all_files_of_a_series_are_in_its_fingerprint(dicom: Write, picture: Uint8) -> None:
    folder = dicom(instance(picture), instance(picture[::2, ::2], 1.0))
    before = fingerprint(folder), fingerprint(folder / "0.dcm")
    (folder / "notes.txt").touch()
    assert (fingerprint(folder), fingerprint(folder / "0.dcm")) == before
    dicom(instance(picture[:128:2, ::2], 1.0), first=1)
    assert fingerprint(folder) != before[0]
    assert fingerprint(folder / "0.dcm") != before[1]


def test_files_without_an_ending_or_hidden_are_in_it_too(dicom: Write, picture: Uint8) -> None:
    bucket = pytest.importorskip("fsspec").filesystem("memory")
    folder = dicom(instance(picture, 0.5, **LOSSLESS), instance(picture[::2, ::2], 1.0))
    found, at_urls = [], []
    for level in (picture, 255 - picture):
        second = dicom(instance(level[::2, ::2], 1.0, **LOSSLESS), first=1)
        for number in (0, 1):
            bucket.pipe(f"/series/I{number}", (second / f"{number}.dcm").read_bytes())
        at_urls.append(fingerprint(Url("memory://series/I0")))
        hidden = (second / "0.dcm").rename(second / ".hidden.dcm")
        found.append((fingerprint(hidden), [path.name for path in files_of(hidden)]))
        hidden.rename(folder / "0.dcm")
    assert at_urls[0] != at_urls[1]
    assert found[0][0] != found[1][0]
    assert found[0][1] == [".hidden.dcm", "1.dcm"]
    bucket.rm("/series", recursive=True)


def test_of_several_images_the_largest_is_read(
    dicom: Write, picture: Uint8, caplog: pytest.LogCaptureFixture
) -> None:
    folder = dicom(
        instance(picture[:200, :200], **LOSSLESS, PyramidUID="1.2"),
        instance(picture, **LOSSLESS, PyramidUID="1.1"),
        instance(picture[::2, ::2], **LOSSLESS, PyramidUID="1.1"),
        instance(255 - picture[::4, ::4], **LOSSLESS, PyramidUID="1.2"),
    )
    with caplog.at_level(logging.WARNING), open_slide(folder) as slide:
        assert [level.width for level in slide.levels] == [301, 151]
        np.testing.assert_array_equal(slide.read_level(0, 0, 301, 207), picture)
    told = "301 x 207 pixels is read, others in the series are not: 200 x 200, 76 x 52"
    assert told in caplog.text


def test_the_size_of_pixels(dicom: Write, picture: Uint8) -> None:
    shared = {"SharedFunctionalGroupsSequence": None}
    with open_slide(dicom(instance(picture, 0.25, **shared), folder="volume")) as slide:
        assert slide.mpp == pytest.approx(0.25)
    nothing = {**shared, "ImagedVolumeWidth": None, "ImagedVolumeHeight": None}
    with open_slide(dicom(instance(picture, **nothing), folder="none")) as slide:
        assert slide.mpp is None


def test_what_is_called_dicom_and_is_none_is_told(
    dicom: Write, picture: Uint8, caplog: pytest.LogCaptureFixture
) -> None:
    folder = dicom(instance(picture))
    (folder / "notes.dcm").write_text("no image")
    assert find_slides([folder]) == [folder]
    find_slides([folder.parent])
    told = [record.message for record in caplog.records]
    assert len(told) == 1 and told[0].endswith(f": 1 file, the first {folder / 'notes.dcm'}")
