"""Pages of results: each is one HTML file that needs no other, made from a template."""

import base64
import io
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.text import shown
from genselfdiff.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

Colour = tuple[int, int, int]

_JPEG_QUALITY = 85


def render(template: str, /, **told: object) -> str:
    """The page that a file of ``templates/`` makes of what is ``told``.

    Text is shown as it is, whatever is in it: nothing hidden, and no HTML but what is `Markup`.
    """
    return _templates().get_template(template).render(version=__version__, **told)


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(__name__),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: object) -> object:
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def jpeg_address(picture: NDArray[np.uint8]) -> str:
    """An (H, W, 3) picture as the address of itself."""
    stored = io.BytesIO()
    # Colours at half the resolution, which is usual, would grey thin outlines.
    Image.fromarray(picture).save(stored, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stored.getvalue()).decode("ascii")


def css_colour(colour: Colour | None) -> str:
    """A colour as CSS has it; None is grey."""
    return "#888888" if colour is None else "#{:02x}{:02x}{:02x}".format(*colour)
