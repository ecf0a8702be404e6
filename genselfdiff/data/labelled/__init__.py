"""Labelled images and their masks: pairs, what masks mean, splits, crops and augmentation."""
