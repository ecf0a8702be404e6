"""An image as any format stores it: pieces, damage, pixels, orientation, resolution."""

from genselfdiff.slides.stored.damage import Damage
from genselfdiff.slides.stored.lengths import micrometres, number
from genselfdiff.slides.stored.orientation import page_orientation, require_upright, turned
from genselfdiff.slides.stored.piece_cache import PieceCache
from genselfdiff.slides.stored.pixel_format import palette_of, refuse_white_zero
from genselfdiff.slides.stored.stated_resolution import PLAUSIBLE_MPP
from genselfdiff.slides.stored.stored_image import MAX_PIXELS_AT_ONCE, is_absurd

__all__ = [
    "MAX_PIXELS_AT_ONCE",
    "PLAUSIBLE_MPP",
    "Damage",
    "PieceCache",
    "is_absurd",
    "micrometres",
    "number",
    "page_orientation",
    "palette_of",
    "refuse_white_zero",
    "require_upright",
    "turned",
]
