"""Fields as annotations for QuPath, which `gsd data import qupath` takes as frames."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import orjson

from genselfdiff.choices import FIELD_CLASS
from genselfdiff.errors import InputError
from genselfdiff.files import atomic_file, names_file, refuse_existing, writing
from genselfdiff.storage.places import Place
from genselfdiff.suggesting.field import Field

logger = logging.getLogger("genselfdiff")

_SUFFIXES = (".geojson", ".json")
_COLOUR = [255, 200, 0]


def files_of(slides: Sequence[Place], output: Path) -> dict[Place, Path]:
    """The file of each slide: of one ``output`` itself, of several one with its stem in there.

    Raises:
        InputError: ``output`` is no name for that, or two slides have one stem.
    """
    is_file = output.suffix.lower() in _SUFFIXES
    if len(slides) == 1 and is_file:
        return {slides[0]: output}
    if names_file(output) and not is_file:
        raise InputError(
            f"{output}: fields are written as {' or '.join(_SUFFIXES)}: name such a file for one"
            " slide, or a folder, which has no ending or is there"
        )
    if is_file:
        raise InputError(f"{output}: there are {len(slides)} slides: name a folder")
    files = {slide: output / f"{Path(slide.name).stem}.geojson" for slide in slides}
    if len(set(files.values())) < len(slides):
        raise InputError(f"{output}: two slides have one name: give them one after the other")
    return files


def write_fields(
    fields: Sequence[Field], files: dict[Place, Path], *, overwrite: bool = False
) -> list[Path]:
    """Write the fields of each slide as rectangles of QuPath's class Region*.

    Args:
        fields: in the order of their choice, which their names tell.
        files: see ``files_of``; of slides without fields none is written.
        overwrite: replace files that exist; those that are left of slides without fields are told.

    Returns:
        The files.

    Raises:
        OutputError: a file exists or cannot be written.
    """
    wanted = {slide: file for slide, file in files.items() if any(f.slide == slide for f in fields)}
    for file in wanted.values():
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        refuse_existing(file, overwrite)
    for slide, file in wanted.items():
        features = [
            _feature(field, rank)
            for rank, field in enumerate(fields, start=1)
            if field.slide == slide
        ]
        content = {"type": "FeatureCollection", "features": features}
        with atomic_file(file) as temporary:
            temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    for file in files.values():
        if file not in wanted.values() and os.path.lexists(file):
            logger.warning(
                "%s: is of an earlier choice: no field of its slide was chosen now", file
            )
    return list(wanted.values())


def _feature(field: Field, rank: int) -> dict[str, object]:
    left, top, right, bottom = field.x, field.y, field.x + field.width, field.y + field.height
    corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {
            "objectType": "annotation",
            "name": f"field {rank}",
            "classification": {"name": FIELD_CLASS, "color": _COLOUR},
            "measurements": {
                "gsd rank": rank,
                "gsd uncertainty": round(field.uncertainty, 4),
                "gsd disagreement": round(field.disagreement, 4),
            },
        },
    }
