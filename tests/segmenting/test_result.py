import json
from collections.abc import Callable

from genselfdiff.segmenting.result import SegmentResult


def test_a_result_as_json(make_result: Callable[..., SegmentResult]) -> None:
    result = make_result()
    told = json.loads(result.to_json())
    assert told["slide"] == str(result.slide)
    assert told["files"] == {
        name: str(path) for name, path in result.files._asdict().items() if path is not None
    }
    assert told["pixels"] == result.pixels
    assert told["areas_mm2"] == result.areas
    assert (told["width"], told["mpp"]) == (result.width, result.mpp)
    assert json.loads(make_result(mpp=None, objects=None).to_json())["areas_mm2"] is None
