"""Commands that run beside the server: how far they are, how they end, and what is left."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile
from live_processes import children, eventually, runs, viewing
from viewer_client import Client

import genselfdiff
from genselfdiff.live.blocks import Picture
from genselfdiff.live.jobs import job as job_module
from genselfdiff.live.jobs.job import Job, Jobs
from genselfdiff.live.jobs.jobs_part import jobs_part
from genselfdiff.live.jobs.segmenting import Segmenting
from genselfdiff.live.predictions import Model
from genselfdiff.resumable_file import recorded_bytes
from genselfdiff.storage.places import Url
from genselfdiff.viewer.collection import Entry
from genselfdiff.viewer.library import Library

Make = Callable[..., Path]

SAYS = """
import os, sys, threading
def end():
    while os.read(0, 9): pass
    os._exit(130)
threading.Thread(target=end, daemon=True).start()
what = sys.argv[1]
if what == "waits":
    print('{"progress": {"what": "it", "done": 3}}', flush=True)
    threading.Event().wait()
print("a line", flush=True)
if what == "fails":
    print("Error: \\x1b[31mno such thing", file=sys.stderr, flush=True)
    print('{"progress": 7}\\n{"other": 1}\\nlast', flush=True)
    sys.exit(1)
if what == "breaks":
    os.kill(os.getpid(), 9)
"""
"""A command that does what it is asked for."""


SLOWLY = """
import time
from genselfdiff.masks import pyramid_writer
from genselfdiff.masks.bigtiff import BigTiffFile
from gsd.attached import run

pyramid_writer.RECORD_SECONDS = 0.0
add = BigTiffFile.add_data
def slow(self, data):
    time.sleep(0.05)
    return add(self, data)
