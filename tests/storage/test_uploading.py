"""Masks grow on this machine, and go to a bucket whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner, Result
from fsspec.implementations.memory import MemoryFileSystem
from generated_slides import picture, write_slide

from genselfdiff import plan_outputs, segment
from genselfdiff.errors import InUseError, OutputError
from genselfdiff.masks import pyramid_writer
from genselfdiff.segmenting import one_slide
from genselfdiff.segmenting.shards import part
from genselfdiff.storage import uploading
from genselfdiff.storage.places import Url
from genselfdiff.storage.uploading import scratch_of, send
from gsd.main import main


@pytest.fixture(autouse=True)
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What lies in memory; the scratch folder is below ``tmp_path``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    store: dict[str, Any] = {}
    monkeypatch.setattr(MemoryFileSystem, "store", store)
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    return store


def content(name: str) -> bytes:
    data: bytes = fsspec.filesystem("memory").cat_file(name)
    return data


def left_here(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "caches").rglob("*") if path.is_file()]


def test_a_mask_goes_to_its_url(
    slide: Path, darkness_model: Path, tmp_path: Path, bucket: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"geojson": True, "overlay": True, "probabilities": True}
    segment(slide, tmp_path / "m.tif", darkness_model, **options)
    result = segment(slide, "memory://out/deep/m.tif", darkness_model, **options)
    names = ["m.tif", "m.geojson", "m_overlay.png", "m_probabilities.tif"]
    assert sorted(bucket) == sorted(f"/out/deep/{name}" for name in names)
    for name in names:
        assert content(f"/out/deep/{name}") == (tmp_path / name).read_bytes()
    assert not left_here(tmp_path)
    assert "memory://out/deep/m.tif: 1500 x 1300 pixels" in result.summary()
    assert "memory://out/deep/m.geojson" in result.summary()
    assert json.loads(result.to_json())["files"]["mask"] == "memory://out/deep/m.tif"


def test_what_lies_elsewhere_is_written_beside_a_finished_mask_too(
    slide: Path, darkness_model: Path, tmp_path: Path
) -> None:
    segment(slide, "memory://out/m.tif", darkness_model)
    result = segment(slide, "memory://out/m.tif", darkness_model, overlay=tmp_path / "look.png")
    assert result.finished_before
    assert (tmp_path / "look.png").exists()


def test_a_mask_that_another_run_is_writing_is_told_as_such(
    slide: Path, darkness_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_use(*_: object, **__: object) -> None:
        raise InUseError("another run is writing it")

    monkeypatch.setattr(one_slide, "segment_slide", in_use)
    with pytest.raises(InUseError, match=r"memory://out/m\.tif: another run"):
        segment(slide, "memory://out/m.tif", darkness_model)


@pytest.mark.parametrize("options", [{}, {"geojson": True, "table": True}])
def test_a_finished_mask_is_not_made_again(
    options: dict[str, Any],
    slide: Path,
    darkness_model: Path,
    bucket: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segment(slide, "memory://out/m.tif", darkness_model, **options)
    before = dict(bucket)
    monkeypatch.setattr(one_slide, "predict", lambda *args, **more: pytest.fail("made again"))
    result = segment(slide, "memory://out/m.tif", darkness_model, **options)
    assert result.finished_before
    assert bucket == before, "nothing is sent again"
    with pytest.raises(OutputError, match=r"memory://out/m\.tif.*made with.*--overwrite"):
        segment(slide, "memory://out/m.tif", darkness_model, overlap=0.5, **options)
    assert bucket == before


def test_overwriting_replaces_what_is_there(slide: Path, darkness_model: Path) -> None:
    segment(slide, "memory://out/m.tif", darkness_model)
    before = content("/out/m.tif")
    segment(slide, "memory://out/m.tif", darkness_model, overlap=0.5, overwrite=True)
    assert content("/out/m.tif") != before
    segment(slide, "memory://out/m.tif", darkness_model, overwrite=True)
    assert content("/out/m.tif") == before


def test_what_could_not_be_sent_is_sent_by_the_next_run(
    slide: Path,
    darkness_model: Path,
    tmp_path: Path,
    bucket: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise OSError("the bucket is full, see https://user:hunter2@host/?sig=hunter2")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", refuse)
        with pytest.raises(OutputError, match="cannot be written: the bucket is full") as caught:
            segment(slide, "memory://out/m.tif", darkness_model)
    assert "hunter2" not in str(caught.value)
    assert not bucket
    assert [path.name for path in left_here(tmp_path)] == ["m.tif"]
    monkeypatch.setattr(one_slide, "predict", lambda *args, **more: pytest.fail("made again"))
    segment(slide, "memory://out/m.tif", darkness_model)
    assert content("/out/m.tif")
    assert not left_here(tmp_path)


def test_half_of_a_file_never_has_its_name(
    tmp_path: Path, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.tif"
    path.write_bytes(b"x" * 1000)
    fsspec.filesystem("memory").pipe_file("/out/m.tif", b"as it was")

    def half(self: MemoryFileSystem, here: str, there: str, **more: object) -> None:
        self.pipe_file(there, Path(here).read_bytes()[:500])
        raise OSError("hung up")

    monkeypatch.setattr(MemoryFileSystem, "put_file", half)
    with pytest.raises(OutputError, match="hung up"):
        send(path, Url("memory://out/m.tif"))
    assert content("/out/m.tif") == b"as it was"


def test_a_killed_run_goes_on(
    slide: Path, darkness_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid_writer, "RECORD_SECONDS", 0.0)
    segment(slide, "memory://whole/m.tif", darkness_model, tissue=False)

    class Stopped(Exception):
        pass

    write = one_slide._Band.write

    def stop(self: Any, row: int) -> None:
        if row > 600:
            raise Stopped
        write(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(one_slide._Band, "write", stop)
        with pytest.raises(Stopped):
            segment(slide, "memory://out/m.tif", darkness_model, tissue=False)
    rows: list[int] = []

    def note(self: Any, row: int) -> None:
        rows.append(row)
        write(self, row)

    monkeypatch.setattr(one_slide._Band, "write", note)
    segment(slide, "memory://out/m.tif", darkness_model, tissue=False)
    assert rows[0] > 0
    assert content("/out/m.tif") == content("/whole/m.tif")


def test_a_folder_of_slides_goes_to_a_folder(
    darkness_model: Path, tmp_path: Path, bucket: dict[str, Any]
) -> None:
    memory = fsspec.filesystem("memory")
    for name in "abc":
        path = write_slide(tmp_path / f"{name}.tif", picture(300, 400 + ord(name)))
        memory.pipe_file(f"/lab/{name}.tif", path.read_bytes())
    memory.pipe_file("/lab/broken.tif", b"II*\0 and no more")
    command = ["segment", "memory://lab/", "-o", "memory://lab/masks", "--overlay", "-q"]
    command += ["--model", str(darkness_model), "--scratch", str(tmp_path / "scratch")]
    for _ in range(2):  # what the first has left is no slide
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1
        assert "1 of 4 slides failed: memory://lab/broken.tif" in result.output
        masks = sorted(name.removeprefix("/lab/masks/") for name in bucket if "masks" in name)
        expected = [f"{x}_mask{end}" for x in "abc" for end in (".tif", "_overlay.png")]
        assert masks == [*expected, "summary.csv"]
        rows = content("/lab/masks/summary.csv").decode().splitlines()
        assert [row.partition(",")[0] for row in rows] == [
            "slide",
            "memory://lab/a.tif",
            "memory://lab/b.tif",
            "memory://lab/broken.tif",
            "memory://lab/c.tif",
        ]
        assert not [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]


def test_an_input_is_not_written_over(slide: Path, darkness_model: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/lab/a.tif", slide.read_bytes())
    with pytest.raises(OutputError, match="is an input of this run"):
        segment("memory://lab/a.tif", "memory://lab/a.tif", darkness_model, overwrite=True)
    assert content("/lab/a.tif") == slide.read_bytes()


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("https://host/m.tif", "results are not written there"),
        ("s3://bucket/m.tif?versionId=3", "results are not written there"),
        ("s3://bucket/..", "names no file or folder"),
        ("memory://out/m.png", "must end in .tif or .tiff"),
    ],
)
def test_what_cannot_be_written_is_told(output: str, told: str, slide: Path) -> None:
    with pytest.raises(OutputError, match=told):
        plan_outputs([slide], output)


def test_a_file_is_no_folder_for_several(slide: Path) -> None:
    with pytest.raises(OutputError, match="is the name of a file"):
        plan_outputs([slide, "memory://a/b.tif"], "memory://out/m.tif")


@pytest.mark.parametrize("how", [("--shard", "1/2"), ("--dask", "local")])
def test_several_processes_need_a_folder_that_all_see(how: tuple[str, str], slide: Path) -> None:
    result = CliRunner().invoke(main, ["segment", str(slide), "-o", "s3://bucket/masks/", *how])
    assert result.exit_code == 2
    assert f"{how[0]} and a URL need --scratch" in result.output
    result = CliRunner().invoke(main, ["merge", "s3://bucket/masks/"])
    assert result.exit_code == 2
    assert "a URL needs --scratch" in result.output


@pytest.fixture
def shards(
    darkness_model: Path, tmp_path: Path, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run a command of shards, with their parts in a scratch folder."""
    monkeypatch.setattr(part, "_CUT_AT", 32)
    for seed in range(3):
        path = write_slide(tmp_path / "slide.tif", picture(300, 400 + seed))
        fsspec.filesystem("memory").pipe_file(f"/lab/{seed}.tif", path.read_bytes())
    scratch = ["--scratch", str(tmp_path / "scratch")]
    how = ["--model", str(darkness_model), "--device", "cpu", "--precision", "float32"]
    how += ["--geojson", "--table"]

    def run(command: str, *words: str) -> Result:
        line = [command, *words, *(how if command == "segment" else []), *scratch]
        return CliRunner().invoke(main, line)

    return run


