"""Settings: what is refused, and what a run's config.toml keeps."""

import dataclasses

import pytest

from genselfdiff.choices import LARGEST_TILE, SIZE_MULTIPLE
from genselfdiff.errors import InputError, ModelError
from genselfdiff.training.settings.config_file import read_settings
from genselfdiff.training.settings.presets import PRESETS
from genselfdiff.training.settings.stage_configs import FinetuneConfig, PretrainConfig


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (PretrainConfig, "steps", 0),
        (PretrainConfig, "accumulate", 0),
        (PretrainConfig, "accumulate", 3),
        (PretrainConfig, "warm_up", 1.0),
        (PretrainConfig, "decay", "linear"),
        (PretrainConfig, "beta1", -0.1),
        (PretrainConfig, "ema", 1.0),
        (PretrainConfig, "clip_norm", -1.0),
        (PretrainConfig, "log_every", 0),
        (PretrainConfig, "keep_every", -1),
        (PretrainConfig, "fresh_weights", "zeros"),
        (PretrainConfig, "batch_size", 0),
        (PretrainConfig, "validate_every", -1),
        (PretrainConfig, "seed", -1),
        (PretrainConfig, "workers", -1),
        (PretrainConfig, "tile_size", 20),
        (PretrainConfig, "tile_size", 8_000_000),
        (FinetuneConfig, "tile_size", LARGEST_TILE + SIZE_MULTIPLE),
        (PretrainConfig, "tile_size", 64.0),
        (PretrainConfig, "steps", True),
        (PretrainConfig, "steps", 2**63),
        (PretrainConfig, "batch_size", 10**400),
        (PretrainConfig, "learning_rate", 10**400),
        (PretrainConfig, "learning_rate", "1e-3"),
        (PretrainConfig, "clip_norm", float("inf")),
        (PretrainConfig, "p2_gamma", float("nan")),
        (PretrainConfig, "width", 8 << 20),
        (PretrainConfig, "timesteps", 10**9),
        (PretrainConfig, "data", "slides"),
        (PretrainConfig, "data", (1,)),
        (PretrainConfig, "learning_rate", 0),
        (PretrainConfig, "learning_rate", float("nan")),
        (PretrainConfig, "mpp", -1),
        (PretrainConfig, "image_mpp", 0),
        (PretrainConfig, "precision", "fp16"),
        (PretrainConfig, "architecture", "resnet"),
        (PretrainConfig, "width", 0),
        (PretrainConfig, "schedule", "constant"),
        (PretrainConfig, "timesteps", 0),
        (PretrainConfig, "p2_k", -5),
        (PretrainConfig, "validation_tiles", 0),
        (PretrainConfig, "sample_every", -1),
        (PretrainConfig, "on_error", "ignore"),
        (FinetuneConfig, "mpp", 1000),
        (FinetuneConfig, "resample_to", 0),
        (FinetuneConfig, "augmentation", "mixup"),
        (FinetuneConfig, "init_layers", "first"),
        (FinetuneConfig, "loss", "dice"),
        (FinetuneConfig, "loss_form", "Pixel"),
        (FinetuneConfig, "input_scaling", "imagenet"),
        (FinetuneConfig, "ignore_label", 256),
        (FinetuneConfig, "classes", ("a", "a")),
        (FinetuneConfig, "classes", ("a", "")),
        (FinetuneConfig, "classes", ("a",)),
        (FinetuneConfig, "classes", ("a", "b\x1b[2J")),
        (FinetuneConfig, "classes", ("a", "b\udce4")),
        (FinetuneConfig, "instances", True),  # without foreground
        (FinetuneConfig, "fold", (1, 2, 3)),
        (FinetuneConfig, "fold", (1, 2**63)),
        (FinetuneConfig, "val", 3),
        (FinetuneConfig, "origin", ()),
    ],
)
def test_settings_out_of_range_are_refused_by_name(kind, setting, value):
    with pytest.raises(InputError, match=setting):
        kind(**{setting: value})


def test_foreground_has_two_classes():
    with pytest.raises(InputError, match="two classes, but 3"):
        FinetuneConfig(classes=("a", "b", "c"), foreground=True)


def full(kind, **settings):
    """Settings of which none is the default's."""
    common = dict(
        init="run0",
        architecture="tiny",
        width=16,
        fresh_weights="normal",
        tile_size=64,
        batch_size=12,
        accumulate=3,
        steps=7,
        learning_rate=1.5e-5,
        warm_up=0.25,
        decay="none",
        beta1=0.5,
        clip_norm=0.0,
        ema=0.9,
        seed=3,
        log_every=2,
        validate_every=5,
        keep_every=4,
        precision="float32",
        device="cpu",
        workers=1,
        tensorboard=True,
        icc=True,
    )
    return kind(**common, **settings)


