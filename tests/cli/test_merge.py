"""``gsd merge`` as a user types it."""

import json

from click.testing import CliRunner

from gsd.main import main


def test_a_mask_that_cannot_be_merged_does_not_stop_the_others(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.tif.shards").mkdir()
        (tmp_path / f"{name}.tif.shards" / "job.json").write_text(json.dumps([]))
    result = CliRunner().invoke(main, ["merge", str(tmp_path)])
    assert result.exit_code == 1
    for told in ("a.tif.shards/job.json: is no job", "b.tif.shards/job.json: is no job"):
        assert told in result.output
    assert "2 of 2 masks are not merged" in result.output
