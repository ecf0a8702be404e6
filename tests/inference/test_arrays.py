"""Images in memory as people have them: NumPy, Pillow, torch; and what is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.errors import InputError
from genselfdiff.inference.image import predict_image
from genselfdiff.models.model_file import LoadedModel, load_model
from genselfdiff.objects.label_array import instances


@pytest.fixture
def model(darkness_model: Path) -> LoadedModel:
    return load_model(darkness_model, "cpu")


def test_all_kinds_give_the_same(
    model: LoadedModel, picture: Callable[..., NDArray[np.uint8]]
) -> None:
    image = picture(60, 90)
    expected = model(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    channels_first = torch.from_numpy(image).permute(2, 0, 1)
    for kind in (image, Image.fromarray(image), torch.from_numpy(image), channels_first):
        given = model(kind)
        assert isinstance(given, torch.Tensor if isinstance(kind, torch.Tensor) else np.ndarray)
        np.testing.assert_array_equal(np.asarray(given), expected)
        np.testing.assert_allclose(predict_image(model, kind), expected, atol=1e-6)
        for labels in (model(kind, labels=True), predict_image(model, kind, labels=True)):
            np.testing.assert_array_equal(np.asarray(labels), image[..., 1] < 128)
    assert predict_image(model, image, labels=True).dtype == np.uint8
    with pytest.raises(InputError, match="tile_size: is missing"):
        predict_image(model.module, image)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((4, 5), np.uint8), r"of shape \(4, 5\): grey becomes RGB"),
        (np.zeros((3, 4, 5), np.uint8), r"of shape \(3, 4, 5\): give image.transpose"),
        (np.zeros((4, 5, 4), np.uint8), r"leave alpha out: image\[\.\.\., :3\]"),
        (np.zeros((0, 5, 3), np.uint8), r"of shape \(0, 5, 3\)"),
        (np.zeros((4, 5, 3)), "of float64, but images are uint8 in 0..255"),
        (torch.zeros(3, 4, 5, dtype=torch.bfloat16), "of float32, but"),
        (torch.zeros(2, 4, 5, dtype=torch.uint8), r"of shape \(2, 4, 5\)"),
        (Image.new("I;16", (4, 5)), "of mode I;16"),
        ("slide.svs", "a str, not an array"),
    ],
)
def test_what_is_no_image_is_said_in_one_line(model: LoadedModel, image: object, told: str) -> None:
    for call in (model, lambda given: predict_image(model, given)):
        with pytest.raises(InputError, match=told) as caught:
            call(image)
        assert str(caught.value).startswith("image: ") and "\n" not in str(caught.value)


def test_numbers_of_objects() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 10:50] = 1
    labels[35:37, 50:52] = 1  # 4 pixels: a speck
    cores = np.zeros(labels.shape, np.float32)
    cores[14:26, 14:26] = cores[14:26, 34:46] = 0.9
    numbers = instances(labels, 0.25, cores=cores)
    assert numbers.dtype == np.int32 and numbers.max() == 2
    assert numbers[20, 12] != numbers[20, 48] != 0
    np.testing.assert_array_equal(numbers, instances(labels, 0.25, cores=cores > 0.5))
    np.testing.assert_array_equal(instances(labels, 0.25) > 0, (labels > 0) & (numbers > 0))
    assert instances(labels, 0.25, min_area=0).max() == 2
    for wrong in (labels.astype(np.int64), labels[0], [[1]]):
        with pytest.raises(InputError, match="give class indices"):
            instances(wrong)
    with pytest.raises(InputError, match="cores: of shape"):
        instances(labels, cores=cores[:5])
    with pytest.raises(InputError, match="mpp"):
        instances(labels, -1.0)
