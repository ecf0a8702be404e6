"""Files that several runs write together, and the pyramid of probabilities."""

import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from genselfdiff.errors import OutputError
from genselfdiff.masks import MaskWriter, ProbabilityWriter, PyramidShape, as_bytes, pyramid_writer
from genselfdiff.resumable_file import ResumableFile, _line, unfinished

PALETTE = [(255, 255, 255), (200, 30, 30), (30, 30, 200)]
NAMES = ["background", "nucleus", "gland"]
PURPOSE = {"slide": "a.svs", "tile size": 512, "overlap": 0.25}


@pytest.fixture(autouse=True)
def record_every_band(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid_writer, "RECORD_SECONDS", 0.0)


def probabilities(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9 + y / 31), np.sin(y / 13), np.sin((x + y) / 37)])
    waves[:, :, : width // 3] = [[[1.0]], [[-1.0]], [[-1.0]]]
    shares = np.exp(2 * waves)
    return (shares / shares.sum(0)).astype(np.float32)


class Killed(BaseException):
    pass


def planes_of(kind: str, part: np.ndarray) -> np.ndarray:
    if kind == "probabilities":
        return as_bytes(part)
    labels = part.argmax(0).astype(np.uint8)
    cores = (labels > 0) & (part.max(0) > 0.7)
    return np.stack((labels, cores))[: 1 + (kind == "cores")].astype(np.uint8)


def write(
    kind: str,
    path: Path,
    data: np.ndarray,
    stop: int | None = None,
    window: tuple[int, int, int, int] | None = None,
    **resuming,
) -> None:
    """Write what is missing, in uneven steps; raise ``Killed`` before row ``stop``."""
    shape = PyramidShape(data.shape[2], data.shape[1], 0.5, window, tile=64)
    x, y, width, height = shape.written
    file = ResumableFile(path, **resuming)
    if kind in ("mask", "cores"):
        told = {"palette": PALETTE, "class_names": NAMES, "cores": kind == "cores"}
        writer = MaskWriter(file, shape, **told)
    else:
        writer = ProbabilityWriter(file, shape, class_names=NAMES)
    rng = random.Random(1)
    with writer:
        row = writer.rows_written
        while row < height:
            if stop is not None and row >= stop:
                raise Killed
            rows = slice(y + row, y + min(row + rng.randint(1, 70), height))
            part = data[:, rows, x : x + width]
            writer.push(planes_of(kind, part))
            row = rows.stop - y


@pytest.mark.parametrize("kind", ["mask", "cores", "probabilities"])
@pytest.mark.parametrize("window", [None, (130, 201, 300, 410), (0, 64, 64, 700)])
def test_interrupted_anywhere_the_file_is_the_same(tmp_path, kind, window):
    data = probabilities(911, 603)
    write(kind, tmp_path / "whole.tif", data, window=window)
    expected = (tmp_path / "whole.tif").read_bytes()
    rng = random.Random(0)
    goes_on = []
    for stops in ([70], [200, 330], [700], sorted(rng.sample(range(900), 7)), range(0, 911, 64)):
        path = tmp_path / "pieces.tif"
        for stop in stops:
            try:
                write(kind, path, data, stop, window=window, purpose=PURPOSE)
            except Killed:
                assert not path.exists()
                goes_on.append(unfinished(path))
        write(kind, path, data, window=window, purpose=PURPOSE)
        assert path.read_bytes() == expected
        path.unlink()
        assert [file.name for file in tmp_path.iterdir()] == ["whole.tif"]
    assert PURPOSE in goes_on


def test_work_of_other_settings_is_not_mixed_in(tmp_path):
    data, path = probabilities(300, 200), tmp_path / "m.tif"
    with pytest.raises(Killed):
        write("mask", path, data, 200, purpose=PURPOSE)
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    told = r"m\.tif: was begun with overlap 0.25 instead of 0.5: repeat .* --overwrite"
    with pytest.raises(OutputError, match=told):
        write("mask", path, data, purpose=PURPOSE | {"overlap": 0.5})
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == kept
    other = 1 - data
    write("mask", path, other, purpose=PURPOSE | {"overlap": 0.5}, restart=True)
    np.testing.assert_array_equal(tifffile.imread(path), other.argmax(0))
    assert [file.name for file in tmp_path.iterdir()] == ["m.tif"]


def test_a_damaged_journal_loses_only_what_it_told(tmp_path):
    data, path = probabilities(600, 200), tmp_path / "m.tif"
    journal = tmp_path / ".m.tif.journal"
    write("mask", tmp_path / "whole.tif", data)
    for damage in (
        lambda text: text[:-7],
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b"bands", b"hands", 2),
        lambda _: b"\xff\xfe",
    ):
        with pytest.raises(Killed):
            write("mask", path, data, 500, purpose=PURPOSE)
        journal.write_bytes(damage(journal.read_bytes()))
        write("mask", path, data, purpose=PURPOSE)
        assert path.read_bytes() == (tmp_path / "whole.tif").read_bytes()
        path.unlink()


