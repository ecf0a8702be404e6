"""Masks of slides by URL have the bytes of those of the same files."""

from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from generated_slides import picture, write_slide
from range_server import RangeServer

from genselfdiff import open_slide, plan_outputs, segment
from genselfdiff.errors import InputError
from genselfdiff.masks import pyramid_writer
from genselfdiff.segmenting import one_slide
from genselfdiff.storage import read_ahead
from gsd.main import main


def test_a_mask_has_the_bytes_of_that_of_the_file(
    slide: Path, server: RangeServer, darkness_model: Path, tmp_path: Path
) -> None:
    segment(slide, tmp_path / "a.tif", darkness_model, probabilities=True, geojson=True)
    segment(server.add(slide), tmp_path / "b.tif", darkness_model, probabilities=True, geojson=True)
    for ending in (".tif", "_probabilities.tif", ".geojson"):
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_each_tile_of_the_slide_is_fetched_once(
    tmp_path: Path, server: RangeServer, darkness_model: Path, in_parts: None
) -> None:
    path = write_slide(tmp_path / "large.tif", picture(1500, 2000), compression=None)
    segment(path, tmp_path / "a.tif", darkness_model, tissue=False)
    segment(server.add(path), tmp_path / "b.tif", darkness_model, tissue=False)
    with open_slide(tmp_path / "a.tif") as local, open_slide(tmp_path / "b.tif") as remote:
        window = 0, 0, local.width, local.height
        assert (local.read_level(*window) == remote.read_level(*window)).all()
    level_0 = 1500 * 2000 * 3
    fetched = sum(last - first + 1 for _, first, last in server.requests)
    assert fetched < 1.3 * level_0, "with directories, samples and what fills tiles at the edges"
    assert len(server.requests) < 50, "tiles are fetched ahead, and neighbours together"


def test_a_run_that_could_read_no_further_goes_on(
    slide: Path,
    server: RangeServer,
    darkness_model: Path,
    tmp_path: Path,
    in_parts: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_ahead, "LONGEST", 2**14)
    monkeypatch.setattr(read_ahead, "AHEAD", 2**16)
    monkeypatch.setattr(pyramid_writer, "RECORD_SECONDS", 0.0)
    address = server.add(slide)

    def fail(handler: object, path: str, part: tuple[int, int]) -> bool:
        is_late = len(server.requests) > already * 0.7
        if is_late:
            handler.send(503, b"")  # type: ignore[attr-defined]
        return is_late

    whole = tmp_path / "whole.tif"
    segment(address, whole, darkness_model, tissue=False)
    already = len(server.requests)
    server.requests.clear()
    server.misbehave = fail
    with pytest.raises(InputError, match="HTTP 503"):
        segment(address, tmp_path / "mask.tif", darkness_model, tissue=False)
    server.misbehave = None
    assert (tmp_path / ".mask.tif.partial").exists()
    segment(address, tmp_path / "mask.tif", darkness_model, tissue=False)
    assert (tmp_path / "mask.tif").read_bytes() == whole.read_bytes()


def test_a_slide_that_changes_makes_no_mask(
    slide: Path, darkness_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/changes/a.tif", slide.read_bytes())
    write = one_slide._write

    def change(*args: object) -> None:
        write(*args)  # type: ignore[arg-type]
        memory.pipe_file("/changes/a.tif", slide.read_bytes() + b"more")

    monkeypatch.setattr(one_slide, "_write", change)
    with pytest.raises(InputError, match="was changed while it was read"):
        segment("memory://changes/a.tif", tmp_path / "mask.tif", darkness_model)
    assert not (tmp_path / "mask.tif").exists()


def test_the_command_takes_urls_and_a_folder_of_them(
    slide: Path, darkness_model: Path, tmp_path: Path
) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.tif", "deeper/b.TIF", ".hidden/c.tif", "notes.txt", "deeper/.d.tif"):
        memory.pipe_file(f"/slides/{name}", slide.read_bytes())
    command = ["segment", "--model", str(darkness_model), "-q"]
    result = CliRunner().invoke(
        main, [*command, "memory://slides/a.tif", "-o", str(tmp_path / "one.tif")]
    )
    assert result.exit_code == 0, result.output
    masks = tmp_path / "masks"
    result = CliRunner().invoke(main, [*command, "memory://slides/", "-o", str(masks)])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in masks.iterdir()) == [
        "a_mask.tif",
        "b_mask.tif",
        "summary.csv",
    ]
    assert "memory://slides/deeper/b.TIF" in (masks / "summary.csv").read_text()
    assert (masks / "a_mask.tif").read_bytes() == (tmp_path / "one.tif").read_bytes()


def test_masks_of_ours_in_a_folder_elsewhere_are_no_slides(
    slide: Path, darkness_model: Path, tmp_path: Path
) -> None:
    segment(slide, tmp_path / "mask.tif", darkness_model)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/mixed/a.tif", slide.read_bytes())
    memory.pipe_file("/mixed/a_mask.tif", (tmp_path / "mask.tif").read_bytes())
    plan = plan_outputs(["memory://mixed/"], tmp_path / "out")
    assert [str(slide) for slide, _ in plan.pairs] == ["memory://mixed/a.tif"]
    with pytest.raises(InputError, match="no such file or folder"):
        plan_outputs(["memory://empty/"], tmp_path / "out")


def test_shards_share_a_slide_by_url(
    slide: Path, server: RangeServer, darkness_model: Path, tmp_path: Path
) -> None:
    address, model = server.add(slide), str(darkness_model)
    segment(slide, tmp_path / "one.tif", darkness_model, geojson=True)
    mask = str(tmp_path / "many.tif")
    commands = [
        ["segment", address, "-o", mask, "--model", model, "--geojson", "--shard", f"{i}/2"]
        for i in (1, 2)
    ]
    for command in [*commands, ["merge", mask]]:
        result = CliRunner().invoke(main, [*command, "-q"])
        assert result.exit_code == 0, result.output
    for ending in (".tif", ".geojson"):
        assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"many{ending}").read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        ["objects", "s3://bucket/mask.tif", "--table", "a.csv"],
        ["data", "tiles", "s3://bucket/a.svs", "-o", "tiles"],
    ],
)
def test_commands_that_read_no_urls_say_so(command: list[str]) -> None:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "s3://bucket/" in result.output
    assert "is a URL" in result.output
