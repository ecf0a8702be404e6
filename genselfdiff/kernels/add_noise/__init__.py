"""Forward diffusion with counter-based noise."""
