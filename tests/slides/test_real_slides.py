"""Real slides, where the environment variable GSD_TEST_DATA names a folder of them."""

import os
from pathlib import Path

import pytest

from genselfdiff.slides import TissueMap, open_slide


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("GSD_TEST_DATA")
    if not folder:
        pytest.skip("set GSD_TEST_DATA to the folder that holds slides/CMU-1-Small-Region.svs")
    return Path(folder)


def test_aperio(data: Path) -> None:
    with open_slide(data / "slides" / "CMU-1-Small-Region.svs") as slide:
        assert (slide.width, slide.height, slide.mpp) == (2220, 2967, 0.499)
        assert len(slide.levels) == 1
        tissue = TissueMap(slide, max_side=700)
        assert tissue.fraction(0, 0, 2220, 2967) == pytest.approx(0.4, abs=0.06)
        assert tissue.fraction(0, 1500, 400, 400) == 0
        assert tissue.fraction(1000, 1000, 300, 300) > 0.95


def test_ome_tiff(data: Path) -> None:
    with open_slide(data / "slides" / "OS-1-detail.ome.tif") as slide:
        assert (slide.width, slide.height) == (1101, 1101)
        assert slide.mpp == pytest.approx(0.2271, abs=1e-4)
        assert TissueMap(slide, max_side=550).fraction(0, 0, 1101, 1101) > 0.98
