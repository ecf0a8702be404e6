"""Labelled images: resampled, and kept on disk rather than in memory."""

import gc
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genselfdiff.data.labelled.images import LabelledImages
from genselfdiff.data.labelled.pairs import Pair
from genselfdiff.errors import OutputError


def test_scale_resamples_image_smoothly_and_labels_by_nearest(pair: Callable[..., Pair]) -> None:
    places = np.random.default_rng(0).integers(0, 4, (10, 15)).astype(np.uint8)
    labels = np.kron(places, np.ones((4, 4), np.uint8)) * np.uint8(50)
    halved = LabelledImages([pair(labels)], scale=0.5)
    assert halved.images[0].shape == (20, 30, 3)
    np.testing.assert_array_equal(halved.labels[0], labels[::2, ::2])
    np.testing.assert_array_equal(halved.images[0][..., 0], labels[::2, ::2])
    odd = LabelledImages([pair(labels)], scale=0.7)
    assert odd.images[0].shape == (28, 42, 3)
    assert set(np.unique(odd.labels[0])) <= {0, 50, 100, 150}
    assert len(np.unique(odd.images[0][..., 0])) > 4
    doubled = LabelledImages([pair(labels)], scale=2)
    np.testing.assert_array_equal(doubled.labels[0][::2, ::2], labels)


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind: the kernel could only swap it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell RssAnon")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux has /proc")
def test_memory_does_not_hold_the_images(
    pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    def generated(pair: Pair, **options: object) -> tuple[np.ndarray[Any, Any], ...]:
        number = int(pair.stem)
        return np.full((2500, 2000, 3), number, np.uint8), np.full((2500, 2000), number, np.uint8)

    # Decoding 200 MB of PNG would take longer than all other tests of this folder.
    monkeypatch.setattr("genselfdiff.data.labelled.images.load_pair", generated)
    one = pair(np.zeros((4, 4), np.uint8))
    LabelledImages([Pair("0", one.image, one.mask)])  # what is loaded at first is not counted
    gc.collect()
    before = anonymous_bytes()
    images = LabelledImages([Pair(str(i), one.image, one.mask) for i in range(10)])
    assert sum(array.nbytes for array in images.images + images.labels) == 200e6
    assert [int(image.max()) for image in images.images] == list(range(10))
    assert [int(labels.min()) for labels in images.labels] == list(range(10))
    # One or two of them, freed, may still be the allocator's.
    assert anonymous_bytes() - before < 60e6


def test_the_file_has_no_name_and_lies_in_tmpdir(
    pair: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    images = LabelledImages([pair(labels, "a"), pair(labels.T, "b")])
    assert list(folder.iterdir()) == []
    assert f"{folder}/" in Path("/proc/self/maps").read_text()
    np.testing.assert_array_equal(images.labels[0], labels)
    np.testing.assert_array_equal(images.labels[1], labels.T)
    np.testing.assert_array_equal(images.images[1][..., 0], labels.T)
    with pytest.raises(ValueError, match="read-only"):
        images.images[0][0, 0] = 0


def test_no_room_names_the_folder_and_tmpdir(
    pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "wb"))
    monkeypatch.setattr(tempfile, "tempdir", "/small")
    with pytest.raises(OutputError, match=r"^/small: .*No space left on device.*TMPDIR$"):
        LabelledImages([pair(np.zeros((4, 4), np.uint8))])


def test_no_folder_for_temporary_files_is_told(
    pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match=r"nowhere: .*No such file or directory.*TMPDIR$"):
        LabelledImages([pair(np.zeros((4, 4), np.uint8))])
