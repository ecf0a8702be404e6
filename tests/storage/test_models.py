"""A model by URL is copied once, and computes as the same file does."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from range_server import RangeServer

from genselfdiff import load_model, segment
from genselfdiff.errors import ModelError
from gsd.main import main


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


def test_a_model_by_url_makes_the_same_mask(
    slide: Path, darkness_model: Path, server: RangeServer, tmp_path: Path
) -> None:
    segment(slide, tmp_path / "a.tif", darkness_model)
    address = server.add(darkness_model)
    for name in "bc":
        command = ["segment", str(slide), "-o", str(tmp_path / f"{name}.tif"), "--model", address]
        result = CliRunner().invoke(main, [*command, "-q"])
        assert result.exit_code == 0, result.output
        assert (tmp_path / f"{name}.tif").read_bytes() == (tmp_path / "a.tif").read_bytes()
    size = darkness_model.stat().st_size
    assert sum(last - first + 1 for _, first, last in server.requests) < 2 * (size + 2**17) + size


def test_another_model_at_the_same_url_is_fetched(
    darkness_model: Path, server: RangeServer, caches: Path
) -> None:
    address = server.add(darkness_model)
    first = load_model(address)
    server.etags["/darkness.ts"] = '"2"'
    second = load_model(address)
    assert first.digest == second.digest
    assert first.source != second.source
    assert len(list(caches.rglob("darkness.ts"))) == 2


def test_what_is_no_model_is_told(slide: Path, server: RangeServer) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_model(f"{server.address}/none.ts")
    with pytest.raises(ModelError, match=r"slide\.tif"):
        load_model(server.add(slide))
