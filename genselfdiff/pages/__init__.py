"""What pages of results share: each is one HTML file that needs no other."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.text import shown
from genselfdiff.version import __version__

Colour = tuple[int, int, int]

_JPEG_QUALITY = 85


def escape(text: str) -> str:
    """``text`` as HTML shows it, with nothing hidden in it."""
    return html.escape(shown(text))


def style() -> str:
    """The style sheet, for screens of any width and for paper."""
    return (files(__package__) / "page.css").read_text(encoding="utf-8")


def footer() -> str:
    """What every page ends with, as HTML."""
    return (
        f"genselfdiff {escape(__version__)}. Research software: not a medical device"
        " and not for diagnosis."
    )


def jpeg_address(picture: NDArray[np.uint8]) -> str:
    """An (H, W, 3) picture as the address of itself."""
    stored = io.BytesIO()
    # Colours at half the resolution, which is usual, would grey thin outlines.
    Image.fromarray(picture).save(stored, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stored.getvalue()).decode("ascii")


def definitions(told: Mapping[str, str]) -> str:
    """Names and what they are."""
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in told.items())
    return "<dl>" + "\n".join(rows) + "</dl>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are HTML."""
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def css_colour(colour: Colour | None) -> str:
    """A colour as CSS has it; None is grey."""
    return "#888888" if colour is None else "#{:02x}{:02x}{:02x}".format(*colour)