FULL = (
    full(
        PretrainConfig,
        data=("a b", 'c"d'),
        mpp=0.5,
        image_mpp=0.25,
        schedule="cosine",
        timesteps=50,
        p2_k=2.0,
        p2_gamma=0.0,
        validation_tiles=4,
        sample_every=3,
        on_error="fail",
    ),
    full(
        FinetuneConfig,
        start_share=0.25,
        init_layers="encoder",
        images="i",
        masks="m",
        classes=("background", "Drüse, klein"),
        foreground=True,
        instances=True,
        val=("x,1", "y"),
        group="p.",
        fold=(1, 3),
        train_images=4,
        mpp=0.25,
        resample_to=0.5,
        ignore_label=200,
        augmentation="paper",
        loss="focal",
        loss_form="pixel",
        sync_loss=True,
        input_scaling="zero_one",
        encoder="vit.pth",
        encoder_shape={"name": "vit.pth", "mean": [0.5, 0.5, 0.5]},
        origin={"steps": 5, "schedule": "linear"},
        attributions=("A Set, CC0",),
    ),
)


@pytest.mark.parametrize("config", FULL, ids=["pretrain", "finetune"])
def test_all_settings_come_back_from_the_file(tmp_path, config):
    default = type(config)()
    same = [
        f.name
        for f in dataclasses.fields(config)
        if getattr(config, f.name) == getattr(default, f.name)
    ]
    assert not same, "settings that this test does not see"
    config.write(tmp_path / "config.toml")
    assert type(config).read(tmp_path / "config.toml") == config
    other = next(other for other in FULL if type(other) is not type(config))
    with pytest.raises(ModelError, match=f"a run of `gsd train {config.stage}`, not of"):
        type(other).read(tmp_path / "config.toml")


def test_names_that_are_no_utf8_keep_their_bytes(tmp_path):
    config = FinetuneConfig(
        images="im\udce4ges",
        val=("b\udcfc", "g\u00fcnstig"),
        architecture="tiny",
        width=16,
        mpp=0.5,
        resample_to=0.5,
    )
    path = tmp_path / "config.toml"
    config.write(path)
    assert b'"im\xe4ges"' in path.read_bytes()
    assert FinetuneConfig.read(path) == config
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    found = read_settings(path, "finetune")
    assert (found["images"], found["val"]) == (config.images, [*config.val])


@pytest.mark.parametrize("config", FULL, ids=["pretrain", "finetune"])
@pytest.mark.parametrize("name", ["architecture", "width", "mpp"])
def test_what_a_run_has_to_tell(tmp_path, config, name):
    dataclasses.replace(config, **{name: None}).write(tmp_path / "config.toml")
    with pytest.raises(ModelError, match=rf"config\.toml: damaged: it does not tell {name}"):
        type(config).read(tmp_path / "config.toml")


@pytest.mark.parametrize("value", ["nan", "2020-01-01"])
def test_an_origin_that_no_model_can_tell(tmp_path, value):
    FULL[1].write(tmp_path / "config.toml")
    with (tmp_path / "config.toml").open("a") as file:
        file.write(f"odd = {value}\n")  # of the last table, origin
    with pytest.raises(ModelError, match=r"config\.toml: damaged: origin cannot be written"):
        FinetuneConfig.read(tmp_path / "config.toml")


def test_a_setting_has_one_value(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("tile-size = 32\ntile_size = 64\n")
    with pytest.raises(InputError, match=r"study\.toml: sets tile_size twice"):
        read_settings(path, "finetune")
    path.write_text("tile_size = 32\nseed = 1\n[finetune]\ntile-size = 64\n")
    assert read_settings(path, "finetune") == {"tile_size": 64, "seed": 1}


def test_many_files_of_one_line_are_no_deep_nesting(tmp_path):
    names = [f"slide.{number}.svs" for number in range(3000)]
    (tmp_path / "study.toml").write_text(f"data = {names}\n")
    assert read_settings(tmp_path / "study.toml", "pretrain")["data"] == names


@pytest.mark.parametrize("config", FULL, ids=["pretrain", "finetune"])
def test_what_is_shared_names_no_files(config):
    shared = config.shareable()
    for name in ("init", "device", "workers", "data", "images", "masks", "val", "group"):
        assert name not in shared
    assert shared["steps"] == 7


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_settings_of_their_stage(preset: str) -> None:
    for kind in (PretrainConfig, FinetuneConfig):
        settings = PRESETS[preset][kind.stage]
        config = kind(**settings)
        assert all(getattr(config, name) == value for name, value in settings.items())
