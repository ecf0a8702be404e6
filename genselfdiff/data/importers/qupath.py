"""QuPath: annotations that it exports as GeoJSON, over a slide or an image."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from genselfdiff.choices import FIELD_CLASS
from genselfdiff.data.importers import Import
from genselfdiff.data.importers.classes import choose_classes
from genselfdiff.data.importers.files import beside, images_below, labels_below
from genselfdiff.data.importers.geojson import Annotated, Annotation, read_geojson
from genselfdiff.data.importers.left_out import LeftOut
from genselfdiff.data.importers.qupath_fields import (
    AS_STORED,
    Drawing,
    Scales,
    box_around,
    cut_field,
)
from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.data.naming import name_some, stem_of
from genselfdiff.data.polygons import Region
from genselfdiff.errors import InputError
from genselfdiff.slides import IMAGE_SUFFIXES, is_folder_of_slides
from genselfdiff.slides.formats import ZARR_SUFFIX
from genselfdiff.text import counted

logger = logging.getLogger("genselfdiff")


@dataclass(frozen=True)
class _Slide:
    path: Path
    source: Path  # the file of its annotations
    content: Annotated


def read_qupath(
    slides: Path,
    annotations: Path,
    *,
    scales: Scales = AS_STORED,
    field_class: str = FIELD_CLASS,
    classes: Sequence[str] | None = None,
    nuclei: bool = False,
) -> Import:
    """Cut labelled fields out of slides that were annotated in QuPath.

    A field is each annotation of ``field_class``, in which everything has been annotated, mostly a
    rectangle; of other shapes the box around is cut out. Without any, it is the slide. In it,
    objects of other classes are drawn, larger ones first, so that none is hidden under what
    contains it. What has a class whose name ends in ``*``, as QuPath's own Ignore*, or a class that
    is derived from one, is not labelled (`IGNORED`), unless ``classes`` names it. Objects without a
    class, lines and points, and slides without annotations are left out.

    Args:
        slides: a slide, or a folder of slides.
        annotations: the ``.geojson`` or ``.json`` of the slide; of a folder, that of files with the
            names of the slides.
        scales: resolutions of the fields and of slides, and colours.
        field_class: of the annotations that say where fields are.
        classes: the names to take, in the order of their indices, without background; None: all
            there are, by the alphabet.
        nuclei: of cells, take the nuclei, not the outlines of the cells.

    Raises:
        InputError: slides and annotations do not pair, or there is nothing in them to be used; on
            iterating: no field can be cut.
    """
    left_out = LeftOut()
    read = _read(slides, annotations, nuclei, left_out)
    found = [annotation for slide in read for annotation in slide.content.annotations]
    counts = Counter(annotation.name for annotation in found)
    if not counts:
        reasons = left_out.summary() or "it is empty"
        raise InputError(f"{annotations}: holds no outline with a class: {reasons}")
    if field_class != FIELD_CLASS and field_class not in counts:
        there = name_some(sorted(counts), limit=20)
        raise InputError(f"{annotations}: nothing has the class {field_class}: there are {there}")
    if counts.keys() == {field_class}:
        raise InputError(
            f"{annotations}: has {counted(counts[field_class], 'field')}, and nothing is annotated"
            " inside yet: draw all that lies there in QuPath, give it classes and export all"
            " objects as GeoJSON, or read the file in the page of 'gsd view' and draw there"
        )
    names, labels = _labels(counts, field_class, classes, annotations)
    _tell(annotations, found, labels, nuclei)
    fields = _fields(read, field_class, labels, left_out)
    if not fields:
        raise InputError(f"{annotations}: there is no field to cut: {left_out.summary()}")
    readers = [partial(cut_field, *field, scales, left_out) for field in fields]
    return Import(names, len(readers), left_out.each(readers), left_out)


def _read(slides: Path, annotations: Path, nuclei: bool, left_out: LeftOut) -> list[_Slide]:
    if is_folder_of_slides(slides):
        images = images_below(slides, IMAGE_SUFFIXES | {ZARR_SUFFIX})
        labels = labels_below(annotations, {".geojson", ".json"})
        pairs = beside(images, labels, annotations, "GeoJSON", left_out)
    else:
        pairs = [(slides, annotations)]

    def read(path: Path, source: Path) -> _Slide:
        return _Slide(path, source, read_geojson(source, left_out, nuclei=nuclei))

    return list(left_out.each([partial(read, *pair) for pair in pairs]))


def _labels(
    counts: Mapping[str, int], field_class: str, wanted: Sequence[str] | None, source: Path
) -> tuple[list[str], dict[str, int]]:
    """Names by their index, and what is drawn for annotations of each class."""
    drawn = counts.keys() - {field_class}
    # QuPath takes such classes for none; of its two own ones Region* says nothing of the pixels.
    ignored = {kind for kind in drawn if is_ignored(kind) and kind not in (wanted or ())}
    names = choose_classes({kind: counts[kind] for kind in drawn - ignored}, wanted, source)
    labels = {name: index for index, name in enumerate(names)}
    return names, labels | dict.fromkeys(ignored - {FIELD_CLASS}, IGNORED)


def is_ignored(kind: str) -> bool:
    """Whether the name of a class ends in ``*``, or that of the class it is derived from does."""
    base = kind.partition(":")[0].rstrip()
    return kind.endswith("*") or (base.endswith("*") and base != FIELD_CLASS)


def _tell(
    source: Path, found: Sequence[Annotation], labels: Mapping[str, int], nuclei: bool
) -> None:
    ignored = Counter(each.name for each in found if labels.get(each.name) == IGNORED)
    for kind, count in ignored.items():
        logger.info(
            "%s: %d of %s: their pixels are not labelled (%d)", source, count, kind, IGNORED
        )
    cells = sum(each.has_nucleus for each in found)
    if cells and not nuclei:
        logger.warning(
            "%s: %s with a nucleus: the outlines of the cells are taken; --nuclei takes those of"
            " the nuclei",
            source,
            counted(cells, "cell"),
        )


def _fields(
    slides: Sequence[_Slide], field_class: str, labels: Mapping[str, int], left_out: LeftOut
) -> list[tuple[Drawing, str, Region | None]]:
    """What is drawn on the slide of each field, the name of that and where it is."""
    fields: list[tuple[Drawing, str, Region | None]] = []
    for slide in slides:
        there: list[Region] = []
        drawn: list[Region] = []
        for each in slide.content.annotations:
            if each.name == field_class:
                there.append(Region(1, each.polygons))
            elif each.name in labels:
                drawn.append(Region(labels[each.name], each.polygons))
        drawing = Drawing(slide.path, slide.source, drawn)
        others = len(slide.content.annotations) - len(drawn) - len(there)
        outside = drawing.count_outside(map(box_around, there)) if there else 0
        left_out.tell(
            slide.source,
            "outlines",
            {"of classes that are not taken": others, "outside of all fields": outside},
        )
        name = stem_of(slide.path)
        if len(there) > 1:
            fields += [(drawing, f"{name}_{n}", field) for n, field in enumerate(there, start=1)]
        elif there:
            fields.append((drawing, name, there[0]))
        elif slide.content.odd.get(field_class):
            left_out.tell(slide.source, "slides", {f"of which no {field_class} can be used": 1})
        elif all(region.label == IGNORED for region in drawn):
            left_out.tell(slide.source, "slides", {"on which nothing is annotated": 1})
        else:
            fields.append((drawing, name, None))
    whole = [name for _, name, field in fields if field is None]
    if 0 < len(whole) < len(fields):
        logger.warning("no %s is in %s: they are taken whole", field_class, name_some(whole))
    return fields
