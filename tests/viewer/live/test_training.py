"""Training that is begun in the page: runs, their curves, and the models that come of them."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from live_processes import eventually
from viewer_client import Client

from genselfdiff.live.jobs import training as training_module
from genselfdiff.live.jobs.job import Jobs
from genselfdiff.live.jobs.jobs_part import jobs_part
from genselfdiff.live.jobs.segmenting import Segmenting
from genselfdiff.live.jobs.training import Training, TrainingPlan
from genselfdiff.live.predictions import Model
from genselfdiff.training.settings.stage_configs import FinetuneConfig
from genselfdiff.viewer.collection import Entry
from genselfdiff.viewer.corrections.folder import Corrections, DrawnSlide
from genselfdiff.viewer.library import Library

OPTIONS = ("--device=cpu", "--architecture=tiny", "--width=8", "--tile-size=64", "--batch-size=2")


class Given:
    """Takes the models that training gives."""

    def __init__(self) -> None:
        self.models: list[Model] = []

    def add(self, model: Model) -> None:
        self.models.append(model)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    with closing(Jobs()) as jobs:
        yield jobs


def trained(labelled: Path, steps: int, jobs: Jobs) -> tuple[Client, Given]:
    """What asks for training with a folder, and who is given its models."""
    given = Given()
    options = (*OPTIONS, f"--steps={steps}", "--log-every=1", f"--validate-every={steps}")
    plan = TrainingPlan(labelled, labelled.parent / "runs", "none", options)
    library = Library([Entry(labelled / "images" / "0.tif")])
    made: Any = Training(plan, given, jobs)  # type: ignore[arg-type]
    return Client(library, jobs_part(Segmenting(library, [], None, [], jobs), made)), given


def act(client: Client, what: str) -> None:
    answer = client.request("POST", "jobs/train", json={"do": what})
    assert answer.status_code == 200, answer.text


def test_a_run_that_was_stopped_goes_on_and_ends_as_a_model_that_predicts(
    labelled: Path, jobs: Jobs
) -> None:
    client, given = trained(labelled, 30, jobs)
    before = client.get("jobs/train").json()
    assert (before["job"], before["run"], before["unfinished"]) == (None, "", False)
    for _ in range(2):  # the second changes nothing
        act(client, "start")
    eventually(lambda: len(client.get("jobs/train").json()["loss"]) > 1)
    act(client, "stop")
    told = eventually(
        lambda: (told := client.get("jobs/train").json())["job"]["state"] == "stopped" and told
    )
    assert told["unfinished"]
    assert len(told["loss"]) < 30

    again, given = trained(labelled, 30, jobs)  # another server
    assert again.get("jobs/train").json()["unfinished"]
    act(again, "go on")
    told = eventually(
        lambda: (told := again.get("jobs/train").json())["job"]["state"] == "done" and told
    )
    run = labelled.parent / "runs" / "run1"
    assert (told["run"], told["unfinished"]) == (str(run), False)
    assert [step for step, _ in told["loss"]] == [*range(1, 31)]
    assert [step for step, _ in told["score"]] == [30]
    assert 0 <= told["score"][0][1] <= 1
    (model,) = given.models
    assert (model.address, model.name) == (str(run / "model.ts"), "run1")
    assert (run / "model.ts").exists()
    settings = (run / "config.toml").read_text()
    assert 'classes = [\n    "rest",\n    "dark",\n]' in settings
    assert "ignore_label = 255" in settings


def test_what_goes_wrong_is_told(tmp_path: Path, labelled: Path, jobs: Jobs) -> None:
    (labelled / "masks" / "1.png").unlink()
    client, given = trained(labelled, 3, jobs)
    assert client.request("POST", "jobs/train", json={"do": "go on"}).status_code == 404
    assert client.request("POST", "jobs/train", json={"do": "else"}).status_code == 422
    act(client, "stop")  # nothing
    act(client, "start")
    job = eventually(
        lambda: (job := client.get("jobs/train").json()["job"])["state"] == "failed" and job
    )
    assert job["error"].startswith(
        f"{labelled / 'images'} and {labelled / 'masks'}: 1 image without"
    )
    assert not given.models


def test_runs_are_numbered_and_objects_are_told_apart_where_the_start_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ship: Callable[..., Path]
) -> None:
    begun: list[list[list[str]]] = []

    class Noted:
        def __init__(self, steps: list[list[str]], finish: object) -> None:
            begun.append([list(step) for step in steps])
            self.state = "done"

    monkeypatch.setattr(training_module, "Job", Noted)
    ship(instances=True)
    folder, runs = tmp_path / "drawn", tmp_path / "runs"
    folder.mkdir()
    (runs / "run7").mkdir(parents=True)
    (runs / "run_x").mkdir()
    plan = TrainingPlan(folder, runs, "nuclei", ("--steps=5",))
    jobs: Any = type("Jobs", (), {"add": lambda self, job: None})()
    Training(plan, Given(), jobs).start()  # type: ignore[arg-type]
    run = str(runs / "run8")
    words = ["--init", "nuclei", "--steps=5", "--out", run]
    export = ["export", "-o", f"{run}/model.ts", "--overwrite", run]
    assert begun.pop() == [["train", "finetune", *words, "--", str(folder)], export]
    (folder / "instances").mkdir()
    Training(plan, Given(), jobs).start()  # type: ignore[arg-type]
    train = ["train", "finetune", *words, "--instances", "--", str(folder)]
    assert begun[0] == [train, export]
    drawn = Corrections(folder)
    slide = DrawnSlide("0123", "a.svs", "/a.svs", 64, 64, 0.5)
    drawn.add_class(slide, "nucleus")
    Training(plan, Given(), jobs).start()  # type: ignore[arg-type]
    assert begun[1] == [["data", "corrections", "--", str(folder)], train, export]
    drawn.add_class(slide, "other")  # more than one class of objects
    Training(plan, Given(), jobs).start()  # type: ignore[arg-type]
    train.remove("--instances")
    assert begun[2] == [["data", "corrections", "--", str(folder)], train, export]


@pytest.mark.parametrize("instances", [False, True])
def test_from_a_run_that_tells_objects_apart_training_goes_on_so(tmp_path, monkeypatch, instances):
    begun: list[list[list[str]]] = []
    monkeypatch.setattr(training_module, "Job", lambda steps, finish: begun.append([*steps]))
    run, folder = tmp_path / "before", tmp_path / "labelled"
    (folder / "instances").mkdir(parents=True)
    run.mkdir()
    settings = FinetuneConfig(
        foreground=True,
        instances=instances,
        classes=("background", "nucleus"),
        architecture="tiny",
        mpp=0.5,
        resample_to=0.5,
        start_share=0.0,
    )
    settings.with_network().write(run / "config.toml")
    jobs: Any = type("Jobs", (), {"add": lambda self, job: None})()
    plan = TrainingPlan(folder, tmp_path / "runs", str(run), ())
    Training(plan, Given(), jobs).start()  # type: ignore[arg-type]
    assert ("--instances" in begun[0][0]) is instances
