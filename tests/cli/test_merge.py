"""``gsd merge`` as a user types it."""

import json

from click.testing import CliRunner

from genselfdiff import segment
from gsd.main import main


def test_a_mask_that_cannot_be_merged_does_not_stop_the_others(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.tif.shards").mkdir()
        (tmp_path / f"{name}.tif.shards" / "job.json").write_text(json.dumps([]))
    result = CliRunner().invoke(main, ["merge", str(tmp_path)])
    assert result.exit_code == 1
    for told in ("a.tif.shards/job.json: is no job", "b.tif.shards/job.json: is no job"):
        assert told in result.output
    assert "not merged: 2 of 2 masks" in result.output


def test_where_no_slide_was_cut_there_is_nothing_to_do(
    tmp_path, picture, write_slide, darkness_model
):
    """A job that waits for an array of shards must not count as failed."""
    masks = tmp_path / "masks"
    masks.mkdir()
    segment(write_slide(picture(100, 100)), masks / "a.tif", darkness_model)
    for named in (masks, masks / "a.tif"):
        result = CliRunner().invoke(main, ["merge", str(named)])
        assert result.exit_code == 0
        assert result.output == f"{named}: nothing to merge: no slide was cut\n"
    for named in (tmp_path / "slides", masks / "b.tif", masks / "b"):
        result = CliRunner().invoke(main, ["merge", str(named)])
        assert result.exit_code == 1
        assert f"{named}: " in result.output
