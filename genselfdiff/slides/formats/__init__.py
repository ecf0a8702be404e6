"""Formats that slides are stored in, each opened as a ``StoredImage``."""

from genselfdiff.slides.formats.ome_zarr import ZARR_SUFFIX
from genselfdiff.slides.formats.tiff_codecs import piece_decoder
from genselfdiff.slides.formats.tiff_directories import check_directories, is_tiff
from genselfdiff.slides.formats.tiff_pages import require_one_mask

__all__ = [
    "ZARR_SUFFIX",
    "check_directories",
    "is_tiff",
    "piece_decoder",
    "require_one_mask",
]
