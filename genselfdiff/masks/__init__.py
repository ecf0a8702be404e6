"""Masks: written and read as pyramids of class indices, with cores and probabilities, and drawn."""

from genselfdiff.masks.mask_cores import MaskCores
from genselfdiff.masks.mask_reader import MaskReader
from genselfdiff.masks.mask_writer import MaskWriter, is_own_class_mask, is_own_mask
from genselfdiff.masks.ome_description import OME_SUFFIXES
from genselfdiff.masks.overlay import draw_overlay, lay_over, mark_edges, write_overlay
from genselfdiff.masks.probability_writer import ProbabilityWriter, as_bytes
from genselfdiff.masks.probability_zarr import job_of_zarr, write_probability_zarr
from genselfdiff.masks.pyramid_pages import PyramidShape
from genselfdiff.masks.pyramid_writer import PyramidWriter

__all__ = [
    "OME_SUFFIXES",
    "MaskCores",
    "MaskReader",
    "MaskWriter",
    "ProbabilityWriter",
    "PyramidShape",
    "PyramidWriter",
    "as_bytes",
    "draw_overlay",
    "is_own_class_mask",
    "is_own_mask",
    "job_of_zarr",
    "lay_over",
    "mark_edges",
    "write_overlay",
    "write_probability_zarr",
]
