import os
from pathlib import Path

import pytest

from genselfdiff.errors import InputError
from genselfdiff.slides import IMAGE_SUFFIXES, find_slides


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_recursively_in_sorted_order(tmp_path: Path) -> None:
    wanted = [tmp_path / name for name in ("a.SVS", "b/c.ome.tif", "b/d.png", "e.jpeg")]
    touch(*wanted, tmp_path / "notes.txt", tmp_path / "b" / "mask.npy")
    assert find_slides([tmp_path]) == wanted


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif", tmp_path / "._a.tif", tmp_path / ".cache" / "b.tif")
    assert find_slides([str(tmp_path)]) == [tmp_path / "a.tif"]


def test_the_parts_of_a_vms_slide_are_left_out(tmp_path: Path) -> None:
    slide, other = tmp_path / "a.vms", tmp_path / "b.jpg"
    touch(slide, other, tmp_path / "a.jpg", tmp_path / "a(1,0).jpg", tmp_path / "a_map2.jpg")
    assert find_slides([tmp_path]) == [slide, other]


def test_a_hidden_folder_may_be_named(tmp_path: Path) -> None:
    touch(tmp_path / ".data" / "a.tif")
    assert find_slides([tmp_path / ".data"]) == [tmp_path / ".data" / "a.tif"]


def test_named_files_are_kept_in_order_and_once(tmp_path: Path) -> None:
    first, second = tmp_path / "z.slide", tmp_path / "a.tif"
    touch(first, second)
    assert find_slides([first, tmp_path, second, first]) == [first, second]


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such file or folder"):
        find_slides([tmp_path / "nowhere"])
    with pytest.raises(InputError, match=r"no images in this folder; expected .*\.svs"):
        find_slides([tmp_path])
    with pytest.raises(InputError, match="no slide or image given"):
        find_slides([])


def test_suffixes_are_lower_case() -> None:
    assert {".svs", ".tif", ".tiff", ".png", ".jpg"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES)


def test_linked_folders_are_looked_into_once(tmp_path):
    touch(tmp_path / "elsewhere/deep/a.tif")
    folder = tmp_path / "slides"
    folder.mkdir()
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    (folder / "itself.tif").symlink_to(folder / "itself.tif")
    assert find_slides([folder]) == [folder / "again/deep/a.tif"]


def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path, monkeypatch, caplog):
    touch(tmp_path / "a.tif", tmp_path / "closed" / "b.tif")
    scandir = os.scandir

    def refusing(place):
        if Path(place) == tmp_path / "closed":
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    assert find_slides([tmp_path]) == [tmp_path / "a.tif"]
    assert f"{tmp_path / 'closed'}: left out, it cannot be looked into" in caplog.text


def test_what_is_no_file_is_left_out_and_told(tmp_path, caplog):
    touch(tmp_path / "a.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "gone.svs").symlink_to(tmp_path / "unmounted" / "gone.svs")
    os.mkfifo(tmp_path / "not-named-so")
    assert find_slides([tmp_path]) == [tmp_path / "a.tif"]
    left_out = [record.args[0].name for record in caplog.records]
    assert sorted(left_out) == ["gone.svs", "pipe.tif"]


def test_labels_and_what_was_cut_out_of_slides_are_none(tmp_path, caplog):
    fields = tmp_path / "fields"
    for part in ("images", "masks", "instances", "starts"):
        (fields / part).mkdir(parents=True)
        (fields / part / "a.png").touch()
    slide = tmp_path / "a.svs"
    slide.touch()
    assert len(find_slides([tmp_path])) == 5  # nothing says what they are
    (fields / "classes.csv").touch()
    image = fields / "images" / "a.png"
    with caplog.at_level("INFO", "genselfdiff"):
        assert find_slides([tmp_path]) == [slide, image, fields / "starts" / "a.png"]
    assert f"{fields / 'masks'}: labels, or cut out by corrections: left out" in caplog.text
    (fields / "corrections.journal").touch()
    assert find_slides([tmp_path]) == [slide]
    for part in ("images", "masks"):
        assert find_slides([fields / part]) == [fields / part / "a.png"]
    with pytest.raises(InputError, match=r"masks, .*cut out by corrections: name the folder that"):
        find_slides([fields])


def test_what_a_call_has_written_among_the_slides_is_none(tmp_path: Path) -> None:
    for name in ("a.svs", "out/tile.png", "outer/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = [tmp_path / "a.svs", tmp_path / "outer" / "b.png"]
    assert find_slides([tmp_path], tmp_path / "outer" / ".." / "out") == expected
    named = [tmp_path / "out" / "tile.png"]
    assert find_slides(named, tmp_path / "out") == named
    with pytest.raises(InputError, match="no images in this folder"):
        find_slides([tmp_path / "out"], tmp_path / "out")
