"""What lies beside a mask belongs to the settings of the run, or the run says so."""

import csv
import os

import pytest

import genselfdiff
from genselfdiff.errors import OutputError
from genselfdiff.segmenting import sidecars

ALL = {"geojson": True, "table": True, "labels": True, "report": True, "overlay": True}
NAMES = ("m.geojson", "m_objects.csv", "m_instances.tif", "m.html", "m_overlay.png")


@pytest.fixture
def slide(picture, write_slide):
    return write_slide(picture(300, 200))


@pytest.fixture
def run(tmp_path, slide, darkness_model):
    def run(**options):
        return genselfdiff.segment(
            slide, tmp_path / "m.tif", darkness_model, device="cpu", precision="float32", **options
        )

    return run


def contents(folder):
    return {name: (folder / name).read_bytes() for name in NAMES}


def rows(folder):
    with (folder / "m_objects.csv").open() as table:
        return len(list(csv.reader(table))) - 1


def test_the_same_settings_keep_the_files_and_tell_their_objects(tmp_path, run):
    first = run(**ALL)
    made = {name: (tmp_path / name).stat().st_mtime_ns for name in NAMES}
    again = run(**ALL)
    assert again.finished_before
    assert again.objects == first.objects and sum(first.objects.values()) == rows(tmp_path) > 0
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in NAMES} == made


@pytest.mark.parametrize(
    "other", [{"min_area": 1e9}, {"instances": True}, {"instances": True, "seed_distance": 3.0}]
)
def test_other_settings_make_files_anew_that_nobody_has_changed(tmp_path, run, other):
    run(**ALL)
    before = contents(tmp_path)
    result = run(**ALL, **other)
    assert sum(result.objects.values()) == rows(tmp_path)
    after = contents(tmp_path)
    assert after["m_overlay.png"] == before["m_overlay.png"]
    assert after["m.geojson"] != before["m.geojson"] and after["m.html"] != before["m.html"]
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for name in ("m.tif", *NAMES):
        os.replace(tmp_path / name, fresh / name)
    run(**ALL, **other)
    for name in set(NAMES) - {"m.html"}:  # which tells how long it took
        assert (tmp_path / name).read_bytes() == after[name]


def test_counts_are_those_of_the_settings_whatever_else_is_kept(tmp_path, run):
    run(overlay=True, geojson=True)
    assert not any(run(overlay=True, geojson=True, min_area=1e9).objects.values())
    assert not any(run(overlay=True, geojson=True, table=True, min_area=1e9).objects.values())
    assert rows(tmp_path) == 0
    assert any(run(overlay=True, geojson=True).objects.values())


def test_a_width_of_the_overlay_is_one_of_its_settings(tmp_path, run):
    run(overlay=True)
    before = (tmp_path / "m_overlay.png").read_bytes()
    run(overlay=True, overlay_width=50)
    assert (tmp_path / "m_overlay.png").read_bytes() != before


@pytest.mark.parametrize("name", NAMES)
def test_what_somebody_has_changed_is_left_alone(tmp_path, run, name):
    run(**ALL)
    with (tmp_path / name).open("ab") as file:
        file.write(b" ")
    before = contents(tmp_path)
    assert run(**ALL).finished_before
    with pytest.raises(OutputError, match=rf"{name}: exists already, and was changed"):
        run(**ALL, min_area=5.0, overlay_width=50)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("attribute", [None, b"", b"[]", b'{"settings": 3}', b"[" * 1000])
def test_a_file_of_which_nothing_is_known_is_left_alone(tmp_path, run, attribute):
    run()
    (tmp_path / "m.geojson").write_text("{}")
    if attribute is not None:
        os.setxattr(tmp_path / "m.geojson", "user.genselfdiff", attribute)
    with pytest.raises(OutputError, match=r"m\.geojson: exists already"):
        run(geojson=True)
    assert (tmp_path / "m.geojson").read_text() == "{}"
    (tmp_path / "m.geojson").unlink()
    assert sum(run(geojson=True).objects.values())


def without_attributes(folder):
    for name in NAMES:
        copy = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(copy)


def test_files_that_have_lost_their_attributes_are_compared(tmp_path, run):
    """Copies have none, and some file systems keep none."""
    first = run(**ALL)
    without_attributes(tmp_path)
    before = contents(tmp_path)
    assert run(**ALL).finished_before
    assert run(**ALL).objects == first.objects
    assert contents(tmp_path) == before
    without_attributes(tmp_path)
    with pytest.raises(OutputError, match="exists already, and was changed or made otherwise"):
        run(**ALL, min_area=1e9)
    assert contents(tmp_path) == before


def test_a_run_that_was_killed_between_two_files_goes_on(tmp_path, run, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sidecars, "write_report", kill)
        with pytest.raises(Killed):
            run(**ALL)
    assert (tmp_path / "m.geojson").exists() and not (tmp_path / "m.html").exists()
    assert sum(run(**ALL).objects.values()) == rows(tmp_path)
    assert (tmp_path / "m.html").exists()


def test_systems_without_attributes_compare_files(tmp_path, run, monkeypatch):
    """Python has them on Linux alone."""
    monkeypatch.delattr(os, "getxattr")
    monkeypatch.delattr(os, "setxattr")
    first = run(**ALL)
    before = contents(tmp_path)
    assert run(**ALL).objects == first.objects
    assert contents(tmp_path) == before
