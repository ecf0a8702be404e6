"""Real slides: the repository's, and others in the folder that GSD_TEST_DATA names."""

import os
from pathlib import Path

import pytest

from genselfdiff.slides import TissueMap, open_slide

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_aperio() -> None:
    with open_slide(EXAMPLES / "CMU-1-Small-Region.svs") as slide:
        assert (slide.width, slide.height, slide.mpp) == (2220, 2967, 0.499)
        assert len(slide.levels) == 1
        tissue = TissueMap(slide, max_side=700)
        assert tissue.fraction(0, 0, 2220, 2967) == pytest.approx(0.4, abs=0.06)
        assert not tissue.any(0, 1500, 400, 400)
        assert tissue.fraction(1000, 1000, 300, 300) > 0.95


@pytest.mark.skipif(
    "GSD_TEST_DATA" not in os.environ,
    reason="set GSD_TEST_DATA to the folder that holds slides/OS-1-detail.ome.tif",
)
def test_ome_tiff() -> None:
    path = Path(os.environ["GSD_TEST_DATA"], "slides", "OS-1-detail.ome.tif")
    with open_slide(path) as slide:
        assert (slide.width, slide.height) == (1101, 1101)
        assert slide.mpp == pytest.approx(0.2271, abs=1e-4)
        assert TissueMap(slide, max_side=550).fraction(0, 0, 1101, 1101) > 0.98
