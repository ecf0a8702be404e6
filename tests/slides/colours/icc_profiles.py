"""ICC profiles of scanners, made by the standard (ICC.1:2001-04): three colours and a gamma."""

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""XYZ of red, green and blue of Adobe RGB (1998), seen in D50."""

SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
"""The same of sRGB."""
_D50 = (0.9642, 1.0, 0.8249)


def _fixed(values: Sequence[float]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def scanner_profile(
    gamma: float, colours: Sequence[Sequence[float]] = ADOBE, space: bytes = b"RGB "
) -> bytes:
    """A profile of that gamma, whose red, green and blue have these XYZ."""
    name = b"a scanner\0"
    text = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": text, b"cprt": b"text" + bytes(4) + b"CC0\0"}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + _fixed(_D50)
    for letter, xyz in zip("rgb", colours, strict=True):
        tags[f"{letter}XYZ".encode()] = b"XYZ " + bytes(4) + _fixed(xyz)
        tags[f"{letter}TRC".encode()] = curve
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    start, table, body = 132 + 12 * len(tags), b"", b""
    for key, value in tags.items():
        table += key + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI", start + len(body), bytes(4), 0x02100000) + b"scnr" + space + b"XYZ "
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(_D50)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def expected(pixels: NDArray[np.uint8], gamma: float) -> NDArray[np.float64]:
    """``pixels`` of `scanner_profile` in sRGB, 0 to 255, by the formulas (IEC 61966-2-1)."""
    xyz = (pixels / 255.0) ** gamma @ np.array(ADOBE)
    linear = np.clip(xyz @ np.linalg.inv(np.array(SRGB)), 0, 1)
    low, high = 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    return 255 * np.where(linear <= 0.0031308, low, high)
