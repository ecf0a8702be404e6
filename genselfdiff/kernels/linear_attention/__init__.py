"""Attention linear in the number of pixels, from its input norm to the residual sum."""
