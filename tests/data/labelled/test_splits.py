"""Which labelled images validate."""

import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest

from genselfdiff.data.labelled.pairs import Pair
from genselfdiff.data.labelled.splits import budgeted, groups_of, split_pairs
from genselfdiff.data.naming import stem_of
from genselfdiff.errors import InputError

STEMS = ["TCGA-A7-1", "TCGA-A7-2", "TCGA-A77-1", "TCGA-B0-1", "TCGA-B0-2", "x"]


def pairs_of(stems: list[str]) -> list[Pair]:
    return [Pair(stem, Path(f"i/{stem}.tif"), Path(f"m/{stem}.png")) for stem in stems]


def validation_of(val: str) -> list[str]:
    training, validation = split_pairs(pairs_of(STEMS), val)
    stems = [pair.stem for pair in validation]
    assert [pair.stem for pair in training] == [stem for stem in STEMS if stem not in stems]
    return stems


@pytest.mark.parametrize(
    ("val", "expected"),
    [
        ("x", ["x"]),
        ("x.tif", ["x"]),
        ("TCGA-A7", ["TCGA-A7-1", "TCGA-A7-2"]),
        ("TCGA-A7, x", ["TCGA-A7-1", "TCGA-A7-2", "x"]),
        ("TCGA-A7*", ["TCGA-A7-1", "TCGA-A7-2", "TCGA-A77-1"]),
        ("*-2", ["TCGA-A7-2", "TCGA-B0-2"]),
        ("TCGA-[AB]?-1", ["TCGA-A7-1", "TCGA-B0-1"]),
        ("TCGA-B0-1,*-2", ["TCGA-A7-2", "TCGA-B0-1", "TCGA-B0-2"]),
    ],
)
def test_names_groups_and_patterns(val: str, expected: list[str]) -> None:
    assert validation_of(val) == expected


def test_a_list_may_be_longer_than_a_file_name() -> None:
    stems = [f"TCGA-{index:02d}-5592-01Z-00-DX1" for index in range(30)]
    _, validation = split_pairs(pairs_of(stems), ",".join(stems[:20]))
    assert [pair.stem for pair in validation] == stems[:20]


def test_an_earlier_split_is_taken_by_whole_stems() -> None:
    _, validation = split_pairs(pairs_of(["x", "x-2", "y"]), ("x",))
    assert [pair.stem for pair in validation] == ["x"]
    with pytest.raises(InputError, match="--val gone: matches none"):
        split_pairs(pairs_of(["x", "y"]), ("gone",))


def test_names_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "validation.txt"
    file.write_text("# patients\nTCGA-A7\n\nx  # the odd one\n")
    assert validation_of(str(file)) == ["TCGA-A7-1", "TCGA-A7-2", "x"]
    file.write_text("TCGA-A7\nTCGA-ZZ\n")
    with pytest.raises(InputError, match=r"--val TCGA-ZZ: matches none"):
        validation_of(str(file))
    file.write_text("# nobody\n")
    with pytest.raises(InputError, match="names no image"):
        validation_of(str(file))
    file.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=r"validation\.txt: is no text in UTF-8"):
        validation_of(str(file))


@pytest.mark.parametrize("name", ["TCGA-A", "TCGA-ZZ", "tcga-a7", "*-3"])
def test_a_name_that_matches_nothing_is_named(name: str) -> None:
    with pytest.raises(InputError) as caught:
        validation_of(f"x,{name}")
    assert f"--val {name}: matches none of 6 images" in str(caught.value)


def test_everything_and_nothing_are_errors() -> None:
    with pytest.raises(InputError, match="matches every image"):
        validation_of("*")
    with pytest.raises(InputError, match="names no image"):
        validation_of(" , ")


def test_drawn_split_repeats_and_leaves_images_on_both_sides() -> None:
    pairs = pairs_of([f"p{index}" for index in range(20)])
    training, validation = split_pairs(pairs, seed=1)
    assert len(validation) == 4
    assert sorted(training + validation, key=pairs.index) == pairs
    assert split_pairs(pairs, seed=1) == (training, validation)
    assert split_pairs(pairs, seed=2) != (training, validation)
    for fraction in (0.0, 1.0):
        sides = split_pairs(pairs[:2], fraction=fraction)
        assert [len(side) for side in sides] == [1, 1]


def test_one_pair_cannot_be_split() -> None:
    with pytest.raises(InputError, match=r"x\.tif: one labelled image cannot be split"):
        split_pairs(pairs_of(["x"]))


def split_stems(stems: list[str], **options: object) -> tuple[list[str], list[str]]:
    training, validation = split_pairs(pairs_of(stems), **options)  # type: ignore[arg-type]
    return [pair.stem for pair in training], [pair.stem for pair in validation]


