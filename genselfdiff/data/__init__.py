"""Training data: unlabelled tiles, labelled pairs, splits and augmentation."""

from genselfdiff.data.labelled_crops import LabelledCrops
from genselfdiff.data.labelled_images import LabelledImages
from genselfdiff.data.masks import read_mask
from genselfdiff.data.pairs import MaskSummary, Pair, find_pairs, inspect_masks, load_pair
from genselfdiff.data.splits import budgeted, split_pairs
from genselfdiff.data.tiles import TileSource, UnlabelledTiles, open_sources, split_sources

__all__ = [
    "LabelledCrops",
    "LabelledImages",
    "MaskSummary",
    "Pair",
    "TileSource",
    "UnlabelledTiles",
    "budgeted",
    "find_pairs",
    "inspect_masks",
    "load_pair",
    "open_sources",
    "read_mask",
    "split_pairs",
    "split_sources",
]
