"""The one family of errors that genselfdiff raises on purpose.

The command line prints them as one line without a traceback, so every message says what is wrong,
with which file, and what to do about it.
"""

import errno
import re

from genselfdiff.text import shown

_LONGEST_FOREIGN = 200
"""Characters kept of another library's message: some quote the damaged data."""

_NO_MEMORY = re.compile(
    r"out of memory|(can't|cannot) allocate memory|not enough memory|size calculation overflowed",
    re.I,
)
"""What torch says then: its errors, and those of TorchScript, have no class for it."""

_FROM_A_PROCESS = "Caught "
"""How torch begins what it says of an error of a data-loading process."""


class GsdError(Exception):
    """Base of every error that genselfdiff raises for a cause outside its own code."""


class InputError(GsdError, ValueError):
    """A file, folder or option that the user gave cannot be used."""


class ModelError(GsdError, ValueError):
    """A model file, checkpoint or run folder is not one of ours, damaged, or does not fit."""


class OutputError(GsdError, OSError):
    """A result cannot be written: the target exists, the disk is full, permission is missing."""


class InUseError(OutputError):
    """Another process is writing it just now."""


class TrainingError(GsdError):
    """Training cannot go on: the loss is no longer a number."""


def one_line(error: BaseException) -> str:
    """Return what ``error`` says as one line, never empty, fit to be printed or quoted.

    torch passes on errors of TorchScript and of data-loading processes with a traceback in their
    message, which then says "module.Class: message" below its first line.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, GsdError) and not text.startswith(_FROM_A_PROCESS):
        # As a whole: a file's name in it may have a second line that looks like an error.
        return shown(text.strip()) or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [re.match(r"[\w.]+(?:Error|Exception): (.+)", line) for line in lines[1:]]
    told = [match[1] for match in raised if match][-1:] or lines or [type(error).__name__]
    return shown(told[0][:_LONGEST_FOREIGN])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch or the system has failed for want of memory."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def outside_cause(error: BaseException) -> str | None:
    """What stopped a command that is not in its code: a limit of the machine, or a file.

    Returns:
        A line for people; None: the cause is not known to be one of these.
    """
    if is_out_of_memory(error):
        return "there is not enough memory: use smaller tiles or batches, or end other programs"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "the limit of open files is reached: raise it (ulimit -n)"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "the limit of processes and threads is reached: raise it (ulimit -u)"
    if isinstance(error, OSError) and isinstance(error.filename, str):
        return f"{error.filename}: {one_line(error)}"
    return None
