"""``gsd segment --dask``: real processes, of which some are killed."""

import os
import random
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import ClassVar

import dask
import psutil
import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster

from genselfdiff.errors import GsdError, InputError
from genselfdiff.fleet.clusters import check_place, connect
from genselfdiff.segmenting.many_slides import segment_all
from genselfdiff.segmenting.plan import plan_outputs
from gsd.main import main

_SLOW = """
import logging, os, time
from genselfdiff.fleet import part_queue
from genselfdiff.inference.predictor import Predictor
from genselfdiff.masks import pyramid_writer
from genselfdiff.segmenting.shards import part

part._CUT_AT = 32
part_queue.SMALLEST, part_queue.LEAST_PARTS, part_queue.GUIDED = 2000, 1, 2
pyramid_writer.RECORD_SECONDS = 0.0
logging.getLogger("genselfdiff").setLevel(logging.INFO)
predict = Predictor.__call__

def slow(self, pixels):
    time.sleep({pause})
    with open({log!r}, "a") as log:
        log.write(f"{{os.getpid()}}\\n")
    return predict(self, pixels)

Predictor.__call__ = slow
"""
"""Parts of small slides, a record after each row of tiles, and what predicts them in a log."""


def python(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Run Python in a folder, with the module ``slow`` loaded first."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import slow; {arguments[0]}", *arguments[1:]],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | _ENVIRONMENT | {"PYTHONPATH": str(folder)},
    )


_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"}
_DASK = "import sys; from dask.__main__ import main; sys.argv[0] = 'dask'; main()"
_GSD = "from gsd.main import main; main()"


