"""Do fields that `gsd suggest` chooses make a better model than fields drawn at random?

    python benchmarks/suggest/measure.py --data FOLDER --results FOLDER [--hours 2] [--only PATTERN]
    python benchmarks/suggest/measure.py --results FOLDER --table

The images of a data set are its slides: of a third of them, part s of three for seed s, the scores
are taken; of the others, fields are chosen by each ranking, cut out with their labels, and a model
is fine-tuned on them alone, as a user would. One in five of the fields, at least one, validates.

- monuseg: the shipped model `nuclei`, which has seen none of its images, on fields of 125 um.
- glas: from scratch, so that no model can be asked where to label; on fields of 160 um.

--results gets a JSON file for each run, and what has one is not done again; checkpoints lie beside
it, in RESULTS-work. Stopped by --hours, Ctrl-C or a kill, the same command goes on where it was.
Several processes may share both folders. --table prints, for each number of fields, the mean score
of each ranking and its difference from random fields of the same seeds, with 95 % intervals
(bootstrap of the seeds, and of the images of each).
"""

import argparse
import hashlib
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from PIL import Image

from genselfdiff.data.labelled.masks import read_mask
from genselfdiff.data.labelled.pairs import Pair, find_pairs
from genselfdiff.data.labelled.splits import split_pairs
from genselfdiff.errors import GsdError
from genselfdiff.evaluation.evaluate import evaluate
from genselfdiff.files import write_text
from genselfdiff.slides import read_image
from genselfdiff.suggesting.suggest import suggest_fields
from genselfdiff.training.export import export
from genselfdiff.training.run_folder import RunFolder
from genselfdiff.training.runs import finetune
from genselfdiff.training.settings.stage_configs import FinetuneConfig
from genselfdiff.working_files import lock, open_own

COUNTS = (3, 5, 10, 20)
SEEDS = range(5)
FOLDS = 3
METRICS = ("dice", "aji", "pq")
DRAWS = 4000


@dataclass(frozen=True)
class Dataset:
    """Labelled images, and how a model of them is made.

    Attributes:
        images, masks: folders within that of the data; masks hold numbers of objects, or 0 and 255.
        mpp: um/px.
        group: what keeps images on one side of a split, as `gsd train finetune --group`.
        size: side of a field in um.
        rankings: that are compared; the first is the baseline.
        settings: of fine-tuning.
    """

    images: str
    masks: str
    mpp: float
    group: str | None
    size: float
    rankings: tuple[str, ...]
    settings: dict[str, object]


DATASETS = {
    "monuseg": Dataset(
        "monuseg2018/train/images",
        "monuseg2018/train/instances",
        0.25,
        "TCGA-..-....",
        125.0,
        ("random", "variety", "model"),
        {"init": "nuclei", "instances": True, "steps": 300, "validate_every": 50},
    ),
    "glas": Dataset(
        "glas2015/images",
        "glas2015/masks",
        0.62,
        None,
        160.0,
        ("random", "variety"),
        {
            "init": "none",
            "architecture": "fastest",
            "width": 32,
            "steps": 600,
            "validate_every": 100,
            "learning_rate": 4e-4,
            "batch_size": 4,
        },
    ),
}


@dataclass(frozen=True)
class Run:
    """One model: of which data set, on how many fields, chosen how."""

    dataset: str
    count: int
    by: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files: readable, and a hash of the data set's settings."""
        settings = hashlib.sha256(repr(DATASETS[self.dataset]).encode()).hexdigest()[:8]
        return f"{self.dataset}-{self.count}-{self.by}-seed{self.seed}-{settings}"


class TimeUp(Exception):
    """The hours are over; the step under way is saved."""


def main() -> None:
    """Do the runs that have no result, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=math.inf, help="after which to stop")
    parser.add_argument("--only", default="*", help="pattern of runs' names, as monuseg-5-*")
    parser.add_argument("--table", action="store_true", help="print what is there")
    options = parser.parse_args()
    if options.table:
        print_table(options.results)
        return
    if options.data is None:
        parser.error("--data: is missing")
    deadline = time.monotonic() + 3600 * options.hours
    runs = [
        Run(dataset, count, by, seed)
        for seed in SEEDS
        for count in COUNTS
        for dataset in DATASETS
        for by in DATASETS[dataset].rankings
    ]
    try:
        for run in (run for run in runs if fnmatchcase(run.name, options.only)):
            done(run, options.data, options.results, deadline)
    except TimeUp:
        print("the hours are over: the same command goes on", flush=True)
    except GsdError as error:
        sys.exit(f"measure.py: {error}")


def done(run: Run, data: Path, results: Path, deadline: float) -> None:
    """Do a run, unless it has a result or another process is at it."""
    result = results / f"{run.name}.json"
    work = results.with_name(f"{results.name}-work") / run.name
    with claimed(work) as mine:
        if not mine or result.exists():
            return
        if time.monotonic() > deadline:
            raise TimeUp
        begin = time.monotonic()
        told = trained_and_scored(run, data, work, deadline)
        results.mkdir(parents=True, exist_ok=True)
        write_text(result, json.dumps(told, indent=1) + "\n")
        print(f"{run.name}: {time.monotonic() - begin:.0f} s", flush=True)


@contextmanager
def claimed(work: Path) -> Iterator[bool]:
    """Whether a run is this process's during the block; the lock ends with the process."""
    work.mkdir(parents=True, exist_ok=True)
    with open_own(work / "claim.lock", create=True) as mark:
        yield lock(mark.fileno()) is not False


