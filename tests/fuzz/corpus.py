"""Small whole files of every kind that gsd reads, for the fuzz test to damage."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.masks import MaskWriter, PyramidShape

Uint8 = NDArray[np.uint8]

APERIO = "Aperio Image Library v11.2.1 \n"
PROFILED = "profile.tif"
"""A slide that is read by its ICC profile."""
SLIDE = "slide.tif"
"""The whole slide of which the masks are."""


def picture() -> Uint8:
    """(170, 230, 3): glass on the left, pink tissue with dark cells on the right."""
    y, x = np.mgrid[:170, :230]
    cells = np.hypot(y % 24 - 12, x % 24 - 12) < 6
    pixels = np.where(cells[..., None], (90, 40, 130), (225, 160, 200))
    pixels[:, :60] = 242
    noise = np.random.default_rng(0).integers(-4, 5, pixels.shape)
    return (pixels + noise).astype(np.uint8)


def write_corpus(folder: Path) -> None:
    """Write one file of each kind; what is in the folder afterwards is to be damaged."""
    pixels = picture()
    tiles = {"photometric": "rgb", "tile": (64, 64)}
    scale = {"resolution": (20_000, 20_000), "resolutionunit": 3}
    tiffs: dict[str, dict[str, object]] = {
        SLIDE: {**tiles, "compression": "zlib"},
        "jpeg.tif": {**tiles, **scale, "compression": "jpeg", "photometric": "ycbcr"},
        "lzw.btf": {**tiles, "compression": "lzw", "predictor": True, "bigtiff": True},
        "webp.tif": {**tiles, "compression": "webp"},
        "zstd.tif": {**tiles, "compression": "zstd", "byteorder": ">"},
        "packbits.tif": {"photometric": "rgb", "rowsperstrip": 16, "compression": "packbits"},
        "strips.tif": {"photometric": "rgb", "rowsperstrip": 32, "compression": "zlib"},
        "raw.tif": {"photometric": "rgb", **scale},
        "turned.tif": {**tiles, "compression": "zlib", "extratags": [(274, 3, 1, 6, True)]},
        "imagej.tif": {
            "photometric": "rgb", "resolution": (2.0, 2.0), "resolutionunit": 1,
            **_described(b"ImageJ=1.53t\nunit=\\u00B5m\nmin=0.0\n"),
        },
        "strays.svs": {**tiles, **_described(b"Aperio X\r\n|MPP = 0,5|Time = \x8d,\x81")},
    }  # fmt: skip
    for name, options in tiffs.items():
        tifffile.imwrite(folder / name, pixels, **options)
    deep = pixels.astype(np.uint16) * 257
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb", compression="lzw")
    _write_palettes(folder, pixels)
    _write_pages(folder / "pages.tif", pixels)
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    separate = {"planarconfig": "separate", "photometric": "rgb", "tile": (64, 64)}
    tifffile.imwrite(folder / "planes.tif", planes, compression="zlib", **separate)
    named = {"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}}
    grey = {"photometric": "minisblack", "tile": (64, 64), "compression": "zlib"}
    tifffile.imwrite(folder / "planes.ome.tif", planes, metadata=named, **grey)
    _write_ome(folder / "pyramid.ome.tif", pixels)
    _write_philips(folder / "philips.tiff", pixels)
    for name, code in (("jpeg.svs", "jpeg"), ("j2k.svs", 33005)):
        _write_svs(folder / name, pixels, code)
    for name, options in {
        "a.png": {},
        "a.jpg": {"quality": 85},
        "progressive.jpg": {"progressive": True},
        "turned.jpg": {"exif": _turned()},
    }.items():
        Image.fromarray(pixels).save(folder / name, **options)
    Image.fromarray(pixels).quantize(16).save(folder / "palette.png")
    Image.fromarray(np.dstack((pixels, pixels[..., 0]))).save(folder / "alpha.png")
    # Read through OpenSlide, which tells by the content what it is.
    tifffile.imwrite(folder / "openslide.svslide", pixels, **tiles, compression="jpeg")
    _write_zarrs(folder, pixels)
    _write_dicom(folder, pixels)
    _write_profile(folder / PROFILED, pixels)
    _write_masks(folder, pixels)


def _write_zarrs(folder: Path, pixels: Uint8) -> None:
    import numcodecs  # the attacks on models need none of this

    for version in (2, 3):
        _write_zarr(folder / f"v{version}.zarr", pixels, version)
    zlib = {"compressors": numcodecs.Zlib()}
    _write_zarr(folder / "zlib.zarr", pixels, 2, **zlib)
    _write_zarr(folder / "shards.zarr", pixels, 3, shards=(3, 128, 128))


def _write_dicom(folder: Path, pixels: Uint8) -> None:
    from dicom_files import instance, uid  # the attacks on models need none of this

    lossless = {"syntax": uid.JPEG2000Lossless, "colours": "YBR_RCT"}
    (folder / "series").mkdir()
    for name, made in {
        "series/level0.dcm": instance(pixels),
        "series/level1.dcm": instance(pixels[::2, ::2], 1.0, **lossless),
        "sparse.dcm": instance(pixels, sparse=True, without={0}, **lossless),
        "plain.dcm": instance(pixels, syntax=uid.ImplicitVRLittleEndian, colours="RGB"),
    }.items():
        made.save_as(folder / name, enforce_file_format=True)


def _write_profile(path: Path, pixels: Uint8) -> None:
    from icc_profiles import scanner_profile

    profile = scanner_profile(1.8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), iccprofile=profile)


def _described(text: bytes) -> dict[str, object]:
    """What makes tifffile write a description that is not ASCII."""
    return {"metadata": None, "extratags": [(270, 2, len(text) + 1, text + b"\0", True)]}


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def _write_palettes(folder: Path, pixels: Uint8) -> None:
    """With colours of 16 bits, as they should be, and of 8, as some programs write them."""
    quantized = Image.fromarray(pixels).quantize(16)
    colours = np.zeros((256, 3), np.uint16)
    listed = np.reshape(quantized.getpalette(), (-1, 3))
    colours[: len(listed)] = listed
    for name, factor in (("palette.tif", 257), ("palette8.tif", 1)):
        colormap = colours.T * np.uint16(factor)
        indices = np.asarray(quantized)
        tifffile.imwrite(folder / name, indices, photometric="palette", colormap=colormap)


def _write_pages(path: Path, pixels: Uint8) -> None:
    """Many directories with a description each."""
    with tifffile.TiffWriter(path) as writer:
        for index in range(20):
            page = np.ascontiguousarray(pixels[: 170 - index])
            layout = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
            writer.write(page, description=f"page {index} " * 200, metadata=None, **layout)


def is_mask(name: str) -> bool:
    """Whether the file is given as the tissue mask of ``SLIDE``, instead of being a slide."""
    return name.startswith("mask")


def _write_ome(path: Path, pixels: Uint8) -> None:
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    layout = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(pixels, subifds=1, metadata=metadata, **layout)
        writer.write(np.ascontiguousarray(pixels[::2, ::2]), subfiletype=1, **layout)


def _write_philips(path: Path, pixels: Uint8) -> None:
    spacing = '<Attribute Name="DICOM_PIXEL_SPACING">"0.0005" "0.0005"</Attribute>'
    xml = (
        '<DataObject ObjectType="DPUfsImport"><DataObject ObjectType="DPScannedImage"><Attribute'
        f' Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>{spacing}</DataObject></DataObject>'
    )
    layout = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        for step, text in ((1, xml), (2, "level=1")):
            level = np.pad(pixels, ((0, 22), (0, 26), (0, 0)), mode="edge")[::step, ::step]
            writer.write(np.ascontiguousarray(level), tile=(64, 64), description=text, **layout)
        writer.write(pixels[:40, :50], description="Label", **layout)


def _write_svs(path: Path, pixels: Uint8, compression: str | int) -> None:
    options = {"photometric": "rgb", "metadata": None}
    other = {**options, "compression": "lzw"}
    size = "230x170 (64x64) JPEG/RGB Q=30"

    def stored(level: Uint8) -> Iterator[bytes]:
        padded = np.pad(level, ((0, -level.shape[0] % 64), (0, -level.shape[1] % 64), (0, 0)))
        encode: Callable[..., bytes] = imagecodecs.jpeg8_encode
        arguments: dict[str, object] = {"level": 80}
        if compression != "jpeg":
            encode, arguments = imagecodecs.jpeg2k_encode, {"codecformat": "j2k", "level": 30}
        for y in range(0, padded.shape[0], 64):
            for x in range(0, padded.shape[1], 64):
                yield encode(np.ascontiguousarray(padded[y : y + 64, x : x + 64]), **arguments)

    def add_level(writer: tifffile.TiffWriter, level: Uint8, **tags: object) -> None:
        writer.write(
            stored(level), shape=level.shape, dtype=np.uint8, tile=(64, 64),
            compression=compression, **options, **tags,
        )  # fmt: skip

    with tifffile.TiffWriter(path) as writer:
        add_level(writer, pixels, description=f"{APERIO}{size}|AppMag = 20|MPP = 0.5")
        writer.write(pixels[::4, ::4], description=f"{APERIO}{size} -> 58x43 - ", **other)
        add_level(writer, pixels[::2, ::2], description=f"{APERIO}{size} -> 115x85 - ")
        writer.write(pixels[:40, :50], description=f"{APERIO}label 50x40", **other)
        macro = np.full((300, 400, 3), 200, np.uint8)
        writer.write(macro, description=f"{APERIO}macro 400x300", subfiletype=9, **other)


def _write_zarr(path: Path, pixels: Uint8, version: int, **options: Any) -> None:
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=version)
    layout = {"shape": (3, 170, 230), "chunks": (3, 64, 64), "dtype": "u1"}
    array = group.create_array("0", **layout, **options)
    array[...] = np.moveaxis(pixels, -1, 0)
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    axes = [{"name": axis, "unit": "micrometer"} for axis in "cyx"]
    dataset = {"path": "0", "coordinateTransformations": scale}
    told = {"multiscales": [{"axes": axes, "datasets": [dataset]}]}
    group.attrs.update({"ome": told} if version == 3 else told)


def _write_masks(folder: Path, pixels: Uint8) -> None:
    tissue = (pixels[..., 1] < 230).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(tissue).save(stream, format="PNG")
    (folder / "mask.png").write_bytes(stream.getvalue())
    colours = [(0, 0, 0), (255, 0, 0)]
    with MaskWriter(
        folder / "mask.tif",
        PyramidShape(230, 170, 0.5, tile=64),
        palette=colours,
        class_names=["glass", "tissue"],
    ) as writer:
        writer.write_rows(tissue)
