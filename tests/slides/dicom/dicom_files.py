"""Whole slide images in DICOM, written frame by frame with pydicom."""

from collections.abc import Collection
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

pydicom = pytest.importorskip("pydicom")
uid = pydicom.uid

Uint8 = NDArray[np.uint8]

TILE = 64


def encoded(tile: Uint8, syntax: str, colours: str) -> bytes:
    """A frame as the transfer syntax and the photometric interpretation say."""
    tile = np.ascontiguousarray(tile)
    if syntax == uid.JPEGBaseline8Bit:
        space = {"RGB": "rgb", "MONOCHROME2": "gray"}.get(colours, "ycbcr")
        options = {"colorspace": None if tile.ndim == 2 else "rgb", "outcolorspace": space}
        sampling = "422" if colours == "YBR_FULL_422" else "444"
        return imagecodecs.jpeg8_encode(tile, level=92, subsampling=sampling, **options)
    if syntax == uid.HTJ2KLossless:
        return imagecodecs.htj2k_encode(tile)
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        quality = {"reversible": True, "level": 0} if syntax.endswith("90") else {"level": 45}
        mct = colours.startswith("YBR")
        return imagecodecs.jpeg2k_encode(tile, codecformat="j2k", mct=mct, **quality)
    return tile.tobytes()


def dataset(**elements: Any) -> "pydicom.Dataset":
    made = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def instance(
    pixels: Uint8,
    mpp: float = 0.5,
    syntax: str = uid.JPEGBaseline8Bit,
    colours: str = "YBR_FULL_422",
    sparse: bool = False,
    without: Collection[int] = (),
    series: str = "1.2.3",
    **elements: Any,
) -> "pydicom.Dataset":
    """A level, with more or other ``elements``.

    Args:
        pixels: (h, w, 3), or (h, w) grey.
        mpp: micrometres per pixel.
        syntax: the transfer syntax.
        colours: the photometric interpretation.
        sparse: frames tell where they are, and lie in reverse; those in ``without`` are left out.
        without: numbers of tiles.
        series: the series instance UID.
        **elements: by keyword; None: it is left out.
    """
    height, width = pixels.shape[:2]
    beyond = ((0, -height % TILE), (0, -width % TILE), *[(0, 0)] * (pixels.ndim - 2))
    padded = np.pad(pixels, beyond, mode="edge")
    corners = [(x, y) for y in range(0, height, TILE) for x in range(0, width, TILE)]
    kept = [corner for number, corner in enumerate(corners) if number not in without]
    made = dataset(
        SOPClassUID=uid.VLWholeSlideMicroscopyImageStorage,
        SOPInstanceUID=uid.generate_uid(),
        StudyInstanceUID="1.2.2",
        SeriesInstanceUID=series,
        FrameOfReferenceUID="1.2.4",
        PyramidUID=f"{series}.1",
        Modality="SM",
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        TotalPixelMatrixColumns=width,
        TotalPixelMatrixRows=height,
        TotalPixelMatrixFocalPlanes=1,
        NumberOfOpticalPaths=1,
        Columns=TILE,
        Rows=TILE,
        NumberOfFrames=len(kept),
        ImagedVolumeWidth=width * mpp / 1000,
        ImagedVolumeHeight=height * mpp / 1000,
        SamplesPerPixel=1 if pixels.ndim == 2 else 3,
        PhotometricInterpretation=colours,
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        DimensionOrganizationType="TILED_SPARSE" if sparse else "TILED_FULL",
        OpticalPathSequence=[dataset(OpticalPathIdentifier="1", ObjectiveLensPower=20.0)],
        TotalPixelMatrixOriginSequence=[
            dataset(XOffsetInSlideCoordinateSystem=20.0, YOffsetInSlideCoordinateSystem=40.0)
        ],
        ImageOrientationSlide=[0, -1, 0, -1, 0, 0],
        SharedFunctionalGroupsSequence=[
            dataset(PixelMeasuresSequence=[dataset(PixelSpacing=[mpp / 1000, mpp / 1000])])
        ],
    )
    if sparse:
        kept = kept[::-1]
        made.PerFrameFunctionalGroupsSequence = [frame_at(*corner) for corner in kept]
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    put_frames(
        made, [encoded(padded[y : y + TILE, x : x + TILE], syntax, colours) for x, y in kept]
    )
    for keyword, value in elements.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def frame_at(x: int, y: int, depth: float = 0.0, path: str = "1") -> "pydicom.Dataset":
    """What tells the place of a frame."""
    place = dataset(
        ColumnPositionInTotalImagePixelMatrix=x + 1,
        RowPositionInTotalImagePixelMatrix=y + 1,
        ZOffsetInSlideCoordinateSystem=depth,
    )
    paths = [dataset(OpticalPathIdentifier=path)]
    return dataset(
        PlanePositionSlideSequence=[place],
        OpticalPathIdentificationSequence=paths,
        FrameContentSequence=[dataset(DimensionIndexValues=[x // TILE + 1, y // TILE + 1])],
    )


def put_frames(made: "pydicom.Dataset", frames: list[bytes], **options: Any) -> None:
    """Store frames as compressed or plain pixels; ``options`` as `pydicom.encaps.encapsulate`."""
    if made.file_meta.TransferSyntaxUID.is_encapsulated:
        made.PixelData = pydicom.encaps.encapsulate(frames, **options)
        made["PixelData"].is_undefined_length = True
    else:
        made.PixelData = b"".join(frames)
    made["PixelData"].VR = "OB"
    made.NumberOfFrames = len(frames)


def frames_of(made: "pydicom.Dataset") -> list[bytes]:
    frames = pydicom.encaps.generate_frames(made.PixelData, number_of_frames=made.NumberOfFrames)
    return list(frames)
