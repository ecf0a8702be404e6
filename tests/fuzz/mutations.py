"""Damage to a file, a pure function of a seed and a number."""

import re
import struct
import zlib
from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytearray, np.random.Generator], str]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
"""Bytes of a value of each TIFF type."""

_STRIPS_AND_TILES = {273, 279, 324, 325, 330}
"""Tags of offsets and byte counts, SubIFDs included."""

_NEEDED = set(range(256, 260)) | {262, 277, 278, 322, 323} | _STRIPS_AND_TILES
_DESCRIPTION = 270
_TELLING = (254, 266, 274, 284, 296, 317, 338, 339, 530, 532, 32997)
"""Tags of one number that say how pixels are to be taken: the orientation, for one."""


def mutate(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return damaged bytes, and in words what was done: one to three things."""
    damaged, told = bytearray(data), []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        kinds = list(_ANYWHERE)
        if damaged[:2] in (b"II", b"MM"):
            kinds += 3 * _IN_TIFF
        if damaged[:4] == b"\x89PNG":
            kinds += 3 * [_png_header]
        if damaged[:1] == b"{":
            kinds += 3 * [_json_number]
        if damaged[:3] == b"\xff\xd8\xff" or b"\xff\xd8\xff" in damaged:
            kinds += 2 * [_jpeg_header]
        if len(damaged) > 16:
            try:
                told.append(kinds[int(rng.integers(len(kinds)))](damaged, rng))
            except struct.error:  # what was done before has left nothing to do this to
                continue
    return bytes(damaged), "; ".join(told)


def _span(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    """A range of bytes: of any length up to the whole, short ones as likely as long ones."""
    begin = _place(data, rng)
    return begin, min(len(data), begin + int(2 ** rng.uniform(0, np.log2(len(data)))))


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """Somewhere in the file; headers are short, so every second place is near an end."""
    near = int(min(len(data), 2 ** rng.uniform(0, 11)))
    return int(rng.choice([rng.integers(len(data)), near - 1, len(data) - near]))


def _flip_bits(data: bytearray, rng: np.random.Generator) -> str:
    count = int(2 ** rng.uniform(0, 6))
    for _ in range(count):
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return f"{count} bits flipped"


def _overwrite(data: bytearray, rng: np.random.Generator) -> str:
    begin, end = _span(data, rng)
    data[begin:end] = rng.bytes(end - begin)
    return f"bytes {begin} to {end} overwritten"


def _fill(data: bytearray, rng: np.random.Generator) -> str:
    begin, end = _span(data, rng)
    value = int(rng.choice([0, 0, 255]))
    data[begin:end] = bytes([value]) * (end - begin)
    return f"bytes {begin} to {end} are {value}"


def _delete(data: bytearray, rng: np.random.Generator) -> str:
    begin, end = _span(data, rng)
    del data[begin:end]
    return f"bytes {begin} to {end} deleted"


def _insert(data: bytearray, rng: np.random.Generator) -> str:
    begin, end = _span(data, rng)
    data[begin:begin] = rng.bytes(min(end - begin, 5000))
    return f"{min(end - begin, 5000)} bytes inserted at {begin}"


def _truncate(data: bytearray, rng: np.random.Generator) -> str:
    kept = _place(data, rng)
    del data[kept:]
    return f"cut off after {kept} bytes"


def _repeat(data: bytearray, rng: np.random.Generator) -> str:
    begin, end = _span(data, rng)
    to = _place(data, rng)
    data[to : to + end - begin] = data[begin:end]
    return f"bytes {begin} to {end} copied to {to}"


class _Tiff:
    """Where the directories of a TIFF and their entries lie, as far as it is whole."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.is_big = data[2:4] in (b"+\0", b"\0+")
        self.word = "Q" if self.is_big else "I"
        self.directories: list[int] = []
        self.entries: list[int] = []
        self.links = [8 if self.is_big else 4]
        self._follow()

    def get(self, kind: str, at: int) -> int:
        if at + struct.calcsize(kind) > len(self.data):
            raise struct.error
        return int(struct.unpack_from(self.order + kind, self.data, at)[0])

    def put(self, kind: str, at: int, value: int) -> None:
        size = struct.calcsize(kind)
        struct.pack_into(self.order + kind, self.data, at, value % 256**size)

    def value_place(self, entry: int) -> tuple[int, int, int]:
        """(place, bytes of a value, values) of an entry."""
        size = _SIZES.get(self.get("H", entry + 2), 1)
        count = self.get(self.word, entry + 4)
        inline = entry + (12 if self.is_big else 8)
        fits = size * count <= (8 if self.is_big else 4)
        return inline if fits else self.get(self.word, inline), size, count

    def _follow(self) -> None:
        length = 20 if self.is_big else 12
        try:
            while (at := self.get(self.word, self.links[-1])) and at not in self.directories:
                count = self.get("Q" if self.is_big else "H", at)
                first = at + (8 if self.is_big else 2)
                self.get(self.word, first + count * length)
                self.directories.append(at)
                self.entries += range(first, first + count * length, length)
                self.links.append(first + count * length)
        except struct.error:
            return


def _number(old: int, rng: np.random.Generator) -> int:
    near = [old - 1, old + 1, 2 * old, old // 2, 16 * old, -old]
    known = [0, 1, 2, 3, 7, 8, 255, 256, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**63]
    return int(rng.choice(np.array([*near, *known], dtype=object)))


def _change_value(data: bytearray, rng: np.random.Generator) -> str:
    tiff = _Tiff(data)
    if not tiff.entries:
        return "nothing"
    entry = int(rng.choice(tiff.entries))
    place, size, count = tiff.value_place(entry)
    place += size * int(rng.integers(max(1, min(count, 1000))))
    kind = {1: "B", 2: "H", 4: "I", 8: "Q"}[size]
    if place + size > len(data):
        return "nothing"
    new = _number(tiff.get(kind, place), rng)
    tiff.put(kind, place, new)
    return f"a value of tag {tiff.get('H', entry)} is {new}"


def _change_entry(data: bytearray, rng: np.random.Generator) -> str:
    tiff = _Tiff(data)
    if not tiff.entries:
        return "nothing"
    entry = int(rng.choice(tiff.entries))
    what = str(rng.choice(["code", "type", "count", "offset"]))
    place = entry + {"code": 0, "type": 2, "count": 4, "offset": 12 if tiff.is_big else 8}[what]
    kind = tiff.word if what in ("count", "offset") else "H"
    code = tiff.get("H", entry)
    new = _number(tiff.get(kind, place), rng)
    if what == "code":
        new = tiff.get("H", int(rng.choice(tiff.entries)))
    elif what == "type":
        new = int(rng.integers(0, 20))
    tiff.put(kind, place, new)
    return f"the {what} of tag {code} is {new}"


def _swap_entries(data: bytearray, rng: np.random.Generator) -> str:
    tiff = _Tiff(data)
    if not tiff.entries:
        return "nothing"
    a, b = (int(entry) for entry in rng.choice(tiff.entries, 2))
    skipped, length = 2, 20 if tiff.is_big else 12  # their codes stay
    first, second = data[a + skipped : a + length], data[b + skipped : b + length]
    data[a + skipped : a + length], data[b + skipped : b + length] = second, first
    return f"tags {tiff.get('H', a)} and {tiff.get('H', b)} exchanged"


def _swap_pieces(data: bytearray, rng: np.random.Generator) -> str:
    tiff = _Tiff(data)
    lists = [entry for entry in tiff.entries if tiff.get("H", entry) in _STRIPS_AND_TILES]
    if not lists:
        return "nothing"
    entry = int(rng.choice(lists))
    place, size, count = tiff.value_place(entry)
    i, j = (place + size * int(k) for k in rng.integers(0, max(1, min(count, 1000)), 2))
    if max(i, j) + size > len(data):
        return "nothing"
    data[i : i + size], data[j : j + size] = data[j : j + size], data[i : i + size]
    return f"two values of tag {tiff.get('H', entry)} exchanged"


def _overlap_pieces(data: bytearray, rng: np.random.Generator) -> str:
    """All tiles in the place of one, with its size: a small file that claims to be a large one."""
    tiff = _Tiff(data)
    lists = [entry for entry in tiff.entries if tiff.get("H", entry) in _STRIPS_AND_TILES]
    if not lists:
        return "nothing"
    for entry in lists:
        place, size, count = tiff.value_place(entry)
        count = min(count, (len(data) - place) // size)
        data[place : place + size * count] = data[place : place + size] * count
    return "all tiles are the first"


def _share_values(data: bytearray, rng: np.random.Generator) -> str:
    """All directories have the values of one for a tag, of which they may claim more."""
    tiff = _Tiff(data)
    if not tiff.entries:
        return "nothing"
    code = tiff.get("H", int(rng.choice(tiff.entries)))
    alike = [entry for entry in tiff.entries if tiff.get("H", entry) == code]
    model = int(rng.choice(alike))
    kept = data[model + 2 : model + (20 if tiff.is_big else 12)]
    times = int(rng.choice([1, 1, 2, 1000, 10**6]))
    for entry in alike:
        data[entry + 2 : entry + 2 + len(kept)] = kept
        tiff.put(tiff.word, entry + 4, times * tiff.get(tiff.word, model + 4))
    return f"{len(alike)} directories share {times} times the values of tag {code}"


def _give_tag(data: bytearray, rng: np.random.Generator) -> str:
    """Some entry that is not needed becomes one that says how pixels are to be taken."""
    tiff = _Tiff(data)
    spare = [entry for entry in tiff.entries if tiff.get("H", entry) not in _NEEDED]
    if not spare:
        return "nothing"
    entry, code = int(rng.choice(spare)), int(rng.choice(_TELLING))
    value = int(rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535]))
    tiff.put("H", entry, code)
    tiff.put("H", entry + 2, 3)
    tiff.put(tiff.word, entry + 4, 1)
    tiff.put("H", tiff.value_place(entry)[0], value)
    return f"tag {code} is {value}"


def _describe(data: bytearray, rng: np.random.Generator) -> str:
    """A description with bytes that are no text, with numbers that have no end, or split."""
    tiff = _Tiff(data)
    texts = [entry for entry in tiff.entries if tiff.get("H", entry) == _DESCRIPTION]
    if not texts:
        return "nothing"
    place, _, count = tiff.value_place(int(rng.choice(texts)))
    begin = place + int(rng.integers(max(1, count)))
    end = min(begin + int(2 ** rng.uniform(0, 9)), place + count, len(data))
    filler = (b"9", b"0,", b"\0", b"<a>", b"\xb5m", b"\x8d\x81\xff", b"MPP = ", b"\nunit=")
    text = filler[int(rng.integers(len(filler)))]
    data[begin:end] = (text * (end - begin))[: end - begin]
    return f"bytes {begin} to {end} of a description repeat {text!r}"


def _link(data: bytearray, rng: np.random.Generator) -> str:
    """A directory that follows itself, or another, or is its own SubIFD, or lies beyond the end."""
    tiff = _Tiff(data)
    places = [link for link in tiff.links if link + 8 <= len(data)]
    places += [tiff.value_place(e)[0] for e in tiff.entries if tiff.get("H", e) == 330]
    place = int(rng.choice(places))
    beyond = [len(data), len(data) + 100, 2**31 - 1]
    targets = [*tiff.directories, *tiff.directories, *beyond, _place(data, rng)]
    target = int(rng.choice(targets))
    if place + 8 > len(data):
        return "nothing"
    tiff.put(tiff.word, place, target)
    return f"the link at {place} leads to {target}"


def _png_header(data: bytearray, rng: np.random.Generator) -> str:
    """Another size or kind of picture, with the right check sum."""
    if len(data) < 33:
        return "nothing"
    if rng.integers(2):
        place = int(rng.choice([16, 20]))
        value = abs(_number(struct.unpack_from(">I", data, place)[0], rng)) % 2**32
        struct.pack_into(">I", data, place, value)
    else:
        place, value = int(rng.integers(24, 29)), int(rng.choice([0, 1, 2, 3, 4, 6, 8, 16]))
        data[place] = value
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    return f"byte {place} of the PNG header is {value}"


def _jpeg_header(data: bytearray, rng: np.random.Generator) -> str:
    """A changed field of a frame header of a JPEG, in a TIFF of one of its tiles."""
    frames = [
        at
        for marker in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")
        for at in range(len(data) - 20)
        if data.startswith(marker, at) and data[at + 2] == 0 and data[at + 4] == 8
    ]
    if not frames:
        return "nothing"
    place = int(rng.choice(frames)) + int(rng.integers(2, 19))
    data[place] = int(rng.choice([0, 1, 2, 3, 4, 17, 34, 127, 255]))
    return f"byte {place} of a JPEG frame is {data[place]}"


def _json_number(data: bytearray, rng: np.random.Generator) -> str:
    """Another number, or no number, in the metadata of a Zarr."""
    numbers = list(re.finditer(rb"\d+", data))
    if not numbers:
        return "nothing"
    found = numbers[int(rng.integers(len(numbers)))]
    odd = ["null", "[]", '"a"', "1e99", "9" * 400, "9" * 5000, "[" * 9999 + "]" * 9999]
    new = str(rng.choice([str(_number(int(found[0][:18]), rng)), *odd]))
    data[found.start() : found.end()] = new.encode()
    return f"{found[0].decode()} at {found.start()} is {new[:20]}"


_ANYWHERE: list[Mutation] = [
    _flip_bits, _overwrite, _fill, _delete, _insert, _truncate, _repeat,
]  # fmt: skip
_IN_TIFF: list[Mutation] = [
    _change_value, _change_value, _change_entry, _swap_entries, _swap_pieces, _link, _link,
    _overlap_pieces, _share_values, _give_tag, _describe,
]  # fmt: skip
