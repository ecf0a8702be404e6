"""Reading slides and images window by window, and finding tissue; without torch."""

import logging

from genselfdiff.slides.discovery import IMAGE_SUFFIXES, find_slides, is_folder_of_slides
from genselfdiff.slides.opening import open_slide, read_image
from genselfdiff.slides.scaled_view import ScaledView
from genselfdiff.slides.slide import Level, Slide
from genselfdiff.slides.tissue import TissueMap, tissue_mask

# tifffile reports damaged tags through logging; what matters of them we raise as InputError.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


__all__ = [
    "IMAGE_SUFFIXES",
    "Level",
    "ScaledView",
    "Slide",
    "TissueMap",
    "find_slides",
    "is_folder_of_slides",
    "open_slide",
    "read_image",
    "tissue_mask",
]
