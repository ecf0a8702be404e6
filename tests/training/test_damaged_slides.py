"""Damaged tiles of slides end pretraining, or become glass, as the user wants."""

import dataclasses
import logging
import re

import numpy as np
import pytest
import tifffile

from genselfdiff.errors import InputError
from genselfdiff.training.run_folder import read_checkpoint
from genselfdiff.training.runs import pretrain
from genselfdiff.training.settings.stage_configs import PretrainConfig


@pytest.fixture
def damaged(tmp_path):
    """A slide of 5 x 5 tiles, two of which cannot be decoded; its smaller level is whole."""
    path = tmp_path / "slide.tif"
    pixels = np.random.default_rng(0).integers(
        (150, 60, 130), (210, 120, 190), (320, 320, 3), np.uint8
    )
    options = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=1, resolution=(20000, 20000), resolutionunit=3, **options)
        writer.write(pixels[::2, ::2], subfiletype=1, **options)
    with tifffile.TiffFile(path) as file:
        offsets = [file.pages[0].dataoffsets[index] for index in (6, 16)]
    content = bytearray(path.read_bytes())
    for offset in offsets:
        content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
    return path


@pytest.fixture
def config(pretrain_config, damaged):
    return dataclasses.replace(
        pretrain_config, data=(str(damaged),), sample_every=0, validate_every=8
    )


def told(caplog, what):
    return [r.message for r in caplog.records if re.search(what, r.message)]


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_tiles_become_glass_and_are_counted_once(tmp_path, config, caplog, workers):
    config = dataclasses.replace(config, workers=workers)
    with caplog.at_level(logging.WARNING):
        run = pretrain(config, tmp_path / "run", progress=False)
    assert read_checkpoint(run.latest).state.step == config.steps
    warnings = told(caplog, "taken for glass$")
    assert len(warnings) == 2
    assert {re.search(r"column \d, row \d", text)[0] for text in warnings} == {
        "column 1, row 1",
        "column 1, row 3",
    }
    assert told(caplog, r"slide\.tif: damaged tiles taken for glass: 2$")


def test_a_run_that_damage_has_ended_is_resumed_without_it(
    tmp_path, config, assert_same_checkpoints
):
    strict = dataclasses.replace(config, on_error="fail")
    with pytest.raises(InputError, match=r"slide\.tif: tile .*gsd train pretrain .*--on-error"):
        pretrain(strict, tmp_path / "run", progress=False)
    kept = PretrainConfig.read(tmp_path / "run" / "config.toml")
    assert kept.on_error == "fail"
    tolerant = dataclasses.replace(kept, on_error="blank")
    resumed = pretrain(tolerant, tmp_path / "run", resume=True, progress=False)
    whole = pretrain(config, tmp_path / "whole", progress=False)
    assert_same_checkpoints(*(read_checkpoint(run.latest) for run in (resumed, whole)))
    assert PretrainConfig.read(resumed.config).on_error == "blank"
