"""Several slides in one run, of which a bad one does not stop the others."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Unpack

from genselfdiff.errors import GsdError, InputError
from genselfdiff.files import refuse_inputs
from genselfdiff.machine import forget_peak
from genselfdiff.models.model_file import LoadedModel, find_model
from genselfdiff.segmenting.estimate import SlideEstimate, estimate_slide
from genselfdiff.segmenting.one_slide import predictor_of, segment_to
from genselfdiff.segmenting.options import OptionArguments, Options
from genselfdiff.segmenting.outcome import Outcome, failure_of
from genselfdiff.segmenting.output_files import OutputFiles
from genselfdiff.segmenting.plan import Plan
from genselfdiff.segmenting.report.summary_csv import SummaryTable
from genselfdiff.segmenting.result import SegmentResult
from genselfdiff.segmenting.shards.part import (
    PartResult,
    Piece,
    Shard,
    Share,
    segment_part,
    share_out,
)
from genselfdiff.slides import open_slide
from genselfdiff.storage.places import Place, local_paths

if TYPE_CHECKING:
    from distributed import Client


def segment_all(
    plan: Plan,
    model: LoadedModel | str | Place | None = None,
    *,
    overwrite: bool = False,
    progress: bool | None = None,
    dry_run: bool = False,
    shard: Shard | None = None,
    client: "Client | None" = None,
    **options: Unpack[OptionArguments],
) -> Iterator[Outcome]:
    """Segment each slide of ``plan`` into its mask; a slide that fails is told and passed over.

    A folder of masks has a ``summary.csv``, see ``SummaryTable``.

    Args:
        plan: see ``plan_outputs``.
        model: as for ``segment``; it is loaded once.
        overwrite: as for ``segment``.
        progress: as for ``segment``.
        dry_run: ``estimate`` each slide instead; nothing is written.
        shard: do this share of the work only, see ``shards``.
        client: of a Dask cluster, whose workers do it: slides come as they are done, and parts of
            large ones are shared out. They see the folder of the masks; of masks by URL the
            ``scratch`` of the plan. Without ``overwrite``, ``dry_run`` and ``shard``.
        **options: as for ``segment``.

    Raises:
        InputError: an option is out of range, or excluded by ``client``.
        GsdError: the cluster has no worker that fits, or its scheduler is gone; the same call goes
            on.
        ModelError: there is no model, or it is not one of ours.
        OutputError: the folder cannot be made, or an output is an input.
    """
    chosen = Options(**options)
    if client is None:
        predictor = predictor_of(model, chosen)
        model = predictor.model
    else:
        if overwrite or dry_run or shard is not None:
            raise InputError("with a client, neither overwrite, dry_run nor shard can be given")
        model = find_model(model, "cpu")
    chosen = chosen.for_model(model.info)
    outputs = [file for _, mask in plan.pairs for file in OutputFiles.of(mask, chosen).all()]
    slides = (slide for slide, _ in plan.pairs)
    refuse_inputs(outputs, local_paths([model.path, *slides]))
    if not dry_run:
        plan.make_folder()
    summary = None
    if plan.folder is not None and not dry_run:
        summary = SummaryTable(plan.folder, plan.elsewhere)
    if client is not None:
        from genselfdiff.fleet.segmenting import segment_on

        yield from segment_on(client, plan, model, chosen, summary, progress)
        return
    shares: list[list[Piece]] = [[Piece(1, 0.0, 1.0)] for _ in plan.pairs]
    if shard is not None:
        shares = share_out([_pixels(slide) for slide, _ in plan.pairs], shard.count)
    for (slide, mask), pieces in zip(plan.pairs, shares, strict=True):
        if shard is not None and shard.index not in [piece.shard for piece in pieces]:
            continue
        try:
            result: SegmentResult | PartResult | SlideEstimate
            if dry_run:
                result = estimate_slide(slide, predictor, chosen)
                forget_peak()  # the next slide may take less
                if shard is not None:
                    result = result.part(
                        sum(p.end - p.begin for p in pieces if p.shard == shard.index)
                    )
            elif shard is not None and len(pieces) > 1:
                share = Share(shard, pieces, str(slide) if plan.folder is not None else None)
                result = segment_part(
                    plan.elsewhere, slide, mask, predictor, chosen, share, progress
                )
            else:
                result = segment_to(
                    plan.elsewhere,
                    slide,
                    mask,
                    predictor,
                    chosen,
                    overwrite=overwrite,
                    progress=progress,
                )
            outcome = Outcome(slide, result=result)
        except Exception as error:
            outcome = Outcome(slide, error=failure_of(slide, error))
        if summary is not None and not isinstance(outcome.result, PartResult | SlideEstimate):
            summary.add(slide, outcome.result, outcome.error)
        yield outcome


def _pixels(slide: Place) -> int:
    """How large a slide is; 0 if that cannot be read, which is told when it is its turn."""
    try:
        with open_slide(slide) as source:
            return source.width * source.height
    except GsdError:
        return 0
