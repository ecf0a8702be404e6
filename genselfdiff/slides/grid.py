"""Where tiles lie along one axis of an image."""


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """Give the start of every tile needed to cover ``length`` pixels, in steps of ``stride``.

    The last tile may reach beyond the end: who reads it continues the image by reflection. The
    grid thus stays regular, and an image below the tile size gets one tile.

    Args:
        length: pixels to cover, at least 1.
        tile: side of a tile in pixels.
        stride: distance of neighbouring tiles, 1 to ``tile``; ``tile - stride`` is their overlap.

    Raises:
        ValueError: sizes out of range.
    """
    if length < 1 or not 1 <= stride <= tile:
        raise ValueError(f"no tiles of {tile} px at stride {stride} cover {length} px")
    overlap = tile - stride
    return list(range(0, max(length - overlap, 1), stride))
