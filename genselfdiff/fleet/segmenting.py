"""Many slides, segmented by the workers of a Dask cluster."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from genselfdiff.errors import GsdError
from genselfdiff.fleet.coordinator import Coordinator
from genselfdiff.fleet.part_queue import Kind, PartQueue, Size, Task
from genselfdiff.fleet.worker import Order, perform
from genselfdiff.models.model_file import LoadedModel
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.progress import progress_bar
from genselfdiff.resumable_file import recorded_bytes, unfinished
from genselfdiff.segmenting.options import Options
from genselfdiff.segmenting.outcome import Outcome
from genselfdiff.segmenting.output_files import OutputFiles
from genselfdiff.segmenting.plan import Plan
from genselfdiff.segmenting.report.summary_csv import SummaryTable
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.segmenting.shards.folder import folder_of, part_files
from genselfdiff.slides import open_slide
from genselfdiff.storage.places import Place, Url, place_of
from genselfdiff.storage.uploading import is_there
from genselfdiff.text import counted

if TYPE_CHECKING:
    from distributed import Client

_COMING = 4
"""At an address slides are cut for so many workers, at the least: others may come."""

_OPENERS = 16
"""Threads that look how large slides are: most of that is waiting for storage."""


def segment_on(
    client: "Client",
    plan: Plan,
    model: LoadedModel,
    options: Options,
    summary: SummaryTable | None,
    progress: bool | None,
) -> Iterator[Outcome]:
    """Do what ``segment_all`` does with a client; slides come in the order in which they end.

    Raises:
        GsdError: as there.
    """
    slides = [slide for slide, _ in plan.pairs]
    masks = [mask.absolute() for _, mask in plan.pairs]
    listed = [None if summary is None else str(slide) for slide in slides]
    order = Order.of(model, _anywhere(options), masks[0].parent, plan.elsewhere)
    with ThreadPoolExecutor(_OPENERS) as pool:
        sizes = list(pool.map(lambda slide: _size_of(slide, model.info, options), slides))
        is_one_process_s = list(pool.map(partial(_is_one_process_s, plan.elsewhere), masks))
    queue = PartQueue(
        sizes,
        whole=[number for number, is_whole in enumerate(is_one_process_s) if is_whole],
        shared=[number for number, mask in enumerate(masks) if folder_of(mask).is_dir()],
        expected=_COMING if client.cluster is None else len(getattr(client.cluster, "plan", ())),
    )
    files = list(zip(map(_absolute, slides), masks, listed, strict=True))
    recorded = partial(_recorded, masks)
    coordinator = Coordinator(client, order, queue, perform, files, recorded)
    seconds: dict[int, float] = defaultdict(float)
    blank: dict[int, int] = defaultdict(int)
    bar = progress_bar(
        total=sum(size.pixels for size in sizes) / 1e6,
        desc=counted(len(slides), "slide"),
        bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}, {remaining} left{postfix}]",
        progress=progress,
    )
    table, done, predicted, begin = _Table(summary), 0, 0, time.perf_counter()
    with bar, closing(table):
        for task, report, ended in coordinator.reports():
            number, work = task.slide, task.pixels
            if report.parts is not None:
                work -= sum(report.parts.values())  # what an earlier run has done of it
            elif report.error is None:
                predicted += work
            seconds[number] += report.seconds
            blank[number] += report.blank
            done += ended
            speed = predicted / 1e6 / (time.perf_counter() - begin)
            bar.set_postfix_str(
                f"{done} done, {speed:.1f} Mpx/s, {counted(coordinator.workers, 'worker')}",
                refresh=False,
            )
            bar.update(work / 1e6)
            if not ended:
                continue
            outcome = Outcome(slides[number], error=report.error)
            if report.result is not None:
                is_merged = task.kind is Kind.MERGE
                result = replace(
                    report.result,
                    slide=slides[number],
                    elsewhere=plan.elsewhere,
                    files=OutputFiles.of(plan.pairs[number][1], options),
                    seconds=seconds[number],
                    blank_tiles=blank[number] if is_merged else report.result.blank_tiles,
                )
                outcome = Outcome(slides[number], result)
                table.add(slides[number], result, None)
            else:
                table.add(slides[number], None, report.error)
            yield outcome


class _Table:
    """The folder's summary, which is written whole each time: for many slides, not after each."""

    def __init__(self, summary: SummaryTable | None) -> None:
        self._summary, self._due = summary, 0.0
        self._rows: list[tuple[Place, SegmentResult | None, GsdError | None]] = []

    def add(self, slide: Place, result: SegmentResult | None, error: GsdError | None) -> None:
        self._rows.append((slide, result, error))
        if time.monotonic() >= self._due:
            self.close()

    def close(self) -> None:
        """Write what waits; the next is due when that has been a small part of the time."""
        begin = time.monotonic()
        if self._summary is not None and self._rows:
            self._summary.add_all(self._rows)
        self._rows.clear()
        self._due = time.monotonic() + 20 * (time.monotonic() - begin)


def _size_of(slide: Place, info: ModelInfo, options: Options) -> Size:
    """How large a slide is; 0 if that cannot be read, which is told when it is its turn."""
    try:
        with open_slide(slide, mpp=options.mpp) as source:
            scale = info.mpp / source.mpp if source.mpp and info.mpp else 1.0
            width, height = (options.region or (0, 0, source.width, source.height))[2:]
            side, _ = options.tiling(info)
            return Size(width * height, round(side * scale * width))
    except GsdError:
        return Size(0, 0)


def _recorded(masks: Sequence[Path], task: Task) -> int:
    """How much the journal tells of the mask, or part of one, that a task makes."""
    mask = masks[task.slide]
    if task.kind is Kind.PART:
        mask = part_files(folder_of(mask), task.part, Options()).mask
    return recorded_bytes(mask)


def _is_one_process_s(elsewhere: Url | None, mask: Path) -> bool:
    """Whether a mask is there, or begun by one process: then none shares it."""
    if folder_of(mask).is_dir():
        return unfinished(mask) is not None
    is_sent = elsewhere is not None and is_there(elsewhere / mask.name)
    return is_sent or os.path.lexists(mask) or unfinished(mask) is not None


def _anywhere(options: Options) -> Options:
    """The same for processes that work in other folders."""
    paths = {
        name: _absolute(place_of(value))
        for name in ("overlay", "table", "tissue")
        if not isinstance(value := getattr(options, name), bool | None)
    }
    return replace(options, **paths)  # type: ignore[arg-type]


def _absolute(place: Place) -> Place:
    return place if isinstance(place, Url) else place.absolute()
