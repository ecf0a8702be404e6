"""What is known: distances, the limit, the file."""

import json

import numpy as np
import pytest

from genselfdiff.errors import InputError
from genselfdiff.unknown.cell_statistics import STATISTICS
from genselfdiff.unknown.known_tissue import MOST_CELLS, NEIGHBOURS, KnownTissue
from genselfdiff.unknown.learning import known_tissue

COUNT = len(STATISTICS)


def cells(count: int, seed: int, mixing: np.ndarray | None = None) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, COUNT))
    return found if mixing is None else found @ mixing


def test_distances_are_those_to_the_nearest_after_whitening() -> None:
    mixing = np.random.default_rng(9).normal(size=(COUNT, COUNT))
    images = [cells(400, seed, mixing) for seed in range(3)]
    known = KnownTissue.of(images, 0.5, 64)
    points = (np.concatenate(images) - known.mean) @ known.whitening
    covariance = np.cov(points.T, bias=True)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.01
    assert np.diag(covariance).max() < 1.03  # less where the shrinkage counts
    others = cells(7, 5, mixing)
    away = (others - known.mean) @ known.whitening
    all_distances = np.linalg.norm(away[:, None] - points[None], axis=2)
    expected = np.sort(all_distances, axis=1)[:, :NEIGHBOURS].mean(1)
    np.testing.assert_allclose(known.distances(others), expected, rtol=1e-4)
    assert known.distances(others.reshape(7, 1, COUNT)).shape == (7, 1)


def test_the_limit_is_what_one_of_a_hundred_is_beyond_seen_from_other_images() -> None:
    images = [cells(300, seed) + 3 * (seed == 0) for seed in range(4)]
    known = KnownTissue.of(images, 0.5, 64)
    of_others = [np.concatenate(images[:i] + images[i + 1 :]) for i in range(4)]
    distances = [
        KnownTissue(0.5, 64, known.mean, known.whitening, points.astype(np.float32), 1.0).distances(
            image
        )
        for image, others in zip(images, of_others, strict=True)
        for points in [known.whitened(others)]
    ]
    assert known.limit == pytest.approx(np.quantile(np.concatenate(distances), 0.99), rel=1e-4)


def test_a_single_image_is_compared_with_itself_but_no_cell_is() -> None:
    known = KnownTissue.of([cells(300, 0)], 0.5, 64)
    assert known.limit > 1  # a cell that were its own neighbour would be nearer


def test_unlikeness_is_a_half_at_the_limit() -> None:
    known = KnownTissue.of([cells(300, 0), cells(300, 1)], 0.5, 64)
    some = cells(50, 2) * np.linspace(0, 9, 50)[:, None]
    distances, values = known.distances(some), known.unlikeness(some)
    np.testing.assert_array_equal(values > 0.5, distances > known.limit)
    assert values.min() >= 0
    assert values[-1] == 1


def test_no_more_cells_are_kept_than_are_of_use() -> None:
    assert len(KnownTissue.of([cells(MOST_CELLS + 900, 0)], 0.5, 64).points) == MOST_CELLS
    with pytest.raises(InputError, match=r"64 cells of 64 x 64 .* at least 65"):
        KnownTissue.of([cells(64, 0)], 0.5, 64)


def test_constant_statistics_break_nothing() -> None:
    flat = cells(200, 0)
    flat[:, 3] = 1.5
    known = KnownTissue.of([flat], 0.5, 64)
    assert np.isfinite(known.unlikeness(cells(10, 1))).all()


def test_the_file_brings_back_the_same(tmp_path) -> None:
    known = KnownTissue.of([cells(300, 0), cells(300, 1)], 0.25, 32, icc=True)
    known.write(tmp_path / "known.json")
    read = known_tissue(tmp_path / "known.json")
    assert (read.mpp, read.side, read.limit, read.icc) == (0.25, 32, known.limit, True)
    some = cells(50, 2)
    np.testing.assert_allclose(read.unlikeness(some), known.unlikeness(some), atol=2e-3)
    with pytest.raises(InputError, match=r"sees tissue at 0.25 um/px, not at 0.5"):
        known_tissue(tmp_path / "known.json", mpp=0.5)
    KnownTissue.of([cells(300, 0)], 0.25, 32).write(tmp_path / "known.json")
    with pytest.raises(InputError, match="was made without --icc"):
        known_tissue(tmp_path / "known.json", icc=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mpp", "a"),
        ("side", 7),
        ("icc", 1),
        ("limit", -1),
        ("limit", None),
        ("mean", [1, 2]),
        ("whitening", [[1.0]]),
        ("points", [[0.0] * COUNT]),
        ("points", "none"),
        ("points", [[float("nan")] * COUNT] * 9),
    ],
)
def test_damaged_files_are_told(tmp_path, key: str, value: object) -> None:
    path = tmp_path / "known.json"
    KnownTissue.of([cells(300, 0)], 0.5, 64).write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=r"known\.json: is damaged: make it anew"):
        KnownTissue.read(path)


def test_other_files_are_told(tmp_path) -> None:
    path = tmp_path / "known.json"
    path.write_text("[]")
    with pytest.raises(InputError, match="is no file of known tissue"):
        KnownTissue.read(path)
    KnownTissue.of([cells(300, 0)], 0.5, 64).write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"statistics": ["a"]}))
    with pytest.raises(InputError, match="is of another version of gsd"):
        KnownTissue.read(path)
