"""A folder of labelled images: what is written, and what is not lost."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genselfdiff.data.folder_parts import replacing
from genselfdiff.data.folder_settings import folder_settings
from genselfdiff.data.labelled.masks import read_mask
from genselfdiff.data.labelled.pairs import find_pairs, inspect_masks
from genselfdiff.data.labelled_folder import PARTS, LabelledField, Written, write_fields
from genselfdiff.errors import InputError, OutputError


def field(name: str, instances: np.ndarray | None = None) -> LabelledField:
    shape = (6, 8) if instances is None else instances.shape
    classes = np.zeros(shape, np.uint8)
    classes[1:3] = 1
    image = np.full((*shape, 3), len(name), np.uint8)
    return LabelledField(name, image, classes, instances, 0.5, Path("labels.xml"))


def write(folder: Path, *names: str, overwrite: bool = False) -> Written:
    return write_fields(folder, ["background", "x"], map(field, names), overwrite=overwrite)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("count", "highest", "file", "dtype"),
    [
        (65_534, 65_534, "a.png", np.uint16),
        (65_535, 65_535, "a.tif", np.uint32),
        (90_000, 2**31 - 1, "a.tif", np.uint32),
        (3, 2**31 - 1, "a.png", np.uint16),
    ],
)
def test_numbers_of_objects_stay_apart(
    tmp_path: Path, count: int, highest: int, file: str, dtype: type
) -> None:
    instances = np.zeros(300 * 310, np.int32)
    instances[-count:] = np.arange(highest - count + 1, highest + 1)
    instances = instances.reshape(300, 310)
    out = tmp_path / "out"
    result = write_fields(out, ["background", "x"], [field("a", instances)])
    assert result.objects == count
    assert os.listdir(out / "instances") == [file]
    stored = read_mask(out / "instances" / file)
    assert stored.dtype == dtype
    found, places = np.unique(stored, return_inverse=True)
    assert len(found) == count + 1
    assert ((stored == 0) == (instances == 0)).all()
    assert not (stored == 255).any()
    assert (np.diff(places.ravel()[-count:]) == 1).all()
    assert find_pairs(out / "images", out / "instances")


def test_what_nobody_has_labelled_is_that_in_the_numbers_of_objects_too(tmp_path: Path) -> None:
    numbers = np.arange(250, 250 + 48, dtype=np.int32).reshape(6, 8)
    labelled = field("a", numbers)
    labelled.classes[2:4] = 255
    write_fields(tmp_path / "out", ["background", "x"], [labelled])
    stored = read_mask(tmp_path / "out" / "instances" / "a.png")
    np.testing.assert_array_equal(stored == 255, labelled.classes == 255)
    assert len(np.unique(stored)) == 48 - 16 + 1


@pytest.mark.parametrize("folder", ["my fields", "it's", "a;b", os.fsdecode(b"f\xe4lle")])
@pytest.mark.parametrize("name", ["Barrett's", "Tumor, high grade", "=1+1", "'"])
def test_the_next_command_can_be_pasted(tmp_path: Path, folder: str, name: str) -> None:
    out = tmp_path / folder
    told = write_fields(out, ["background", name], [field("a")]).summary()
    command = told.splitlines()[-1].removeprefix("next: ")
    if "\udce4" not in folder:
        assert shlex.split(command)[:3] == ["gsd", "train", "finetune"]
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        check=True,
    )
    words = os.fsdecode(shown.stdout).split("\0")
    assert words[3] == str(out)
    assert words[4:-1] == ["--init", "nuclei", "--out", f"{out}-run"]
    assert folder_settings(out)["classes"] == ("background", name)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    ("classes", "objects", "taken"),
    [
        (["x"], (2, 1), True),
        (["x"], (1, 1), False),  # nothing is told apart
        (["x"], (2, None), False),
        (["x", "y"], (2, 2), False),
    ],
)
def test_the_next_command_takes_numbers_of_objects_where_training_would(
    tmp_path: Path, classes: list[str], objects: tuple[int | None, ...], taken: bool
) -> None:
    numbers = [None if n is None else np.arange(48, dtype=np.int32) % (n + 1) for n in objects]
    images = [
        field(name, None if found is None else found.reshape(6, 8))
        for name, found in zip("ab", numbers, strict=True)
    ]
    out = tmp_path / "out"
    told = write_fields(out, ["background", *classes], images).summary()
    words = shlex.split(told.splitlines()[-1])[1:]
    assert ("--instances" in words) is taken
    if taken:
        settings = folder_settings(out, instances=True)
        pairs = find_pairs(settings["images"], settings["masks"])
        assert inspect_masks(pairs, True, ignore_label=255).numbered
    assert "two images at least" not in told


def test_what_the_next_command_lacks_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    unknown = replace(field("a"), mpp=None)
    told = write_fields(Path(), ["background", "x"], [unknown]).summary().splitlines()
    assert told[0] == ".: 1 labelled image"
    assert "training takes two images at least, of which one validates" in told
    assert "no image tells its resolution: add --mpp, in um/px" in told
    assert told[-1] == "next: gsd train finetune . --init nuclei --out run"
    told = write_fields(Path("b"), ["background", "x"], [field("b"), unknown]).summary()
    assert told.endswith("next: gsd train finetune b --init nuclei --mpp 0.5 --out b-run")
    for taken, free in (("b-run", "b-run2"), ("b-run2", "b-run3")):
        Path(taken).mkdir()
        again = write_fields(Path("b"), ["background", "x"], [field("b")], overwrite=True)
        assert again.summary().endswith(f" --out {free}")


FOREIGN = [".hidden", "images/.notes", "images/mine.png", "masks/a.txt", "instances/b.png"]


@pytest.mark.parametrize("name", FOREIGN)
def test_nothing_is_lost_that_the_import_did_not_write(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    write(out, "a", "=1+1", os.fsdecode(b"b\xe4"))
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    before = contents(out)
    with pytest.raises(OutputError, match="is there already"):
        write(out, "c")
    if name == ".hidden":
        write(out, "c", overwrite=True)
        assert contents(out).keys() == {name, "images/c.tif", "masks/c.png", *PARTS[3:]}
    else:
        with pytest.raises(OutputError, match=f"{name}: not written by the import"):
            write(out, "c", overwrite=True)
        assert contents(out) == before
        (out / name).unlink()
        write(out, "c", overwrite=True)
        assert (out / "images/c.tif").exists()
    assert not list(out.glob(".import.*"))


@pytest.mark.parametrize("part", ["images", "masks", "classes.csv"])
def test_links_in_place_of_parts_are_kept(tmp_path: Path, part: str) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    write(out, "a")
    (out / part).rename(elsewhere)
    (out / part).symlink_to(elsewhere)
    with pytest.raises(OutputError, match=f"{part}: not written by the import"):
        write(out, "b", overwrite=True)
    assert elsewhere.exists() and (out / part).is_symlink()


def test_hidden_folders_of_others_are_kept(tmp_path: Path) -> None:
    for name in (".import.notes", ".import.0123abcd", ".import.0123abce"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "mine").write_text("mine")
    (tmp_path / "out/.import.0123abcf").symlink_to(tmp_path)
    (tmp_path / "out/.import.file").write_text("mine")
    before = contents(tmp_path / "out")
    write(tmp_path / "out", "a", overwrite=True)
    assert before.items() <= contents(tmp_path / "out").items()


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("read", ["images/a.tif", "masks/a.png"])
def test_an_import_does_not_replace_what_it_reads(
    tmp_path: Path, read: str, is_linked: bool
) -> None:
    out, there = tmp_path / "out", tmp_path / "out"
    write(out, "a")
    before = contents(out)
    if is_linked:
        there = tmp_path / "link"
        there.symlink_to(out)
    kind = "image" if read.startswith("images") else "source"
    fields = [field("b"), replace(field("c"), **{kind: there / read})]
    with pytest.raises(OutputError, match=f"{Path(read).parent}: holds an input"):
        write_fields(out, ["background", "x"], fields, overwrite=True)
    assert contents(out) == before


def test_names_that_are_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels\.xml: two images would be called a"):
        write(tmp_path / "out", "a", "b", "a")
    assert not (tmp_path / "out").exists()
    write(tmp_path / "out", "A", "a")
    assert contents(tmp_path / "out").keys() >= {"images/A.tif", "images/a.tif"}


def test_a_second_import_into_a_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "a")
    before = contents(out)

    def fields() -> Iterator[LabelledField]:
        yield field("b")
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="another process is writing into it"):
                write(out, "c", overwrite=overwrite)
        assert before.items() <= contents(out).items()
        yield field("d")

    result = write_fields(out, ["background", "x"], fields(), overwrite=True)
    assert result.fields == 2
    assert {path.name for path in (out / "images").iterdir()} == {"b.tif", "d.tif"}
    assert not list(out.glob(".*"))


def test_a_second_import_into_a_new_folder_does_not_remove_it(tmp_path: Path) -> None:
    def fields() -> Iterator[LabelledField]:
        with pytest.raises(OutputError, match="another process is writing into it"):
            write(tmp_path / "out", "c")
        yield field("a")

    write_fields(tmp_path / "out", ["background", "x"], fields())
    assert (tmp_path / "out/images/a.tif").exists()


def stop_at_rename(monkeypatch: pytest.MonkeyPatch, stop: int, how: Callable[[], None]) -> None:
    rename, calls = Path.rename, []

    def counted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == stop + 1:
            how()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", counted)


def replace_parts(folder: Path, monkeypatch: pytest.MonkeyPatch, stop: int, how: Callable) -> None:
    with replacing(folder, SWAPPED) as begun:
        for part in ("first", "new", "last"):
            (begun / part).write_text("new")
        stop_at_rename(monkeypatch, stop, how)


SWAPPED = ("first", "gone", "new", "last")


@pytest.mark.parametrize("stop", range(7))
@pytest.mark.parametrize("is_first", [False, True])
def test_what_a_kill_interrupts_is_taken_back(
    tmp_path: Path, stop: int, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {} if is_first else {part: b"old" for part in ("first", "gone", "last")}
    (tmp_path / "stays").write_text("mine")
    for part, text in old.items():
        (tmp_path / part).write_bytes(text)
    child = os.fork()
    if not child:
        replace_parts(tmp_path, monkeypatch, stop, lambda: os.kill(os.getpid(), signal.SIGKILL))
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == (-signal.SIGKILL if stop < 6 - 3 * is_first else 0)
    with pytest.raises(ValueError, match="stop"), replacing(tmp_path, SWAPPED):
        raise ValueError("stop")
    new = {part: b"new" for part in ("first", "new", "last")}
    assert contents(tmp_path) == (new if ended == 0 else old) | {"stays": b"mine"}


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("stop", range(6))
def test_what_an_error_interrupts_is_taken_back(
    tmp_path: Path, stop: int, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    for part in ("first", "gone", "last"):
        (tmp_path / part).write_text("old")
    before = contents(tmp_path)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        replace_parts(tmp_path, monkeypatch, stop, fail)
    assert contents(tmp_path) == before


def test_what_can_be_trained_on_after_a_kill_is_the_earlier_import(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "a")
    before = contents(out)
    begun = out / ".import.0123abcd"
    shutil.copytree(out, begun, ignore=shutil.ignore_patterns(".*"))
    (begun / "old").mkdir()
    for part in reversed(PARTS):
        if (out / part).exists():
            (out / part).rename(begun / "old" / part)
    (begun / "images").rename(out / "images")
    Image.new("RGB", (3, 3)).save(out / "images/b.png")
    with pytest.raises(OutputError, match="is there already"):
        write(out, "c")
    assert contents(out) == before
