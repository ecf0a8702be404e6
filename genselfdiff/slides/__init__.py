"""Reading slides and images window by window, finding tissue, writing label masks: numpy only."""

import logging

from genselfdiff.slides.discovery import IMAGE_SUFFIXES, find_slides, is_folder_of_slides
from genselfdiff.slides.mask_objects import write_objects
from genselfdiff.slides.mask_reader import MaskReader
from genselfdiff.slides.mask_writer import MaskWriter, is_own_mask
from genselfdiff.slides.overlay import write_overlay
from genselfdiff.slides.probability_writer import ProbabilityWriter, as_bytes
from genselfdiff.slides.pyramid_writer import PyramidWriter
from genselfdiff.slides.reader import Level, Slide, open_slide, read_image
from genselfdiff.slides.scaled_view import ScaledView
from genselfdiff.slides.tissue import TissueMap, tissue_mask

# tifffile reports damaged tags through logging; what matters of them we raise as InputError.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

__all__ = [
    "IMAGE_SUFFIXES",
    "Level",
    "MaskReader",
    "MaskWriter",
    "ProbabilityWriter",
    "PyramidWriter",
    "ScaledView",
    "Slide",
    "TissueMap",
    "as_bytes",
    "find_slides",
    "is_folder_of_slides",
    "is_own_mask",
    "open_slide",
    "read_image",
    "tissue_mask",
    "write_objects",
    "write_overlay",
]