class Site:
    """A scheduler, workers and the command, in a folder."""

    def __init__(self, folder: Path, pause: float) -> None:
        self.folder = folder
        self.log = folder / "predicted.log"
        (folder / "slow.py").write_text(_SLOW.format(pause=pause, log=str(self.log)))
        self.scheduler: subprocess.Popen[str] | None = None
        self.workers: list[subprocess.Popen[str]] = []
        self.address = ""

    def start_scheduler(self) -> None:
        at = self.folder / "scheduler.json"
        at.unlink(missing_ok=True)
        options = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        self.scheduler = python(
            self.folder, _DASK, "scheduler", *options, "--scheduler-file", str(at)
        )
        while not at.exists() or not at.stat().st_size:
            time.sleep(0.05)
            assert self.scheduler.poll() is None
        with Client(scheduler_file=str(at)) as client:
            self.address = client.scheduler.address

    def start_worker(self) -> None:
        options = ["--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--death-timeout", "20"]
        self.workers.append(python(self.folder, _DASK, "worker", self.address, *options))

    def wait_for_workers(self) -> None:
        with Client(self.address) as client:
            client.wait_for_workers(len(self.workers), timeout=120)

    def command(self, out: str) -> subprocess.Popen[str]:
        options = ["-o", out, "--model", "model.ts", "--geojson", "--device", "cpu"]
        options += ["--precision", "float32", "--dask", self.address]
        return python(self.folder, _GSD, "segment", "slides", *options)

    def predicted(self) -> int:
        """How many tiles all workers have predicted so far."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            self.kill(process)


@pytest.fixture
def site(tmp_path):
    opened = []

    def make(pause: float) -> Site:
        opened.append(Site(tmp_path, pause))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def make_slides(
    tmp_path: Path, model: Path, write_slide, picture, heights: list[int], width: int = 160
) -> int:
    """Slides, and the masks of them by one process; how many tiles these have."""
    (tmp_path / "slides").mkdir()
    for number, height in enumerate(heights):
        write_slide(picture(height, width, seed=number), name=f"slides/{number}.tif")
    plan = plan_outputs([tmp_path / "slides"], tmp_path / "alone")
    options = {"device": "cpu", "precision": "float32", "geojson": True}
    outcomes = list(segment_all(plan, model, **options))
    return sum(outcome.result.tiles for outcome in outcomes)


def is_writing(process: subprocess.Popen[str], path: Path) -> bool:
    """Whether a process has a file open."""
    return any(file.path == str(path) for file in psutil.Process(process.pid).open_files())


def assert_same_files(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert {path.name for path in alone.iterdir()} == {path.name for path in together.iterdir()}
    for path in alone.iterdir():
        if path.suffix != ".csv":
            assert path.read_bytes() == (together / path.name).read_bytes(), path.name


def test_a_killed_worker_s_part_is_taken_up_by_another(tmp_path, site, model, write_slide, picture):
    # Of the larger slide parts are cut that have several rows of tiles of a mask.
    tiles = make_slides(tmp_path, model, write_slide, picture, [9000, 120], width=60)
    work = site(pause=0.05)
    work.start_scheduler()
    for _ in range(2):
        work.start_worker()
    work.wait_for_workers()
    command = work.command("together")
    while not list(tmp_path.glob("together/*.shards/.part-*.journal")):
        time.sleep(0.01)
        assert command.poll() is None, command.communicate()[0]
    journal = next(tmp_path.glob("together/*.shards/.part-*.journal"))
    target = journal.with_suffix(".partial")
    killed = next(process for process in work.workers if is_writing(process, target))
    work.workers.remove(killed)
    work.kill(killed)
    told = command.communicate()[0]
    assert command.returncode == 0, told
    assert "this worker has gone: another goes on with" in told
    assert re.search(rf"{target.name[1:].removesuffix('.partial')}: goes on at row \d+ of", told)
    assert told.count("dashboard: http") == 1
    assert_same_files(tmp_path)
    assert work.predicted() < 1.3 * tiles


def test_without_its_scheduler_it_ends_and_the_same_command_goes_on(
    tmp_path, site, model, write_slide, picture
):
    tiles = make_slides(tmp_path, model, write_slide, picture, [700, 120])
    work = site(pause=0.05)
    work.start_scheduler()
    work.start_worker()
    command = work.command("together")
    while work.predicted() < tiles // 3:
        time.sleep(0.01)
        assert command.poll() is None, command.communicate()[0]
    assert work.scheduler is not None
    work.kill(work.scheduler)
    told = command.communicate()[0]
    assert command.returncode == 1
    assert "the scheduler is gone: what is finished is kept, and the same command goes on" in told
    assert "Traceback" not in told
    work.start_scheduler()
    work.start_worker()
    command = work.command("together")
    told = command.communicate()[0]
    assert command.returncode == 0, told
    assert_same_files(tmp_path)
    assert work.predicted() < 2 * tiles


@pytest.mark.soak
def test_killed_twenty_times(tmp_path, site, model, write_slide, picture):
    """Workers and the scheduler, at random moments of a run of twenty slides."""
    rng = random.Random(0)
    heights = [rng.randrange(100, 1500) for _ in range(20)]
    tiles = make_slides(tmp_path, model, write_slide, picture, heights)
    work = site(pause=0.15)
    work.start_scheduler()
    for _ in range(3):
        work.start_worker()
    command = work.command("together")
    for kill in range(20):
        target = work.predicted() + tiles // 25
        while work.predicted() < target:
            time.sleep(0.05)
            assert command.poll() is None, command.communicate()[0]
        if kill % 5 < 4:
            work.kill(work.workers.pop(rng.randrange(len(work.workers))))
            work.start_worker()
            continue
        assert work.scheduler is not None
        work.kill(work.scheduler)
        command.communicate()
        assert command.returncode == 1
        for worker in work.workers:  # they end by themselves, when they have done a part
            worker.communicate()
        work.workers.clear()
        work.start_scheduler()
        for _ in range(3):
            work.start_worker()
        command = work.command("together")
    told = command.communicate()[0]
    assert command.returncode == 0, told
    assert_same_files(tmp_path)
    assert work.predicted() < 2 * tiles


def test_local_workers_end_with_the_command(tmp_path, model, write_slide, picture):
    make_slides(tmp_path, model, write_slide, picture, [120])
    (tmp_path / "slow.py").touch()
    options = ["--model", "model.ts", "--geojson", "--device", "cpu", "--precision", "float32"]
    command = python(
        tmp_path, _GSD, "segment", "slides", "-o", "together", *options, "--dask", "local"
    )
    told = command.communicate()[0]
    assert command.returncode == 0, told
    assert "distributed" not in told
    assert_same_files(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--dask", "here"], "'here' is no cluster: name local, local:N, the address"),
        (["--dask", "local:0"], "'local:0' is no cluster"),
        (["--dask", "local", "--shard", "1/2"], "--dask and --shard exclude each other"),
        (["--dask", "local", "--overwrite"], "--dask and --overwrite exclude each other"),
        (["--dask", "local", "--dry-run"], "--dask and --dry-run exclude each other"),
    ],
)
def test_what_cannot_be_meant(options, told):
    ended = CliRunner().invoke(main, ["segment", "a.svs", "-o", "m/", *options])
    assert ended.exit_code == 2
    assert told in ended.stderr


def test_nobody_at_an_address(tmp_path, write_slide, picture, model):
    slide = write_slide(picture(120, 160))
    options = ["-o", str(tmp_path / "m.tif"), "--model", str(model), "--dask", "tcp://127.0.0.1:9"]
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        ended = CliRunner().invoke(main, ["segment", str(slide), *options])
    assert ended.exit_code == 1
    assert "tcp://127.0.0.1:9: no scheduler of Dask answers" in ended.stderr


def test_places():
    for place in ("local", "local:12", "tcp://host:8786", "tls://host:8786", "site/slurm.toml"):
        check_place(place)
    for place in ("", "local:", "local:x", "host:8786", "cluster.json"):
        with pytest.raises(InputError, match="is no cluster"):
            check_place(place)


class Described:
    """Stands in for the class of a cluster of another package."""

    started: ClassVar[list[object]] = []

    def __init__(self, *, cores: int) -> None:
        self.cores = cores
        self.local = LocalCluster(n_workers=0, processes=False, dashboard_address=":0")

    def scale(self, workers: int) -> None:
        self.started.append((self.cores, workers))
        self.local.scale(workers)

    def __enter__(self) -> LocalCluster:
        return self.local

    def __exit__(self, *error: object) -> None:
        self.local.close()


@pytest.mark.parametrize(
    ("kind", "module", "name"),
    [
        ("slurm", "dask_jobqueue", "SLURMCluster"),
        ("pbs", "dask_jobqueue", "PBSCluster"),
        ("kubernetes", "dask_kubernetes.operator", "KubeCluster"),
    ],
)
def test_a_cluster_that_a_file_describes(tmp_path, monkeypatch, kind, module, name):
    for place in (module, module.partition(".")[0]):
        monkeypatch.setitem(sys.modules, place, types.SimpleNamespace(**{name: Described}))
    file = tmp_path / "site.toml"
    file.write_text(f'kind = "{kind}"\nworkers = 1\n[options]\ncores = 8\n')
    monkeypatch.setattr(Described, "started", [])
    with connect(str(file)) as client:
        assert Described.started == [(8, 1)]
        client.wait_for_workers(1, timeout=10)
    file.write_text(f'kind = "{kind}"\nworkers = 1\n[options]\ncolour = "red"\n')
    with (
        pytest.raises(GsdError, match=rf"site\.toml: {name} cannot be started: .*colour"),
        connect(str(file)),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("kind = ", "site.toml"),
        (
            'kind = "slurm"',
            "is no description of a cluster: it does not tell kind, workers, options",
        ),
        ('kind = "slurm"\nworkers = "2"\n[options]', "workers cannot be '2'"),
        (
            'kind = "abacus"\nworkers = 2\n[options]',
            "kind 'abacus' with 2 workers: name one of slurm",
        ),
        ('kind = "slurm"\nworkers = 0\n[options]', "one worker or more"),
        ('kind = "slurm"\nworkers = 2\n[options]', "dask-jobqueue is not installed: pip install"),
        ('kind = "kubernetes"\nworkers = 2\n[options]', "dask-kubernetes is not installed: pip"),
    ],
)
def test_files_that_describe_no_cluster(tmp_path, monkeypatch, content, told):
    for module in ("dask_jobqueue", "dask_kubernetes", "dask_kubernetes.operator"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "site.toml").write_text(content)
    with pytest.raises(InputError) as raised, connect(str(tmp_path / "site.toml")):
        pass
    assert told in str(raised.value)


def test_without_dask_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(
            InputError, match=r"Dask is not installed: pip install 'genselfdiff\[dask\]'"
        ),
        connect("local"),
    ):
        pass
