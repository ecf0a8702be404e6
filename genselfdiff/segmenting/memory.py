"""How much memory segmenting a slide takes, told beforehand and kept within a limit."""

import math

from genselfdiff.errors import InputError
from genselfdiff.inference.predictor import MAX_WORKERS
from genselfdiff.machine import forget_peak, peak_bytes, resident_bytes
from genselfdiff.segmenting.slide_task import SlideTask

READ_AHEAD = 4
"""Batches that wait between the reader and the model."""

_MASK_TILE, _PROBABILITY_TILE = 512, 256
"""Rows and columns of the tiles that ``MaskWriter`` and ``ProbabilityWriter`` gather."""


def memory_bound(task: SlideTask, batch_size: int, workers: int = MAX_WORKERS) -> int:
    """Bytes that segmenting a slide holds at most beside libraries, model and activations."""
    layout, info = task.layout, task.predictor.model.info
    grid, columns, channels = layout.grid, layout.window[2], info.channels
    tile = grid.rows.tile * grid.columns.tile
    width = len(layout.resizer.columns) + 2 * grid.columns.tile
    deepest = max((grid.rows.tile - grid.rows.step(i) for i in grid.rows.needed[:-1]), default=0)
    # Rows that the next row of tiles reaches into; a block of tiles before and after it is resized.
    blended = 4 * channels * (deepest * width + 8 * math.ceil(layout.scale + 1) ** 2 * tile)
    # Of each plane of the files what a row of tiles gives, and what their pyramids wait to fill.
    pushed = 2 * math.ceil(grid.rows.tile * layout.scale)
    gathered = pushed + 3 * 2 * _MASK_TILE
    if info.instances:  # a plane without a pyramid
        gathered += pushed + 2 * _MASK_TILE
    if task.options.probabilities:
        gathered += len(info.classes) * (pushed + 3 * 2 * _PROBABILITY_TILE)
    level0 = gathered * (columns + 2 * _MASK_TILE)
    waiting = 3 * (READ_AHEAD + 2) + (3 + 4 * channels) * (2 * workers + 2)
    return task.source.memory_bound() + blended + level0 + waiting * batch_size * tile


def keep_within_limit(task: SlideTask, batch_size: int) -> None:
    """Let as many workers predict as ``max_memory``, where it is set, has room for.

    Their activations are measured with one batch, beginning from what the process holds now; once,
    as a later slide finds memory that workers have left to the allocator, and nothing new is held.

    Raises:
        InputError: one worker alone needs more.
    """
    limit, layout, predictor = task.options.max_memory, task.layout, task.predictor
    if limit is None or not layout.grid.tiles:
        return
    size = (layout.grid.rows.tile, layout.grid.columns.tile, batch_size)
    if size not in predictor.held:
        predictor.held[size] = _measured(task, batch_size)
    held, activations = predictor.held[size]

    def needed(workers: int) -> int:
        # The allocator may keep what this thread has used, in pieces that do not fit the others.
        return held + (workers + 1) * activations + memory_bound(task, batch_size, workers)

    if needed(1) > limit:
        raise InputError(
            f"{task.source.path}: needs {needed(1) / 2**30:.2f} GiB of memory with one worker, more"
            f" than the {limit / 2**30:.2f} GiB of --max-memory: raise that, or use a smaller"
            " --batch-size, --tile-size or --region"
        )
    predictor.max_workers = max(n for n in range(1, MAX_WORKERS + 1) if needed(n) <= limit)


def _measured(task: SlideTask, batch_size: int) -> tuple[int, int]:
    """Bytes that the process holds, and those of the activations of a batch."""
    layout, predictor = task.layout, task.predictor
    held = resident_bytes()
    forget_peak()
    for read in list(layout.grid.batches(layout.view, batch_size))[:1]:
        batch = read()
        for _ in range(3):  # TorchScript prepares itself in the first calls
            predictor(batch)
    return held, max(peak_bytes() - held, 0)
