"""The one family of errors that genselfdiff raises on purpose.

The command line prints them as one line without a traceback, so every message says what is wrong,
with which file, and what to do about it.
"""


class GsdError(Exception):
    """Base of every error that genselfdiff raises for a cause outside its own code."""


class InputError(GsdError, ValueError):
    """A file, folder or option that the user gave cannot be used."""


class ModelError(GsdError, ValueError):
    """A model file, checkpoint or run folder is not one of ours, damaged, or does not fit."""


class OutputError(GsdError, OSError):
    """A result cannot be written: the target exists, the disk is full, permission is missing."""


class TrainingError(GsdError):
    """Training cannot go on: the loss is no longer a number."""
