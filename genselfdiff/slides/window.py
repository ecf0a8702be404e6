"""Windows of slides and masks."""


def check_window(x: int, y: int, width: int, height: int, limit_x: int, limit_y: int) -> None:
    """Raise ValueError unless the window holds pixels and lies in ``limit_x`` x ``limit_y``."""
    inside = x >= 0 and y >= 0 and x + width <= limit_x and y + height <= limit_y
    if width < 1 or height < 1 or not inside:
        raise ValueError(
            f"window {width} x {height} at ({x}, {y}) is not inside {limit_x} x {limit_y} pixels"
        )
