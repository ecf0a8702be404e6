"""Predicting with a model: tiles, their blending, and the way to a resolution asked for."""
