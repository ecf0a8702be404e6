"""What a dry run tells of a run."""

import dataclasses

import pytest

from genselfdiff.training import dry_run
from genselfdiff.training.runs import estimate, finetune


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_size_of_checkpoints_is_that_of_the_file(tmp_path, finetune_config, ema):
    config = dataclasses.replace(finetune_config, ema=ema, steps=1)
    run = finetune(config, tmp_path / "run", progress=False)
    content = run.latest.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert estimate(config).checkpoint == len(content) - header


def test_memory_is_that_with_the_copies_of_a_checkpoint(monkeypatch, finetune_config):
    happened = []
    copies, peak = dry_run.resumable_tensors, dry_run.peak_bytes
    monkeypatch.setattr(
        dry_run, "resumable_tensors", lambda *what: happened.append("copied") or copies(*what)
    )
    monkeypatch.setattr(dry_run, "peak_bytes", lambda: happened.append("measured") or peak())
    told = estimate(finetune_config)
    assert happened == ["copied", "measured"]
    assert told.gpu_memory is None
    assert f"memory: {told.memory / 2**30:.2f} GiB; checkpoints of" in told.summary()
    on_gpu = dataclasses.replace(told, device="cuda:0", gpu_memory=3 * 2**29, memory=2**30)
    assert "memory: 1.50 GiB on the GPU, 1.00 GiB; checkpoints of" in on_gpu.summary()
