"""Names of files and of classes."""

import os
from pathlib import Path

import pytest

from genselfdiff.data.naming import list_names, names_in, stem_of
from genselfdiff.errors import InputError


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("a.png", "a"),
        ("a.ome.tif", "a"),
        ("A.OME.TIFF", "A"),
        ("a.b.png", "a.b"),
        ("Gefa\u0308\u00df.png", "Gef\u00e4\u00df"),
        (os.fsdecode(b"sl\xe4ide.png"), os.fsdecode(b"sl\xe4ide")),
    ],
)
def test_stems(file: str, stem: str) -> None:
    assert stem_of(Path("folder.tif") / file) == stem


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["background", "nucleus"], "background,nucleus"),
        (["background", "Tumor, high grade"], 'background,"Tumor, high grade"'),
        (["Barrett's", 'the "edge"'], 'Barrett\'s,"the ""edge"""'),
        (["two\nlines", "x"], '"two\nlines",x'),
        ([os.fsdecode(b"sl\xe4ide")], os.fsdecode(b"sl\xe4ide")),
    ],
)
def test_lists_of_names_come_back(names: list[str], line: str) -> None:
    assert list_names(names) == line
    assert names_in(line) == tuple(names)


def test_lists_as_people_type_them() -> None:
    assert names_in('background , "a, b",c d, 5" core') == ("background", "a, b", "c d", '5" core')
    assert names_in("") == ("",)
    assert names_in("a,,b") == ("a", "", "b")
    with pytest.raises(InputError, match="is no list of names"):
        names_in("a\nb")
