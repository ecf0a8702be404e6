"""What decides a mask, as masks, journals and shards of version 0.1 have it on disk."""

import json
from dataclasses import replace

import pytest

from genselfdiff.json_records import as_json, from_json
from genselfdiff.segmenting.jobs.job import Job, Request

STORED = (
    '{"slide": "slide.tif 0123", "mpp": null, "icc": false, "model": "m.ts 4567", "tile size": 64,'
    ' "overlap": 0.25, "region": [0, 0, 200, 100], "tissue": true, "device": "cpu",'
    ' "precision": "float32", "tta": 1, "batch size": 2, "threads": 1, "genselfdiff": "0.1.0",'
    ' "torch": "2.13.0", "kernels": "avx2"}'
)


@pytest.fixture
def job() -> Job:
    return from_json(Job, json.loads(STORED))


def test_it_is_written_as_it_was_read(job: Job) -> None:
    assert job.region == (0, 0, 200, 100)
    assert json.dumps(as_json(job)) == STORED
    part = json.loads(json.dumps(as_json(replace(job, rows=(0, 512)))))
    assert part == json.loads(STORED) | {"rows": [0, 512]}
    assert from_json(Job, part) == replace(job, rows=(0, 512))


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"tta": None},
        {"tile size": True},
        {"region": [0, 0, 1]},
        {"precision": "float8"},
        {"threads": 0},
        {"rows": [0]},
    ],
)
def test_what_no_run_has_written_is_no_job(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        from_json(Job, json.loads(STORED) | change)
    for key in change.keys() & json.loads(STORED).keys():
        with pytest.raises(ValueError):
            from_json(Job, {k: v for k, v in json.loads(STORED).items() if k != key})


def test_a_request_leaves_open_what_it_does_not_name(job: Job) -> None:
    request = Request(**{k: v for k, v in vars(job).items() if k != "rows"} | {"torch": "2.14.0"})
    assert request.is_met_by(job)
    assert replace(request, precision=None, batch_size=None, threads=None).is_met_by(job)
    assert not replace(request, batch_size=3).is_met_by(job)
    assert not request.is_met_by(replace(job, rows=(0, 512)))
    assert request.on_this_machine(job).torch == "2.14.0"


def test_a_job_asks_for_itself(job: Job) -> None:
    assert job.is_met_by(replace(job))
    assert not job.is_met_by(replace(job, torch="2.14.0"))
