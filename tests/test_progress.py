"""Times as people read them."""

import pytest

from genselfdiff.progress import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (3599.9, "59 min 59 s"),
        (3960, "1 h 6 min"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