PATIENTS = [f"p{patient:02d}-{image}" for patient in range(12) for image in range(patient % 4 + 1)]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_drawn_together(seed: int) -> None:
    training, validation = split_stems(PATIENTS, group=r"p\d+", seed=seed)
    assert {stem[:3] for stem in training}.isdisjoint(stem[:3] for stem in validation)
    assert sorted(training + validation) == sorted(PATIENTS)
    assert 6 <= len(validation) <= 9  # a fifth of 30, and what the last group has more


@pytest.mark.parametrize("group", [None, r"(p\d+)-"])
def test_folds_hold_every_image_once(group: str | None) -> None:
    folds = [split_stems(PATIENTS, group=group, fold=(k, 4), seed=3)[1] for k in (1, 2, 3, 4)]
    assert sorted(stem for fold in folds for stem in fold) == sorted(PATIENTS)
    assert all(7 <= len(fold) <= 8 for fold in folds)
    if group:
        patients = [{stem[:3] for stem in fold} for fold in folds]
        assert sum(map(len, patients)) == 12
    assert folds != [split_stems(PATIENTS, fold=(k, 4), seed=4)[1] for k in (1, 2, 3, 4)]


def test_groups_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("group,name\nanna,a1\nanna,a2.tif\nbert,b1\nbert,b2\n")
    assert split_stems(["a1", "a2", "b1", "b2"], group=str(table), fold=(1, 2)) in (
        (["a1", "a2"], ["b1", "b2"]),
        (["b1", "b2"], ["a1", "a2"]),
    )
    with pytest.raises(InputError, match="has no row for c1"):
        split_stems(["a1", "c1"], group=str(table))
    table.write_text("patient,name\n")
    with pytest.raises(InputError, match="needs the columns name and group"):
        split_stems(["a1", "a2"], group=str(table))
    table.write_text("name,group\na1,anna\na2,bert\na1,bert\n")
    with pytest.raises(InputError, match="a1 is of anna and of bert"):
        split_stems(["a1", "a2"], group=str(table))
    with pytest.raises(InputError, match="cannot be read"):
        split_stems(["a1", "a2"], group=str(tmp_path / "none.csv"))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_another_form_of_unicode(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    name = unicodedata.normalize(form, "J\u00f6rg")
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", name)
    pairs = [Pair(stem_of(Path(f"{name}-1.tif")), Path(f"{name}-1.tif"), Path()), *pairs_of(["x"])]
    for val in (f"{other}-1", f"{other}-1.tif", other, f"{other}*"):
        assert split_pairs(pairs, val)[1] == pairs[:1]
    assert groups_of(pairs, f"{other}|x") == [unicodedata.normalize("NFC", name), "x"]
    (tmp_path / "patients.csv").write_text(f"name,group\n{other}-1.tif,a\nx,b\n", encoding="utf-8")
    assert groups_of(pairs, str(tmp_path / "patients.csv")) == ["a", "b"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_and_lists_as_spreadsheets_and_editors_write_them(
    tmp_path: Path, separator: str
) -> None:
    rows = ["name,group", "a1,anna", "a2.tif,anna", "b1,bert"]
    table, names = tmp_path / "patients.csv", tmp_path / "validation.txt"
    text = "\r\n".join(row.replace(",", separator) for row in rows)
    table.write_text(text, encoding="utf-8-sig", newline="")
    names.write_text("a1\r\na2\r\n", encoding="utf-8-sig", newline="")
    split = split_stems(["a1", "a2", "b1"], val=str(names), group=str(table))
    assert split == (["b1"], ["a1", "a2"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"group": r"p\d+", "val": "p01-0"}, "takes some images of p01 and leaves others"),
        ({"group": r"q\d+"}, "does not match p00-0"),
        ({"group": "("}, "is no regular expression"),
        ({"group": "p"}, "30 images, of one group, p"),
        ({"fold": (5, 4)}, "--fold 5/4"),
        ({"fold": (1, 31)}, "to the 30 groups"),
        ({"fold": (1, 13), "group": r"p\d+"}, "to the 12 groups"),
        ({"fold": (1, 2), "val": "p01"}, "give one of them"),
    ],
)
def test_splits_that_cannot_be_made(options: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        split_stems(PATIENTS, **options)


def test_a_smaller_budget_is_part_of_a_larger() -> None:
    pairs = pairs_of(list("abcdefgh"))
    draws = [budgeted(pairs, count, seed=3) for count in range(1, 9)]
    for count, drawn in enumerate(draws, 1):
        assert len(drawn) == count
        assert drawn == [pair for pair in pairs if pair in drawn], "in their order"
    for fewer, more in pairwise(draws):
        assert all(pair in more for pair in fewer)
    assert budgeted(pairs, None, seed=3) == pairs == draws[-1]
    assert budgeted(pairs, 4, seed=4) != draws[3]
    with pytest.raises(InputError, match="--train-images 9: only 8 images left"):
        budgeted(pairs, 9, seed=3)