def trained_and_scored(run: Run, data: Path, work: Path, deadline: float) -> dict[str, object]:
    """Choose, cut, train and score; what is kept of it."""
    dataset = DATASETS[run.dataset]
    pairs = find_pairs(data / dataset.images, data / dataset.masks)
    fold = (run.seed % FOLDS + 1, FOLDS)
    slides, test = split_pairs(pairs, seed=0, group=dataset.group, fold=fold)
    folder = RunFolder(work / "run")

    def watch(figures: dict[str, float]) -> None:
        if time.monotonic() > deadline:
            raise TimeUp

    if folder.config.exists():
        finetune(FinetuneConfig.read(folder.config), folder.path, resume=True, on_log=watch)
    else:
        cut_fields(run, slides, work / "fields")
        config = FinetuneConfig(
            images=str(work / "fields" / "images"),
            masks=str(work / "fields" / "masks"),
            foreground=True,
            mpp=dataset.mpp,
            seed=run.seed,
            **dataset.settings,
        )
        finetune(config, folder.path, on_log=watch)
    model = work / "model.ts"
    export(folder.path, model, overwrite=True)
    link(test, work / "test")
    report = evaluate(
        model,
        work / "test" / "images",
        work / "test" / "masks",
        mpp=dataset.mpp,
        foreground=True,
        precision="float32",
    )
    for path in (folder.latest, folder.best, model):  # a hundred MB a run
        path.unlink()
    scores = {
        image.name: {key: float(image.by_class[key][1]) for key in METRICS}
        for image in report.images
    }
    return {**vars(run), "settings": dataset.settings, "scores": scores}


def cut_fields(run: Run, slides: list[Pair], folder: Path) -> None:
    """Choose fields of the images, and cut them out with their labels."""
    dataset = DATASETS[run.dataset]
    masks = {pair.image: pair.mask for pair in slides}
    model = str(dataset.settings["init"]) if run.by == "model" else None
    fields = suggest_fields(
        list(masks),
        run.count,
        by=run.by,
        model=model,
        size=dataset.size,
        seed=run.seed,
        mpp=dataset.mpp,
        progress=False,
    )
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, field in enumerate(fields):
        assert isinstance(field.slide, Path)
        rows = slice(field.y, field.y + field.height)
        columns = slice(field.x, field.x + field.width)
        image, mask = read_image(field.slide), read_mask(masks[field.slide])
        name = f"field_{number:02}.png"
        Image.fromarray(image[rows, columns]).save(folder / "images" / name)
        Image.fromarray(mask[rows, columns].astype(np.uint16)).save(folder / "masks" / name)


def link(pairs: list[Pair], folder: Path) -> None:
    """Link images and their masks into a folder."""
    for pair in pairs:
        for part, path in (("images", pair.image), ("masks", pair.mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            place = folder / part / path.name
            if not place.is_symlink():
                place.symlink_to(path.resolve())


def print_table(results: Path) -> None:
    """Print means and paired differences of what is there."""
    scores: dict[tuple[str, int, str], dict[int, dict[str, dict[str, float]]]] = defaultdict(dict)
    for path in sorted(results.glob("*.json")):
        told = json.loads(path.read_text())
        run = Run(*(told[key] for key in ("dataset", "count", "by", "seed")))
        if path.stem == run.name:  # else of other settings
            scores[run.dataset, run.count, run.by][run.seed] = told["scores"]
    for dataset, of in DATASETS.items():
        for count in COUNTS:
            baseline = scores[dataset, count, of.rankings[0]]
            for by in of.rankings:
                seeds = scores[dataset, count, by].keys() & baseline.keys()
                if not seeds:
                    continue
                mine, cells = scores[dataset, count, by], []
                for key in METRICS:
                    values = [[each[key] for each in mine[seed].values()] for seed in seeds]
                    told = f"{key} {np.mean([np.nanmean(each) for each in values]):.3f}"
                    if by != of.rankings[0]:
                        told += difference(
                            [
                                [
                                    numbers[key] - baseline[seed][image][key]
                                    for image, numbers in mine[seed].items()
                                ]
                                for seed in seeds
                            ]
                        )
                    cells.append(told)
                print(f"{dataset:8} {count:3} {by:8} {len(seeds)} seeds  {'  '.join(cells)}")


def difference(of_seeds: list[list[float]]) -> str:
    """Mean of the seeds' means, and its 95 % interval: of seeds drawn anew, and of their images."""
    rng = np.random.default_rng(0)
    arrays = [np.array(each)[~np.isnan(each)] for each in of_seeds]
    drawn = [
        np.mean([rng.choice(each, len(each)).mean() for each in (arrays[i] for i in seeds)])
        for seeds in rng.integers(0, len(arrays), (DRAWS, len(arrays)))
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f" {np.mean([each.mean() for each in arrays]):+.3f} ({low:+.3f} {high:+.3f})"


if __name__ == "__main__":
    main()
