"""Several slides in one run, of which a bad one does not stop the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genselfdiff.errors import GsdError, InputError, OutputError
from genselfdiff.inference.engine import SegmentResult, find_model, segment
from genselfdiff.inference.model_file import LoadedModel
from genselfdiff.slides import find_slides


@dataclass(frozen=True)
class Outcome:
    """What became of one slide: exactly one of ``result`` and ``error`` is set."""

    slide: Path
    result: SegmentResult | None = None
    error: GsdError | None = None


def plan_outputs(slides: Sequence[str | Path], output: str | Path) -> list[tuple[Path, Path]]:
    """Pair every slide with its mask.

    A single slide goes to ``output`` itself, unless that is a folder. Several slides, or a folder
    of them, go into the folder ``output``, made if need be, as ``<name>_mask.tif``.

    Raises:
        InputError: a folder holds no slide, or two slides have the same name.
        OutputError: ``output`` is a file where a folder is needed, or cannot be made.
    """
    output = Path(output)
    paths: list[Path] = []
    for slide in map(Path, slides):
        paths += find_slides([slide]) if slide.is_dir() else [slide]
    if len(slides) == 1 and not Path(slides[0]).is_dir() and not output.is_dir():
        return [(paths[0], output)]
    taken: dict[str, Path] = {}
    for path in paths:
        if path.stem in taken:
            raise InputError(
                f"{path}: its mask would have the name of that of {taken[path.stem]}: segment them"
                " into different folders"
            )
        taken[path.stem] = path
    try:
        output.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{output}: is a file: for several slides name a folder") from error
    except OSError as error:
        raise OutputError(f"{output}: the folder cannot be made: {error.strerror}") from error
    return [(path, output / f"{path.stem}_mask.tif") for path in paths]


def segment_all(
    plan: Sequence[tuple[Path, Path]],
    model: LoadedModel | str | Path | None = None,
    *,
    device: str | None = None,
    **options: Any,
) -> Iterator[Outcome]:
    """Segment each slide of ``plan`` into its mask; a slide that fails is told and passed over.

    Args:
        plan: (slide, mask) paths, see ``plan_outputs``.
        model: as for ``segment``; loaded once.
        device: as for ``segment``.
        **options: handed to ``segment``.

    Raises:
        ModelError: there is no model, or it is not one of ours.
    """
    loaded = find_model(model, device)
    for slide, output in plan:
        try:
            yield Outcome(slide, result=segment(slide, output, loaded, **options))
        except GsdError as error:
            yield Outcome(slide, error=error)
