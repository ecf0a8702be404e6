"""Small slides as scanners write them, in the formats that are read through OpenSlide."""

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Uint8 = NDArray[np.uint8]


def jpeg(pixels: Uint8, **options: object) -> bytes:
    stream = io.BytesIO()
    # Of half the width: OpenSlide reads a tile of 8 rows without those below it.
    Image.fromarray(pixels).save(stream, format="JPEG", quality=92, subsampling=1, **options)
    return stream.getvalue()


def decoded(stored: bytes) -> Uint8:
    return np.asarray(Image.open(io.BytesIO(stored)))


def write_scn(path: Path, levels: Sequence[Uint8], nm: int = 500) -> None:
    """Leica: one area of the glass in several resolutions, and a photograph of all of it."""
    glass, offset = (4_000_000, 2_000_000), (1_000_000, 500_000)
    height, width = levels[0].shape[:2]
    sizes = "".join(
        f'<dimension sizeX="{level.shape[1]}" sizeY="{level.shape[0]}" r="{r}" ifd="{r + 1}"/>'
        for r, level in enumerate(levels)
    )
    settings = (
        "<scanSettings><objectiveSettings><objective>{}</objective></objectiveSettings>"
        "<illuminationSettings><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings>"
    )
    device = '<creationDate>2020-01-01T00:00:00Z</creationDate><device model="Leica SCN400"/>'
    images = (
        f'<image name="photograph">{device}<pixels sizeX="80" sizeY="40">'
        '<dimension sizeX="80" sizeY="40" r="0" ifd="0"/></pixels>'
        f'<view sizeX="{glass[0]}" sizeY="{glass[1]}" offsetX="0" offsetY="0"/>'
        f"{settings.format(0.6)}</image>"
        f'<image name="scan">{device}<pixels sizeX="{width}" sizeY="{height}">{sizes}</pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{offset[0]}"'
        f' offsetY="{offset[1]}"/>{settings.format(20)}</image>'
    )
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"'
        f' uuid="urn:uuid:1"><collection name="c" sizeX="{glass[0]}" sizeY="{glass[1]}">'
        f"<barcode>x</barcode>{images}</collection></scn>"
    )
    layout = {"photometric": "rgb", "compression": "jpeg", "tile": (128, 128), "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        photograph = np.full((40, 80, 3), 200, np.uint8)
        writer.write(photograph, description=xml, **layout)
        for level in levels:
            dots = 1e7 / nm / (width // level.shape[1])
            writer.write(level, resolution=(dots, dots), resolutionunit=3, **layout)


def write_ndpi(path: Path, levels: Mapping[float, Uint8], mpp: float = 0.5) -> None:
    """Hamamatsu: each level one JPEG with restart markers; links of 64 bits to directories."""
    data = bytearray(struct.pack("<2sHQ", b"II", 42, 0))
    link = 4
    for lens, pixels in levels.items():
        stored = jpeg(pixels, restart_marker_blocks=4)
        at = len(data)
        data += stored + bytes(len(stored) % 2)
        height, width = pixels.shape[:2]
        step = max(levels) / lens if lens > 0 else 100
        dots = struct.pack("<II", round(1e7 / (mpp * step)), 1000)
        make = b"Hamamatsu\0"
        entries: list[tuple[int, int, int, bytes]] = [
            (256, 4, 1, struct.pack("<I", width)),
            (257, 4, 1, struct.pack("<I", height)),
            (258, 3, 3, struct.pack("<HHH", 8, 8, 8)),
            (259, 3, 1, struct.pack("<I", 7)),
            (262, 3, 1, struct.pack("<I", 6)),
            (271, 2, len(make), make),
            (273, 4, 1, struct.pack("<I", at)),
            (277, 3, 1, struct.pack("<I", 3)),
            (278, 4, 1, struct.pack("<I", height)),
            (279, 4, 1, struct.pack("<I", len(stored))),
            (282, 5, 1, dots),
            (283, 5, 1, dots),
            (296, 3, 1, struct.pack("<I", 3)),
            (65420, 4, 1, struct.pack("<I", 1)),
            (65421, 11, 1, struct.pack("<f", lens)),
            (65424, 9, 1, struct.pack("<i", 0)),
        ]
        values = {}
        for code, _, _, value in entries:
            if len(value) > 4:
                values[code] = len(data)
                data += value + bytes(len(value) % 2)
        struct.pack_into("<Q", data, link, len(data))
        data += struct.pack("<H", len(entries))
        for code, kind, count, value in entries:
            data += struct.pack("<HHI", code, kind, count)
            data += struct.pack("<I", values[code]) if code in values else value.ljust(4, b"\0")
        link = len(data)
        data += bytes(8) + bytes(4 * len(entries))
    path.write_bytes(data)


def write_mrxs(path: Path, pixels: Uint8, mpp: float = 0.25, side: int = 128) -> list[list[bytes]]:
    """3DHISTECH: tiles in files of a folder, listed by an index; returns rows of level-0 JPEGs."""
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(jpeg(pixels[:64, :64]))
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    slide_id = "0123456789ABCDEF0123456789ABCDEF"
    zooms = 2
    sections = {
        "GENERAL": {
            "SLIDE_VERSION": "01.02", "SLIDE_ID": slide_id, "IMAGENUMBER_X": columns,
            "IMAGENUMBER_Y": rows, "OBJECTIVE_MAGNIFICATION": 20, "CameraImageDivisionsPerSide": 1,
        },
        "HIERARCHICAL": {
            "HIER_COUNT": 1, "NONHIER_COUNT": 0, "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level", "HIER_0_COUNT": zooms,
            **{f"HIER_0_VAL_{zoom}": f"ZoomLevel_{zoom}" for zoom in range(zooms)},
            **{
                f"HIER_0_VAL_{zoom}_SECTION": f"LAYER_0_LEVEL_{zoom}_SECTION"
                for zoom in range(zooms)
            },
        },
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
    }  # fmt: skip
    for zoom in range(zooms):
        sections[f"LAYER_0_LEVEL_{zoom}_SECTION"] = {
            "OVERLAP_X": 0.0, "OVERLAP_Y": 0.0, "MICROMETER_PER_PIXEL_X": mpp * 2**zoom,
            "MICROMETER_PER_PIXEL_Y": mpp * 2**zoom, "IMAGE_FORMAT": "JPEG",
            "IMAGE_FILL_COLOR_BGR": 16777215, "DIGITIZER_WIDTH": side, "DIGITIZER_HEIGHT": side,
            "IMAGE_CONCAT_FACTOR": min(zoom, 1),
        }  # fmt: skip
    text = "\r\n".join(
        f"[{name}]\r\n" + "\r\n".join(f"{key} = {value}" for key, value in values.items())
        for name, values in sections.items()
    )
    (folder / "Slidedat.ini").write_text("\ufeff" + text + "\r\n", encoding="utf-8")
    data = bytearray(b"01.02" + slide_id.encode() + bytes(16))
    stored: list[list[bytes]] = []
    items: list[list[tuple[int, int, int, int]]] = []
    for zoom in range(zooms):
        step, listed = 2**zoom, []
        for row in range(0, rows, step):
            if zoom == 0:
                stored.append([])
            for column in range(0, columns, step):
                y, x = row * side, column * side
                tile = pixels[y : y + side * step : step, x : x + side * step : step]
                tile = np.ascontiguousarray(tile)
                coded = jpeg(tile)
                if zoom == 0:
                    stored[-1].append(coded)
                listed.append((row * columns + column, len(data), len(coded), 0))
                data += coded
        items.append(listed)
    (folder / "Data0000.dat").write_bytes(data)
    index = bytearray(b"01.02" + slide_id.encode())
    root = len(index) + 8
    index += struct.pack("<ii", root, 0)
    index += bytes(4 * zooms)
    for zoom, listed in enumerate(items):
        struct.pack_into("<i", index, root + 4 * zoom, len(index))
        index += struct.pack("<ii", 0, len(index) + 8)
        index += struct.pack("<ii", len(listed), 0)
        for item in listed:
            index += struct.pack("<iiii", *item)
    (folder / "Index.dat").write_bytes(index)
    return stored


def write_bif(path: Path, pixels: Uint8, mpp: float = 0.25, overlap: int = 16) -> None:
    """Ventana: pictures of a camera side by side; XML tells by how much neighbours overlap.

    They are numbered from below, there and back. The XML tells each neighbour by its direction.
    """
    side = 128
    step = side - overlap
    rows, columns = ((length - side) // step + 1 for length in pixels.shape[:2])

    def number(row: int, column: int) -> int:
        from_below = rows - 1 - row
        along = columns - 1 - column if from_below % 2 else column
        return from_below * columns + along + 1

    joints = [
        (("RIGHT", "UP")[down], number(row + down, column), number(row, column + 1 - down))
        for row in range(rows)
        for column in range(columns)
        for down in (0, 1)
        if row + down < rows and column + 1 - down < columns
    ]
    told = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{way}" Tile1="{one}"'
        f' Tile2="{other}" OverlapX="{overlap * (way == "RIGHT")}"'
        f' OverlapY="{overlap * (way == "UP")}"/>'
        for way, one, other in joints
    )
    scan = f'<iScan Magnification="20" ScanRes="{mpp}" Z-layers="1" UnitNumber="1"/>'
    encoded = (
        '<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0"'
        f' NumRows="{rows}" NumCols="{columns}" Width="{side}" Height="{side}" Pos-X="0"'
        f' Pos-Y="0">{told}</ImageInfo></SlideStitchInfo><AoiOrigin>'
        '<AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    mosaic = np.concatenate(
        [
            np.concatenate(
                [pixels[y : y + side, x : x + side] for x in range(0, columns * step, step)], axis=1
            )
            for y in range(0, rows * step, step)
        ]
    )

    def tagged(xml: str) -> dict[str, object]:
        return {"extratags": [(700, "B", len(xml), xml.encode(), True)]}

    layout = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        label = np.full((64, 64, 3), 200, np.uint8)
        writer.write(label, description="Label_Image", tile=(64, 64), **layout, **tagged(scan))
        for level in range(2):
            stored = np.ascontiguousarray(mosaic[:: 2**level, :: 2**level])
            text = f"level={level} mag={20 / 2**level:g} quality=95"
            more = {} if level else tagged(encoded)
            writer.write(stored, description=text, tile=(side, side), **layout, **more)
