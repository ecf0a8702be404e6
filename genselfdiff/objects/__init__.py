"""From a mask to its objects: polygons, instances, measures, tables and images of their numbers."""

from genselfdiff.objects.instances import (
    SEED_DISTANCE,
    choose_splitter,
    least_area,
    seed_distance_in_pixels,
    taken_apart,
)
from genselfdiff.objects.label_array import NumberedObjects, number_objects, windows_of
from genselfdiff.objects.mask_objects import MaskObjects, check_min_area, write_objects
from genselfdiff.objects.table import TABLE_SUFFIXES, check_table

__all__ = [
    "SEED_DISTANCE",
    "TABLE_SUFFIXES",
    "MaskObjects",
    "NumberedObjects",
    "check_min_area",
    "check_table",
    "choose_splitter",
    "least_area",
    "number_objects",
    "seed_distance_in_pixels",
    "taken_apart",
    "windows_of",
    "write_objects",
]
