"""Whole slide images in DICOM."""
