"""Structural similarity and focal loss."""