def test_a_partial_file_shorter_than_its_journal_says(tmp_path):
    data, path = probabilities(600, 200), tmp_path / "m.tif"
    with pytest.raises(Killed):
        write("mask", path, data, 500, purpose=PURPOSE)
    with (tmp_path / ".m.tif.partial").open("r+b") as partial:
        partial.truncate(2000)
    write("mask", path, data, purpose=PURPOSE)
    np.testing.assert_array_equal(tifffile.imread(path), data.argmax(0))


def test_two_runs_do_not_write_the_same_file(tmp_path):
    given = tmp_path / "m.tif", PyramidShape(9, 9, None)
    looks = {"palette": PALETTE, "class_names": NAMES}
    with MaskWriter(*given, **looks) as writer:
        with pytest.raises(OutputError, match=r"m\.tif: another run is writing it"):
            MaskWriter(*given, **looks).__enter__()
        writer.write_rows(np.ones((9, 9), np.uint8))
    assert tifffile.imread(tmp_path / "m.tif").all()


def test_a_journal_whose_file_is_complete_binds_nobody(tmp_path):
    """A kill between giving the file its name and removing the journal leaves the journal."""
    data, path = probabilities(300, 200), tmp_path / "m.tif"
    with pytest.raises(Killed):
        write("mask", path, data, 200, purpose=PURPOSE)
    (tmp_path / ".m.tif.partial").unlink()
    assert unfinished(path) is None
    write("mask", path, data, purpose=PURPOSE | {"overlap": 0.5})
    assert [file.name for file in tmp_path.iterdir()] == ["m.tif"]


def test_systems_without_fdatasync_record_too(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "fdatasync", raising=False)  # macOS has none
    with pytest.raises(Killed):
        write("mask", tmp_path / "m.tif", probabilities(300, 200), 200, purpose=PURPOSE)
    assert unfinished(tmp_path / "m.tif") == PURPOSE


def test_records_are_written_not_held(tmp_path):
    entry = {"bands": list(range(1000, 3000))}
    with ResumableFile(tmp_path / "m.tif", PURPOSE) as file:
        file.stream.write(b"data")
        file.record(entry)
        tracemalloc.start()
        try:
            for _ in range(20):
                file.record({"bands": list(range(1000, 3000))})
            assert tracemalloc.get_traced_memory()[0] < 200_000
        finally:
            tracemalloc.stop()
    with ResumableFile(tmp_path / "m.tif", PURPOSE) as file:
        assert len(file.records) == 21


def test_probabilities_come_back_in_every_page(tmp_path):
    data = probabilities(411, 603)
    write("probabilities", tmp_path / "p.tif", data)
    expected = np.rint(data * 255)
    with tifffile.TiffFile(tmp_path / "p.tif") as tiff:
        assert len(tiff.pages) == 3
        for page in tiff.pages:
            stored = page.asarray()
            assert stored.shape == expected.shape
            assert np.abs(stored - expected).max() <= 0.5 * (page.index + 0.01)
            height, width = expected.shape[1:]
            even = np.pad(expected, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
            expected = even.reshape(3, even.shape[1] // 2, 2, -1, 2).mean((2, 4))


@pytest.mark.parametrize(
    "change",
    [
        {"bands": [[0, 99, [[[0, 0]]]]]},
        {"bands": [[9, 0, [[[0, 0]]]]]},
        {"bands": [[0, 0, [[["a", 0]]]]]},
        {"bands": 3},
        {"bands": [[0, 0, [[[16, 2**60]] * 4]]]},
        {"uniform": [[0]]},
        {"counts": "x"},
        {"counts": None},
    ],
)
def test_a_journal_that_leads_astray_is_refused(tmp_path, change):
    data, path = probabilities(300, 200), tmp_path / "m.tif"
    with pytest.raises(Killed):
        write("mask", path, data, 65, purpose=PURPOSE)
    with ResumableFile(path, PURPOSE) as file:
        (entry,) = file.records
    (tmp_path / ".m.tif.journal").write_bytes(
        b"".join(map(_line, ({"purpose": PURPOSE}, entry | change)))
    )
    with pytest.raises(OutputError, match=r"m\.tif: .* is damaged: delete .*\.m\.tif\.partial"):
        write("mask", path, data, purpose=PURPOSE)
    (tmp_path / ".m.tif.partial").unlink()
    write("mask", path, data, purpose=PURPOSE)
    np.testing.assert_array_equal(tifffile.imread(path), data.argmax(0))
