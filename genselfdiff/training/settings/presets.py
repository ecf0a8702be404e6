"""Named sets of settings."""

from typing import Any

_PLAIN = {
    "architecture": "paper",
    "fresh_weights": "normal",
    "tile_size": 256,
    "batch_size": 8,
    "learning_rate": 1e-4,
    "warm_up": 0.0,
    "decay": "none",
    "clip_norm": 0.0,
    "ema": 0.0,
    "precision": "float32",
}

_SHORT = {"tile_size": 256, "batch_size": 4, "validate_every": 250}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "pretrain": {**_PLAIN, "schedule": "quadratic", "timesteps": 1000},
        "finetune": {
            **_PLAIN,
            "beta1": 0.5,
            "augmentation": "paper",
            "loss_form": "scalar",
            "input_scaling": "zero_one",
        },
    },
    "laptop": {
        "pretrain": {"architecture": "fast", **_SHORT, "steps": 1000, "sample_every": 1000},
        # The network is that of --init.
        "finetune": {**_SHORT, "steps": 500},
    },
}
"""Settings by preset and stage; "paper": those of the published run (GenSelfDiff-HIS, IEEE TMI
2024, and its code), without all that was added here since. The number of steps stays the user's:
the published 100 and 150 epochs of N patches are 100 N / 8 and 150 N / 8 steps. "laptop": about an
hour or less for each stage on two cores without AVX-512, with some 20 labelled fields."""
