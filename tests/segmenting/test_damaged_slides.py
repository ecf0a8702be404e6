"""A slide with damaged tiles: an error and no file, or glass that the result counts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from genselfdiff import resumable_file
from genselfdiff.errors import InputError, OutputError
from genselfdiff.masks import pyramid_writer
from genselfdiff.segmenting import one_slide
from genselfdiff.segmenting.one_slide import segment
from genselfdiff.slides import open_slide
from gsd.main import main


@pytest.fixture
def damaged(write_slide: Callable[..., Path], picture: Callable[..., np.ndarray]) -> Path:
    """384 x 384 pixels of which the tile at (128, 256) is damaged."""
    return with_damage(write_slide(picture(384, 384)), 7)


def with_damage(path: Path, tile: int) -> Path:
    with tifffile.TiffFile(path) as opened:
        offset = opened.pages[0].dataoffsets[tile]
    data = bytearray(path.read_bytes())
    data[offset : offset + 100] = bytes(100)
    path.write_bytes(data)
    return path


def test_by_default_it_ends_the_run(damaged: Path, darkness_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"slide\.tif: tile \(column 1, row 2\) of level 0, at by"):
        segment(damaged, tmp_path / "mask.tif", darkness_model)
    assert not list(tmp_path.glob("*mask*"))


def test_blank_tiles_are_background_and_counted(
    damaged: Path, darkness_model: Path, tmp_path: Path
) -> None:
    result = segment(damaged, tmp_path / "mask.tif", darkness_model, on_error="blank")
    assert result.blank_tiles == 1
    assert "damaged tiles taken for glass: 1" in result.summary()
    labels = tifffile.imread(tmp_path / "mask.tif")
    assert not labels[264:376, 136:248].any()
    assert labels[:256].mean() > 0.2
    with open_slide(damaged, on_error="blank") as slide:
        assert (slide.read_level(128, 256, 128, 128) == 255).all()


def test_the_command_takes_it(damaged: Path, darkness_model: Path, tmp_path: Path) -> None:
    arguments = ["segment", str(damaged), "-o", str(tmp_path / "mask.tif")]
    arguments += ["--model", str(darkness_model)]
    failed = CliRunner().invoke(main, arguments)
    assert failed.exit_code == 1 and "--on-error blank" in failed.output
    done = CliRunner().invoke(main, [*arguments, "--on-error", "blank"])
    assert done.exit_code == 0, done.output
    assert "damaged tiles taken for glass: 1" in done.output


def test_a_mask_with_glass_for_damaged_tiles_is_no_mask_of_a_strict_run(
    damaged: Path, darkness_model: Path, tmp_path: Path
) -> None:
    mask = tmp_path / "mask.tif"
    segment(damaged, mask, darkness_model, on_error="blank")
    assert segment(damaged, mask, darkness_model, on_error="blank").finished_before
    with pytest.raises(OutputError, match="damaged tiles taken for glass"):
        segment(damaged, mask, darkness_model)


def test_a_strict_run_does_not_go_on_with_glass_for_damaged_tiles(
    write_slide: Callable[..., Path],
    picture: Callable[..., np.ndarray],
    darkness_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damaged = with_damage(write_slide(picture(1024, 256)), 0)
    right = one_slide.labels_of

    def stop(band: np.ndarray) -> np.ndarray:
        records = resumable_file.last_record(tmp_path / "mask.tif")
        if records.get("from_damaged"):
            raise KeyboardInterrupt
        return right(band)

    options = {"batch_size": 1, "on_error": "blank", "tissue": False}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pyramid_writer, "RECORD_SECONDS", 0.0)
        patch.setattr(one_slide, "labels_of", stop)
        segment(damaged, tmp_path / "mask.tif", darkness_model, **options)
    strict = options | {"on_error": "fail"}
    with pytest.raises(OutputError, match=r"was begun with damaged tiles taken for glass: go on"):
        segment(damaged, tmp_path / "mask.tif", darkness_model, **strict)
    with pytest.raises(OutputError, match="was begun with tta 1 instead of 2"):
        segment(damaged, tmp_path / "mask.tif", darkness_model, **strict, tta=2)
    journal = (tmp_path / ".mask.tif.journal").read_bytes()
    partial = (tmp_path / ".mask.tif.partial").read_bytes()
    with pytest.raises(InputError, match="cannot be decoded"):
        segment(damaged, tmp_path / "mask.tif", darkness_model, **strict, overwrite=True)
    assert not list(tmp_path.glob("*mask*"))
    (tmp_path / ".mask.tif.journal").write_bytes(journal)
    (tmp_path / ".mask.tif.partial").write_bytes(partial)
    assert 0 < segment(damaged, tmp_path / "mask.tif", darkness_model, **options).share < 1


def test_a_strict_mask_is_one_of_a_tolerant_run(
    picture: Callable[..., np.ndarray],
    write_slide: Callable[..., Path],
    darkness_model: Path,
    tmp_path: Path,
) -> None:
    whole = write_slide(picture(300, 200), name="whole.tif")
    segment(whole, tmp_path / "mask.tif", darkness_model)
    again = segment(whole, tmp_path / "mask.tif", darkness_model, on_error="blank")
    assert again.finished_before
