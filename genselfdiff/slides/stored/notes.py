"""What a user is told about an image that is read: once, however often it is opened."""

import logging
from functools import lru_cache
from itertools import product

from genselfdiff.errors import InputError
from genselfdiff.slides.stored.stored_image import StoredLevel

logger = logging.getLogger("genselfdiff")


@lru_cache(maxsize=4096)
def tell_once(level: int, message: str) -> None:
    """Log a message that names the image, unless this process has logged the same before."""
    logger.log(level, "%s", message)


_LOOKED_AT = 64
"""Side in pixels of what is looked at in nine places, to see how bright an image is."""


def tell_of_16_bits(level: StoredLevel, white: int) -> None:
    """Tell that pixels of 16 bits are made 8, or that they look as if they were fewer.

    Args:
        level: of the image, the smaller the better.
        white: the number in 16 bits that became 255.
    """
    path, brightest = level.damage.path, _brightest(level)
    if brightest < 128:
        tell_once(
            logging.WARNING,
            f"{path}: its 16-bit pixels reach about {brightest * white // 255} of {white} and are"
            " read as dark as that; if they hold fewer than 16 bits, scale them up first",
        )
    else:
        tell_once(
            logging.INFO,
            f"{path}: 16-bit pixels are read in 8 bits, 0 to {white} as 0 to 255",
        )


def _brightest(level: StoredLevel) -> int:
    width, height = min(_LOOKED_AT, level.width), min(_LOOKED_AT, level.height)
    places = product(range(3), range(3))
    try:
        return max(
            int(
                level.read(
                    i * (level.width - width) // 2, j * (level.height - height) // 2, width, height
                ).max()
            )
            for i, j in places
        )
    except InputError:  # told when the damaged part is read
        return 255