def test_masks_in_a_bucket_are_shared_out(
    shards: Callable[..., Result], bucket: dict[str, Any], tmp_path: Path
) -> None:
    assert shards("segment", "memory://lab/", "-o", "memory://alone/").exit_code == 0
    to = ("memory://lab/", "-o", "memory://out/", "--shard")
    first = shards("segment", *to, "1/2")
    assert first.exit_code == 0, first.output
    told = f"gsd merge memory://out/1_mask.tif --scratch {tmp_path / 'scratch'}"
    assert f": done; 1 more part before {told}" in first.output
    early = shards("merge", "memory://out/")
    assert early.exit_code == 1
    assert "memory://out/1_mask.tif: not finished yet: run gsd segment with --shard 2/2" in (
        early.output
    )
    assert shards("segment", *to, "2/2").exit_code == 0
    merged = shards("merge", "memory://out/")
    assert merged.exit_code == 0, merged.output
    assert merged.stdout.split() == [
        f"memory://out/1_mask{ending}" for ending in (".tif", ".geojson", "_objects.csv")
    ]
    for name in [name for name in bucket if name.startswith("/alone/")]:
        if not name.endswith("summary.csv"):
            assert content(name.replace("alone", "out")) == content(name), name
    assert len(content("/out/summary.csv").splitlines()) == 4
    assert not [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]
    again = shards("merge", "memory://out/")
    assert (again.exit_code, again.stdout) == (
        0,
        "memory://out/: nothing to merge: no slide was cut\n",
    )
    again = shards("segment", *to, "1/2")
    assert "memory://out/1_mask.tif: finished before" in again.output
    more = shards("segment", *to, "1/2", "--probabilities")
    assert "1_mask_probabilities.tif: is not there" in more.output
    assert "but memory://out/1_mask.tif is finished: repeat the command without" in more.output
    assert shards("merge", "memory://nothing/").exit_code == 1


