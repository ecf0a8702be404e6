"""The study's runs, from a plan in TOML: what each trains on, how, and what its result is called.

Each run of ``plan.toml`` costs its steps of stage 2, and those of stage 1 are shared by all runs of
a data set, seed and form of stage 1. The central comparison takes 3 data sets x 3 seeds x (1,200
steps of stage 1 + 3 budgets x (600 + 600 + 1,800)) = 91,800 steps: 6 hours of processor time at
0.24 s a step, which is what 20 steps of either stage took on one thread with AVX-512 (bf16).
Validations and tests come to that, `run.py --dry-run` says how many hours.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from genselfdiff.errors import InputError
from genselfdiff.input_files import read_toml

STAGE_1 = "stage 1"
"""``init`` of an arm that is pretrained on the images of its data set."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """Labelled images.

    Attributes:
        name: of the set.
        images, masks: folders within that of the data.
        mpp: um/px of the images, at which networks are trained.
        objects: folder of masks with the numbers of objects, where ``masks`` has none.
        group: what keeps images on one side of a split, as `gsd train finetune --group`.
    """

    name: str
    images: str
    masks: str
    mpp: float
    objects: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Arm:
    """One thing that is compared.

    Attributes:
        name: of the arm.
        init: "none", ``STAGE_1``, or a model of `gsd models`.
        pretrain, finetune: all settings of the stages, but for data and seed.
        alone: what of them is the arm's own, by "stage.name".
    """

    name: str
    init: str
    pretrain: Settings
    finetune: Settings
    alone: Settings


@dataclass(frozen=True)
class Run:
    """One run of stage 2, and what it starts from.

    Attributes:
        part: of the study.
        dataset: what it learns.
        arm: how.
        budget: one label of so many is used.
        seed: of weights, crops and noise; says which images test, too.
        folds: parts of the images, one of which tests.
    """

    part: str
    dataset: Dataset
    arm: Arm
    budget: int
    seed: int
    folds: int

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What tells it from the others of a plan."""
        return self.dataset.name, self.budget, self.arm.name, self.seed

    @property
    def name(self) -> str:
        """The same to read."""
        labels = "all" if self.budget == 1 else f"1-{self.budget}"
        return f"{self.dataset.name}-{labels}-{self.arm.name}-seed{self.seed}"

    @property
    def pretrain_steps(self) -> int:
        """Of stage 1; 0 without."""
        return int(self.arm.pretrain["steps"]) if self.arm.init == STAGE_1 else 0

    @property
    def settings(self) -> Settings:
        """All that decides its result, but for the images."""
        told = {"init": self.arm.init, "budget": self.budget, "finetune": self.arm.finetune}
        before = {"pretrain": self.arm.pretrain} if self.pretrain_steps else {}
        return told | before | self._of_data()

    def identity(self, images: str) -> str:
        """Name of its result: readable, and a hash of its settings and of ``images``."""
        return f"{self.name}-{digest([self.settings, images])}"

    def stage_1(self, images: str) -> str:
        """Name of the run of stage 1, which is one for all numbers of steps."""
        decisive = {key: value for key, value in self.arm.pretrain.items() if key != "steps"}
        hashed = digest([decisive, self._of_data(), images])
        return f"{self.dataset.name}-stage1-seed{self.seed}-{hashed}"

    def _of_data(self) -> Settings:
        data = {"mpp": self.dataset.mpp, "group": self.dataset.group, "folds": self.folds}
        return {"seed": self.seed, "data": data}


@dataclass(frozen=True)
class Plan:
    """All runs, the most wanted first; and the arms that others are compared with."""

    runs: tuple[Run, ...]
    baselines: tuple[str, ...]


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        InputError: it cannot be read, or names a data set or arm that it does not have.
    """
    content = read_toml(path)
    try:
        datasets = {name: Dataset(name, **told) for name, told in content["datasets"].items()}
        arms = {name: _arm(name, told, content) for name, told in content["arms"].items()}
        runs: dict[tuple[str, int, str, int], Run] = {}
        for part in content["parts"]:
            for seed in content["seeds"]:
                for budget in part["budgets"]:
                    for dataset in part["datasets"]:
                        for arm in part["arms"]:
                            run = Run(
                                part["name"],
                                datasets[dataset],
                                arms[arm],
                                budget,
                                seed,
                                content["folds"],
                            )
                            runs.setdefault(run.key, run)
        for run, steps in stage_1_steps(tuple(runs.values())):
            if steps % run.arm.pretrain["keep_every"]:
                raise InputError(f"{path}: {run.arm.name}: {steps} steps of stage 1 are not kept")
        return Plan(tuple(runs.values()), tuple(content["baselines"]))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: no plan of the study: {error}") from error


def chosen(runs: Sequence[Run], only: str | None, share: tuple[int, int]) -> list[Run]:
    """Those whose name or part matches the pattern, and of these the K-th of N shares.

    Shares take about as many steps each. Runs that start from one stage 1 go to one share, so that
    no machine has to repeat it.
    """
    matching = [
        run
        for run in runs
        if only is None or fnmatchcase(run.name, only) or fnmatchcase(run.part, only)
    ]
    number, count = share
    filled, share_of = [0] * count, dict[str, int]()
    for run in matching:
        together = run.stage_1("") if run.pretrain_steps else run.name
        if together not in share_of:
            share_of[together] = filled.index(min(filled))
            filled[share_of[together]] += run.pretrain_steps
        filled[share_of[together]] += run.arm.finetune["steps"]
    return [
        run
        for run in matching
        if share_of[run.stage_1("") if run.pretrain_steps else run.name] == number - 1
    ]


def digest(value: object) -> str:
    """Eight hexadecimal digits that another value hardly has."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def stage_1_steps(runs: Sequence[Run]) -> Iterator[tuple[Run, int]]:
    """A run of each stage 1 that is needed, and to how many steps."""
    most: dict[str, tuple[Run, int]] = {}
    for run in runs:
        if run.pretrain_steps:
            name = run.stage_1("")
            before = most[name][1] if name in most else 0
            most[name] = (run, max(before, run.pretrain_steps))
    yield from most.values()


def _arm(name: str, told: Settings, content: Settings) -> Arm:
    alone = {
        f"{stage}.{setting}": value
        for stage in ("pretrain", "finetune")
        for setting, value in told.get(stage, {}).items()
    }
    return Arm(
        name,
        told["init"],
        content["pretrain"] | told.get("pretrain", {}),
        content["finetune"] | told.get("finetune", {}),
        alone,
    )
