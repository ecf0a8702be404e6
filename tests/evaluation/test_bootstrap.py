import numpy as np
import pytest
from scipy import stats

from genselfdiff.evaluation import bootstrap
from genselfdiff.evaluation.bootstrap import mean_interval


@pytest.mark.parametrize("count", [5, 40])
def test_against_scipy(count):
    values = np.random.default_rng(count).beta(5, 2, count)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.06 * width)


def test_it_is_the_same_again_and_however_many_are_drawn_at_once(monkeypatch):
    values = np.random.default_rng(0).random(9)
    first = mean_interval(values)
    monkeypatch.setattr(bootstrap, "_DRAWN_AT_ONCE", 9 * 300)
    assert mean_interval(values) == first


def test_of_equal_values_it_is_that_value():
    assert mean_interval(np.full(7, 0.25)) == (0.25, 0.25)


def test_fewer_than_two_have_none():
    assert mean_interval(np.array([])) is None
    assert mean_interval(np.array([0.5])) is None
