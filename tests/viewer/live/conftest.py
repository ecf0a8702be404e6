"""A model whose answer depends on what is around a pixel, and a server that predicts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from viewer_client import Client

from genselfdiff.live.live_part import live_part
from genselfdiff.live.predictions import Predictions
from genselfdiff.models.model_file import save_model
from genselfdiff.viewer.collection import Entry
from genselfdiff.viewer.library import Library


@pytest.fixture
def textured_model(
    tmp_path: Path, conv_net: Callable[..., torch.nn.Module], info: Callable[..., Any]
) -> Path:
    """Where tiles end is seen in what this model gives, unless they are blended rightly."""
    path = tmp_path / "textured.ts"
    save_model(conv_net(classes=3, layers=4), info(3), path)
    return path


@pytest.fixture
def predicting() -> Iterator[Callable[..., tuple[Client, Predictions]]]:
    """Start a process that predicts, and a server that is asked without a network."""
    with ExitStack() as stack:

        def start(
            slides: list[Path], *models: Path, **options: object
        ) -> tuple[Client, Predictions]:
            options = {"device": "cpu", "on_error": "blank"} | options
            predictions = Predictions(slides, [str(model) for model in models], options)
            stack.enter_context(closing(predictions))
            library = Library([Entry(slide) for slide in slides])
            return Client(library, live_part(library, predictions)), predictions

        yield start


@pytest.fixture
def labelled(tmp_path: Path, picture: Callable[..., np.ndarray]) -> Path:
    """A folder of two labelled images, of which a corner is not."""
    folder = tmp_path / "labelled"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(2):
        image = picture(128, 128, seed=number)
        mask = (image[..., 1] < 100).astype(np.uint8)
        mask[:20, :20] = 255
        resolution = {"resolution": (2e4, 2e4), "resolutionunit": 3}
        tifffile.imwrite(folder / f"images/{number}.tif", image, photometric="rgb", **resolution)
        Image.fromarray(mask).save(folder / f"masks/{number}.png")
    (folder / "classes.csv").write_text("value,class\n0,rest\n1,dark\n")
    return folder
