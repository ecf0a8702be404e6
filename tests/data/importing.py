"""Labels as other programs store them, and what importers have made of them."""

import numpy as np
from PIL import Image

from genselfdiff.data.labelled_folder import write_fields

SQUARE = [(2, 1), (6, 1), (6, 4), (2, 4)]


def written(found, tmp_path, **options):
    return write_fields(tmp_path / "out", found.class_names, found.fields, **options)


def mask(tmp_path, name, kind="masks"):
    return np.asarray(Image.open(tmp_path / "out" / kind / f"{name}.png"))


def names(tmp_path):
    return sorted(path.stem for path in (tmp_path / "out" / "masks").iterdir())


def region(outline, **attributes):
    """A Region of ImageScope."""
    told = "".join(f' {name}="{value}"' for name, value in attributes.items())
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in outline)
    return f"<Region{told}><Vertices>{vertices}</Vertices></Region>"


def aperio_xml(*outlines):
    regions = "".join(
        outline if isinstance(outline, str) else region(outline) for outline in outlines
    )
    return f'<Annotations MicronsPerPixel="0.252"><Annotation><Regions>{regions}'.encode() + (
        b"</Regions></Annotation></Annotations>"
    )


def feature(name, *rings, **members):
    """A Feature of QuPath."""
    coordinates = [[*map(list, ring), list(ring[0])] for ring in rings]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": coordinates},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
        **members,
    }


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