BigTiffFile.add_data = slow
run()
"""
"""``gsd`` with a record after every row of tiles, and slow enough to be stopped between them."""


@pytest.fixture
def told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "COMMAND", (sys.executable, "-c", SAYS))


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    with closing(Jobs()) as jobs:
        yield jobs


@pytest.mark.usefixtures("told_what_to_do")
def test_one_after_the_other_until_one_fails(jobs: Jobs) -> None:
    finished: list[str] = []
    good = Job([["works"], ["works"]], lambda: finished.append("good"))
    bad = Job([["works"], ["fails"], ["works"]], lambda: finished.append("bad"))
    dead = Job([["breaks"]])
    for each in (good, bad, dead):
        jobs.add(each)
    eventually(lambda: dead.state == "failed")
    assert (good.state, good.error) == ("done", "")
    assert (bad.state, bad.error) == ("failed", "\\x1b[31mno such thing")
    assert dead.error == "a line"
    assert finished == ["good"]


@pytest.mark.usefixtures("told_what_to_do")
def test_stopping_what_runs_and_what_waits(jobs: Jobs) -> None:
    first, second, third = Job([["waits"], ["works"]]), Job([["works"]]), Job([["works"]])
    for each in (first, second, third):
        jobs.add(each)
    eventually(lambda: first.progress == {"what": "it", "done": 3})
    assert (first.state, second.state) == ("running", "waiting")
    second.stop()
    first.stop()
    eventually(lambda: third.state == "done")
    assert (first.state, first.error, second.state) == ("stopped", "", "stopped")


@pytest.mark.usefixtures("told_what_to_do")
def test_the_end_of_the_server_stops_all() -> None:
    jobs = Jobs()
    first, second = Job([["waits"]]), Job([["works"]])
    jobs.add(first)
    jobs.add(second)
    eventually(lambda: first.progress)
    jobs.close()
    eventually(lambda: first.state == "stopped")
    assert second.state == "stopped"


def test_what_goes_wrong_at_the_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "COMMAND", (sys.executable, "-c", SAYS))

    def finish() -> None:
        raise OSError(28, "No space left on device")

    job = Job([["works"]], finish)
    job.run()
    assert (job.state, job.error) == ("failed", "No space left on device")


def test_a_command_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    monkeypatch.setattr(job_module, "COMMAND", ("/no/such/program",))
    first, second = Job([["works"]]), Job([["works"]])
    jobs.add(first)
    jobs.add(second)
    eventually(lambda: second.state == "failed")
    assert first.error == second.error == "No such file or directory"


def segmenting(slide: Path, model: Path, folder: Path | None, jobs: Jobs) -> Segmenting:
    library = Library([Entry(slide)])
    return Segmenting(library, [Model(str(model))], folder, ["--device=cpu"], jobs)


def is_the_same(mask: Path, slide: Path, model: Path) -> bool:
    """Whether a mask is what comes of segmenting in one go."""
    other = mask.with_name("other.tif")
    genselfdiff.segment(slide, other, model, device="cpu")
    pixels = [tifffile.TiffFile(path).pages[0].asarray() for path in (mask, other)]
    return bool((pixels[0] == pixels[1]).all())


def test_a_mask_is_what_the_command_writes_and_is_shown_when_it_is_finished(
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
    tmp_path: Path,
    jobs: Jobs,
) -> None:
    slide = write_slide(picture(300, 200))
    library = Library([Entry(slide)])
    models = [Model(str(darkness_model))]
    made = Segmenting(library, models, tmp_path / "masks", ["--device=cpu"], jobs)
    client = Client(library, jobs_part(made, None))
    (told,) = client.get("jobs/segment/0").json()
    mask = tmp_path / "masks" / "slide_mask.tif"
    assert told == {
        **{"state": "", "error": "", "progress": None},
        **{"model": "darkness.ts", "mask": str(mask)},
    }
    begin = {"slide": 0, "model": 0, "do": "start"}
    for _ in range(2):  # the second changes nothing
        assert client.request("POST", "jobs/segment", json=begin).status_code == 200
    eventually(lambda: client.get("jobs/segment/0").json()[0]["state"] == "done")
    assert is_the_same(mask, slide, darkness_model)
    assert [layer["name"] for layer in client.get("slides/0").json()["layers"]] == [mask.name]
    (overview,) = client.get("slides").json()
    assert (overview["state"], overview["masks"]) == ("segmented", 1)
    assert overview["areas"]["nucleus"] > 0
    assert client.get("slides/0/layers/0/0/0/0/0").status_code == 200


def test_what_was_stopped_goes_on_to_the_same_mask(
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    textured_model: Path,
    tmp_path: Path,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_module, "COMMAND", (sys.executable, "-c", SLOWLY))
    slide = write_slide(picture(2000, 1200))
    made = segmenting(slide, textured_model, None, jobs)
    mask = made.mask(Picture(0, 0))
    assert mask == tmp_path / "slide_mask.tif"
    made.start(Picture(0, 0))
    eventually(lambda: recorded_bytes(mask))
    made.stop(Picture(0, 0))
    eventually(lambda: made.told(0)[0]["state"] == "stopped")
    assert recorded_bytes(mask)
    assert not mask.exists()
    again = segmenting(slide, textured_model, None, jobs)
    assert again.told(0)[0]["state"] == "unfinished"
    again.start(Picture(0, 0))
    eventually(lambda: again.told(0)[0]["state"] == "done")
    assert is_the_same(mask, slide, textured_model)


def test_a_mask_of_something_else_is_not_replaced(
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    darkness_model: Path,
    tmp_path: Path,
    jobs: Jobs,
) -> None:
    (tmp_path / "slide_mask.tif").write_text("somebody's own")
    made = segmenting(write_slide(picture(90, 90)), darkness_model, None, jobs)
    made.start(Picture(0, 0))
    told = eventually(lambda: (told := made.told(0)[0])["state"] == "failed" and told)
    assert told["error"].startswith(f"{tmp_path / 'slide_mask.tif'}: ")
    assert (tmp_path / "slide_mask.tif").read_text() == "somebody's own"


def test_a_folder_that_cannot_be_made_is_told(
    write_slide: Make, darkness_model: Path, tmp_path: Path, jobs: Jobs
) -> None:
    (tmp_path / "file").write_text("no folder")
    slide = write_slide(np.full((64, 64, 3), 200, np.uint8))
    made = segmenting(slide, darkness_model, tmp_path / "file" / "masks", jobs)
    client = Client(made._library, jobs_part(made, None))
    begin = {"slide": 0, "model": 0, "do": "start"}
    answer = client.request("POST", "jobs/segment", json=begin)
    assert answer.status_code == 422
    assert "Not a directory" in answer.text
    assert client.get("jobs/segment/0").json()[0]["state"] == ""


def test_names_of_masks(tmp_path: Path, jobs: Jobs) -> None:
    slides = [Entry(tmp_path / "a.b.svs"), Entry(Url("s3://bucket/c.svs"))]
    models = [Model("nuclei"), Model("/x/m.ts"), Model("/y/m.ts"), Model("/y/../..ts")]
    beside = Segmenting(Library(slides), models, None, [], jobs)
    assert [beside.mask(Picture(model, 0)) for model in range(3)] == [
        tmp_path / "a.b_mask.tif",
        tmp_path / "a.b_m_2_mask.tif",
        tmp_path / "a.b_m_3_mask.tif",
    ]
    assert beside.mask(Picture(3, 0)).parent == tmp_path
    assert beside.mask(Picture(0, 1)) == Path("c_mask.tif")
    elsewhere = Segmenting(Library(slides), models, tmp_path / "masks", [], jobs)
    assert elsewhere.mask(Picture(0, 1)) == tmp_path / "masks" / "c_mask.tif"


@pytest.mark.parametrize(
    ("told", "status"),
    [
        *((change, 422) for change in ({"slide": "0"}, {"model": -1}, {"model": None})),
        *((change, 422) for change in ({"do": "rm"}, {"do": ["start"]})),
        *((change, 404) for change in ({"slide": 1}, {"model": 1}, {"do": "stop"})),
        ({"more": "x" * 500}, 413),
    ],
)
def test_what_cannot_be_asked(
    told: dict[str, object], status: int, write_slide: Make, darkness_model: Path, jobs: Jobs
) -> None:
    slide = write_slide(np.full((64, 64, 3), 200, np.uint8))
    made = segmenting(slide, darkness_model, None, jobs)
    client = Client(made._library, jobs_part(made, None))
    whole = {"slide": 0, "model": 0, "do": "start"} | told
    assert client.request("POST", "jobs/segment", json=whole).status_code == status
    assert client.request("POST", "jobs/train", json={"do": "start"}).status_code == 404
    assert client.get("jobs/train").json() is None


def test_a_job_ends_with_a_server_that_is_killed(
    picture: Callable[..., np.ndarray],
    write_slide: Make,
    textured_model: Path,
    tmp_path: Path,
) -> None:
    slide, mask = write_slide(picture(6000, 1200)), tmp_path / "slide_mask.tif"
    with viewing(slide, "--model", textured_model) as (server, address):
        begin = {"slide": 0, "model": 0, "do": "start"}
        assert httpx.post(f"{address}jobs/segment", json=begin).status_code == 200
        told = f"{address}jobs/segment/0"
        eventually(lambda: (httpx.get(told).json()[0]["progress"] or {}).get("done"))
        started = children(server.pid)
        assert len(started) == 2
        server.send_signal(signal.SIGKILL)
        server.wait(60)
        for process in started:
            eventually(lambda process=process: not runs(process))
    assert not mask.exists()
