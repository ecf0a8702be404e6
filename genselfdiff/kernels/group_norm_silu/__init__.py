"""GroupNorm, SiLU and what the residual block adds after them."""
