"""Decoding the frames of one level of a whole slide image in DICOM."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genselfdiff.errors import InputError
from genselfdiff.slides.formats.codestreams import (
    GREY,
    RGB,
    decode_jpeg,
    decode_jpeg_2000,
    most_pixels,
)
from genselfdiff.slides.formats.dicom.elements import Elements
from genselfdiff.slides.formats.dicom.frames import (
    Frames,
    compressed_frames,
    joined,
    plain_frames,
)
from genselfdiff.slides.formats.dicom.instance import JPEG, PLAIN, Instance
from genselfdiff.slides.formats.missing_tiles import TileMap
from genselfdiff.slides.stored.damage import Damage, Unreadable
from genselfdiff.slides.stored.notes import tell_once
from genselfdiff.slides.stored.pixel_format import ycbcr_to_rgb
from genselfdiff.slides.stored.stored_image import (
    MAX_PIXELS_AT_ONCE,
    Piece,
    StoredLevel,
    is_absurd,
)
from genselfdiff.storage.stored_file import Range

Uint8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]

_FEW_TILES, _TILES_A_FRAME = 2**20, 64
"""Of a level that has but some of its tiles: so many need no frames, and more only so sparsely."""


class DicomLevel(StoredLevel):
    """A level, in one file or a concatenation of several.

    Where a file has the images of several optical paths or focal planes, the first is read.

    Args:
        parts: its files in their order, which are open.
        damage: what becomes of frames that cannot be decoded.
        finer: the level of which tiles are made that only this one lacks.

    Raises:
        InputError: a file is truncated, or its tiles are too large to decode at once.
        ValueError: frames are not where they should be, or too few.
    """

    tiles: TileMap

    def __init__(
        self, parts: Sequence[Instance], damage: Damage, finer: "DicomLevel | None" = None
    ) -> None:
        main = parts[0]
        across, down = main.tile
        if min(across, down, *main.size) < 1:
            raise ValueError(f"it is {main.width} x {main.height} pixels in tiles of {main.tile}")
        if across * down > MAX_PIXELS_AT_ONCE:
            raise InputError(
                f"{main.path}: is stored in tiles of {across} x {down} pixels, too large to decode"
                " in bounded memory; convert it to smaller tiles"
            )
        super().__init__(*main.size, across, down, damage)
        if is_absurd(self.width, self.height, sum(part.file.size for part in parts)):
            raise ValueError(f"it is far too small for {self.width} x {self.height} pixels")
        self._files = [part.file for part in parts]
        found = [_frames(part) for part in parts]
        self._part_of = np.repeat(np.arange(len(parts)), [len(each.offsets) for each in found])
        self._offsets = np.concatenate([each.offsets for each in found])
        self._counts = np.concatenate([each.counts for each in found])
        self._frames = self._placed(parts)
        self._check_whole()
        self._decode_frame = _decoder(main)
        self.tiles = TileMap(self, self._frames >= 0, None if finer is None else finer.tiles)

    def decode(self, column: int, row: int) -> Uint8:
        """Decode a frame, or make it of the finer level, as `StoredLevel` says."""
        if self.tiles.is_rebuilt(column, row):
            return self.tiles.rebuild(column, row)
        frame = int(self._frames[row, column])
        if frame < 0:
            return np.full((self.piece_height, self.piece_width, 3), 255, np.uint8)
        file = self._files[self._part_of[frame]]
        offset, count = int(self._offsets[frame]), int(self._counts[frame])
        try:
            stored = file.read_at(offset, count)
            if count == 0 or len(stored) != count:
                raise ValueError("the file ends early")
            pixels = self._decode_frame(stored)
            if pixels.shape != (self.piece_height, self.piece_width, 3):
                raise ValueError(f"it is {pixels.shape[1]} x {pixels.shape[0]} pixels")
            return pixels
        except (MemoryError, InputError):  # of the whole file, not of this tile
            raise
        except Exception as error:  # every codec has errors of its own
            where = f"tile (column {column}, row {row}), at byte {offset} of {file.place.name}"
            raise Unreadable(where, error) from error

    def expect(self, pieces: Iterable[Piece]) -> None:
        """Have the file fetch them ahead; not where a level has several."""
        if len(self._files) == 1:
            self._files[0].expect(part for _, part in self._ranges(pieces))

    def want(self, pieces: Iterable[Piece]) -> None:
        """Have the files fetch them, neighbours together."""
        wanted: dict[int, list[Range]] = {}
        for number, part in self._ranges(pieces):
            wanted.setdefault(number, []).append(part)
        for number, parts in wanted.items():
            self._files[number].want(parts)

    def _ranges(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, Range]]:
        """Which bytes of which file decoding pieces reads."""
        for column, row in pieces:
            frame = int(self._frames[row, column])
            if frame >= 0 and not self.tiles.is_rebuilt(column, row):
                place = int(self._offsets[frame]), int(self._counts[frame])
                yield int(self._part_of[frame]), place

    def _placed(self, parts: Sequence[Instance]) -> NDArray[np.int64]:
        """(rows, columns) the number of the frame that is there, -1 for none."""
        rows, columns = -(-self.height // self.piece_height), -(-self.width // self.piece_width)
        number = len(self._offsets)
        told = [item for part in parts for item in part.frame_items]
        main = parts[0]
        images = main.optical_paths * main.focal_planes
        if not any("PlanePositionSlideSequence" in item for item in told):
            if number < rows * columns:
                raise ValueError(f"it has {number} frames where {rows * columns} are needed")
            self._tell_first_of(images)
            return np.arange(rows * columns).reshape(rows, columns)
        if len(told) != number:
            raise ValueError(f"it tells the places of {len(told)} of {number} frames")
        if rows * columns > max(_FEW_TILES, _TILES_A_FRAME * number):
            raise ValueError(f"its {number} frames are too few for {rows} x {columns} tiles")
        placed = np.full((rows, columns), -1, np.int64)
        depth: float | None = None
        for frame, item in enumerate(told):
            place = _Place.of(item, main.first_path)
            depth = place.depth if depth is None else depth
            # Of a single path and plane all frames are read: focus may follow the tissue.
            is_other_path = main.optical_paths > 1 and place.path != main.first_path
            if is_other_path or (main.focal_planes > 1 and place.depth != depth):
                continue
            column, left = divmod(place.x, self.piece_width)
            row, above = divmod(place.y, self.piece_height)
            if left or above or not (0 <= column < columns and 0 <= row < rows):
                raise ValueError(f"its frame at ({place.x}, {place.y}) lies on no grid of tiles")
            if placed[row, column] < 0:
                placed[row, column] = frame
            else:
                images = max(images, 2)
        if told and (placed < 0).all():
            raise ValueError("none of its frames is of its first optical path and focal plane")
        self._tell_first_of(images)
        return placed

    def _tell_first_of(self, images: int) -> None:
        if images > 1:
            tell_once(
                logging.WARNING,
                f"{self.damage.path}: holds the images of several optical paths or focal planes;"
                " only the first is read",
            )

    def _check_whole(self) -> None:
        wanted = self._frames[self._frames >= 0]
        sizes = np.array([file.size for file in self._files])[self._part_of]
        beyond = (self._counts <= 0) | (self._offsets > sizes - self._counts)
        missing = int(beyond[wanted].sum())
        if missing and (missing == len(wanted) or not self.damage.is_tolerated):
            name = self._files[int(self._part_of[wanted[beyond[wanted]][0]])].place
            raise InputError(
                f"{name}: is truncated: {missing} of {len(wanted)} tiles lie beyond its end; copy"
                " or download it again, or take what is missing for glass with --on-error blank"
            )


class _Place(NamedTuple):
    """Where a frame is: optical path, depth in micrometres, and pixels of the level."""

    path: str
    depth: float
    x: int
    y: int

    @classmethod
    def of(cls, item: Elements, first_path: str) -> "_Place":
        """Read it from what is told of the frame; ``first_path`` where no path is told."""
        (place,) = item["PlanePositionSlideSequence"]
        (x,) = place["ColumnPositionInTotalImagePixelMatrix"]
        (y,) = place["RowPositionInTotalImagePixelMatrix"]
        depth = place.get("ZOffsetInSlideCoordinateSystem") or (0.0,)
        paths = item.get("OpticalPathIdentificationSequence") or [{}]
        path = paths[0].get("OpticalPathIdentifier") or (first_path,)
        return cls(path[0], depth[0], x - 1, y - 1)


def _frames(instance: Instance) -> Frames:
    if not 1 <= instance.number <= instance.file.size:
        raise ValueError(f"it tells {instance.number} frames")
    if not instance.header.pixels_at:
        raise ValueError("it has no pixels")
    if instance.syntax in PLAIN:
        across, down = instance.tile
        return plain_frames(instance.header, instance.number, across * down * instance.samples)
    return compressed_frames(instance.directory, instance.header, instance.number)


def _decoder(instance: Instance) -> Callable[[bytes], Uint8]:
    """From a frame as it is stored to (h, w, 3) RGB, as all files of the level have it."""
    instance.refuse_unread()
    to_rgb = _to_rgb(instance)
    if instance.syntax in PLAIN:
        across, down = instance.tile
        planes = instance.samples if instance.has_planes else 1
        shape = planes, down, across, instance.samples // planes

        def plain(stored: bytes) -> Uint8:
            pixels = np.frombuffer(stored, np.uint8).reshape(shape)
            return to_rgb(np.concatenate(pixels, axis=-1))

        return plain
    limit = most_pixels(*instance.tile)
    if instance.syntax in JPEG:
        decode = partial(
            decode_jpeg,
            limit=limit,
            wanted=GREY if instance.samples == 1 else RGB,
            may_be_rgb=instance.colours == "RGB",
        )
        return lambda stored: to_rgb(decode(joined(stored)))
    may_be_ycbcr, samples = instance.colours.startswith("YBR_FULL"), instance.samples

    def jpeg_2000(stored: bytes) -> Uint8:
        pixels = decode_jpeg_2000(joined(stored), limit, may_be_ycbcr=may_be_ycbcr)
        if pixels.dtype != np.uint8 or pixels.shape[-1] != samples:
            raise ValueError(f"its JPEG 2000 has {pixels.shape[-1]} samples of {pixels.dtype}")
        return to_rgb(pixels)

    return jpeg_2000


def _to_rgb(instance: Instance) -> Callable[[Uint8], Uint8]:
    """What becomes of decoded pixels."""
    if instance.colours == "MONOCHROME1":
        return lambda grey: np.repeat(255 - grey, 3, axis=-1)
    if instance.colours == "MONOCHROME2":
        return lambda grey: np.repeat(grey, 3, axis=-1)
    if instance.syntax in PLAIN and instance.colours == "YBR_FULL":
        return ycbcr_to_rgb
    return np.ascontiguousarray
