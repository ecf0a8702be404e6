"""HoVer-Net: numbers of nuclei in .mat files, or outlines in JSON, with types of nuclei."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.data.importers import Import
from genselfdiff.data.importers.classes import BACKGROUND, Table, parse_meanings
from genselfdiff.data.importers.files import beside, images_below, labels_below, picture
from genselfdiff.data.importers.instances import numbered_field
from genselfdiff.data.importers.left_out import FEW_VERTICES, LeftOut, told
from genselfdiff.data.labelled_folder import IGNORED, LabelledField
from genselfdiff.data.mat_file import read_mat
from genselfdiff.data.naming import name_some
from genselfdiff.data.polygons import Region, draw, has_area, outline, warn_of_outside
from genselfdiff.errors import InputError
from genselfdiff.input_files import read_json

logger = logging.getLogger("genselfdiff")

_NUCLEUS = "nucleus"


class _Nuclei(NamedTuple):
    """``numbers`` (H, W), 0 the background; ``types`` of each number, empty where none is told."""

    numbers: NDArray[np.int32]
    types: Mapping[int, int]


def read_hovernet(labels: Path, images: Path, meanings: Sequence[str] = ()) -> Import:
    """Pair images with .mat or .json files of their names below ``labels``.

    A .mat file has ``inst_map``, and types in ``type_map`` or ``inst_type`` (with ``inst_uid``,
    else by ascending number), as HoVer-Net's output and the data sets CoNSeP, Kumar and CPM do. A
    JSON file has ``nuc``: of each nucleus its ``contour``, through the centres of its outermost
    pixels, and ``type``.

    Args:
        labels, images: the folders.
        meanings: ``TYPE=CLASS`` each, as by ``read_mask_folder``; none: all are nuclei.

    Raises:
        InputError: the table is none, or no image has labels; on iterating: no pair can be read, or
            there is a type without a meaning.
    """
    if any(meaning.startswith("#") for meaning in meanings):
        raise InputError("types of nuclei are numbers: give TYPE=CLASS, such as 1=neoplastic")
    table, names = parse_meanings(meanings) if meanings else ({}, [BACKGROUND, _NUCLEUS])
    left_out = LeftOut()
    files = labels_below(labels, {".mat", ".json"})
    pairs = beside(images_below(images), files, labels, ".mat or .json", left_out)
    return Import(names, len(pairs), _fields(pairs, table, left_out), left_out)


def _fields(
    pairs: Sequence[tuple[Path, Path]], table: Table, left_out: LeftOut
) -> Iterator[LabelledField]:
    untold: set[int] = set()
    for image, source, nuclei in left_out.each([partial(_read, *p, left_out) for p in pairs]):
        if table:
            classes = _classes(nuclei, table, source)
        else:
            untold |= set(nuclei.types.values())
            classes = (nuclei.numbers > 0).astype(np.uint8)
        is_object = (classes != 0) & (classes != IGNORED)
        yield numbered_field(image, source, np.where(is_object, nuclei.numbers, 0), classes)
    if untold:
        logger.warning(
            "all types of nuclei (%s) are one class: TYPE=CLASS, such as 1=neoplastic, tells them"
            " apart",
            name_some([str(kind) for kind in sorted(untold)], limit=20),
        )


def _read(image: Path, source: Path, left_out: LeftOut) -> tuple[Path, Path, _Nuclei]:
    height, width = picture(image)[1]
    if source.suffix.lower() == ".mat":
        nuclei = _in_mat(source)
        if nuclei.numbers.shape != (height, width):
            raise InputError(f"{source}: is not of the size of {image}")
        return image, source, nuclei
    return image, source, _in_json(source, height, width, left_out)


def _classes(nuclei: _Nuclei, table: Table, source: Path) -> NDArray[np.uint8]:
    found, places = np.unique(nuclei.numbers, return_inverse=True)
    kinds = [nuclei.types.get(int(number)) for number in found if number]
    if None in kinds:
        raise InputError(f"{source}: tells no types of its nuclei: leave out TYPE=CLASS")
    if unknown := sorted({kind for kind in kinds if kind is not None} - table.keys()):
        named = name_some([str(kind) for kind in unknown])
        raise InputError(f"{source}: nobody said what type {named} means: add TYPE=CLASS for it")
    meaning = [table[nuclei.types[int(number)]] if number else 0 for number in found]
    return np.array(meaning, np.uint8)[places].reshape(nuclei.numbers.shape)


def _in_mat(path: Path) -> _Nuclei:
    stored = read_mat(path, ("inst_map", "type_map", "inst_type", "inst_uid"))
    if "inst_map" not in stored:
        raise InputError(f"{path}: has no inst_map: is it of HoVer-Net?")
    numbers = stored["inst_map"].astype(np.int32)
    found = np.unique(numbers)
    found = found[found > 0]
    if "type_map" in stored:
        return _Nuclei(numbers, _most_of(numbers, stored["type_map"], path))
    if "inst_type" not in stored:
        return _Nuclei(numbers, {})
    types = stored["inst_type"].ravel().tolist()
    named = stored["inst_uid"].ravel().tolist() if "inst_uid" in stored else found.tolist()
    if len(types) != len(named):
        raise InputError(f"{path}: has {len(types)} types of {len(named)} nuclei")
    return _Nuclei(numbers, dict(zip(named, types, strict=True)))


def _most_of(numbers: NDArray[np.int32], types: NDArray[np.int64], path: Path) -> dict[int, int]:
    """The type that most pixels of each object have."""
    if types.shape != numbers.shape:
        raise InputError(f"{path}: its type_map is not of the size of its inst_map")
    inside = numbers > 0
    pairs, counts = np.unique(
        np.stack([numbers[inside], types[inside]]), axis=1, return_counts=True
    )
    order = np.argsort(counts, kind="stable")  # the most frequent comes last, and stays
    return dict(pairs[:, order].T.tolist())


def _in_json(path: Path, height: int, width: int, left_out: LeftOut) -> _Nuclei:
    content = read_json(path)
    nuclei = content.get("nuc", content) if isinstance(content, dict) else None
    if not isinstance(nuclei, dict) or not all(
        isinstance(each, dict) and "contour" in each for each in nuclei.values()
    ):
        raise InputError(f"{path}: is no JSON of HoVer-Net: it has no contours of nuclei (nuc)")
    regions: list[Region] = []
    types: dict[int, int] = {}
    lost = Counter[str]()
    for each in nuclei.values():
        try:
            regions.append(_region(each))
        except InputError as error:
            lost[str(error)] += 1
            continue
        kind = each.get("type")
        if type(kind) is int:
            types[len(regions)] = kind
    if not regions and lost:
        raise InputError(f"{path}: holds no nucleus that can be used: {told(lost)}")
    left_out.tell(path, "outlines", lost)
    warn_of_outside(regions, height, width, path)
    return _Nuclei(draw(regions, height, width)[1], types)


def _region(nucleus: Mapping[str, Any]) -> Region:
    """Raise InputError, saying what is wrong with it, where it is no outline."""
    contour = nucleus["contour"]
    points = outline(contour if isinstance(contour, list) else ()) + 0.5
    if not has_area(points):
        raise InputError(FEW_VERTICES)
    return Region(1, ((points,),))