def test_shards_of_one_slide_are_joined_by_its_url(
    shards: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = ("memory://lab/0.tif", "-o", "memory://out/m.tif", "--shard")
    for index in "12":
        assert shards("segment", *to, f"{index}/2").exit_code == 0

    def hang_up(path: Path, url: Url) -> None:
        raise OutputError(f"{url}: hung up")

    with monkeypatch.context() as patch:
        patch.setattr(uploading, "send", hang_up)
        assert shards("merge", "memory://out/m.tif").exit_code == 1
    merged = shards("merge", "memory://out/m.tif")
    assert merged.exit_code == 0, merged.output
    assert shards("segment", "memory://lab/0.tif", "-o", "memory://alone/m.tif").exit_code == 0
    assert content("/out/m.tif") == content("/alone/m.tif")
    assert content("/out/m.geojson") == content("/alone/m.geojson")


def test_what_is_in_the_way_of_shards_is_told_early(shards: Callable[..., Result]) -> None:
    fsspec.filesystem("memory").pipe_file("/out/m.geojson", b"mine")
    result = shards("segment", "memory://lab/0.tif", "-o", "memory://out/m.tif", "--shard", "1/2")
    assert result.exit_code == 1
    assert "memory://out/m.geojson: exists already" in result.output


def test_the_scratch_folder_is_the_same_in_each_run_and_another_for_each_url(
    tmp_path: Path,
) -> None:
    places = {
        scratch_of(Url(address), tmp_path)
        for address in ("s3://a/masks", "s3://a/masks/", "s3://b/masks", "s3://a/b/masks")
    }
    assert len(places) == 3
    assert all(tmp_path in place.parents for place in places)
