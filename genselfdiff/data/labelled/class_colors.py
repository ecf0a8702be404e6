"""The colours that classes have unless somebody says otherwise."""

_BACKGROUND = (255, 255, 255)
_CLASSES = (
    (0, 200, 70),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (230, 25, 75),
)
"""Green first, the complement of the stains; they repeat after the eighth class."""


def class_color(index: int) -> tuple[int, int, int]:
    """(red, green, blue), 0 to 255, of the class ``index``; 0 is the background."""
    return _CLASSES[(index - 1) % len(_CLASSES)] if index else _BACKGROUND
