"""``--encoder``: a decoder learns on a transformer of other people's, which stays as it is."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from genselfdiff.errors import InputError, ModelError
from genselfdiff.models.encoders.vit_weights import read_vit
from genselfdiff.models.model_file import load_model
from genselfdiff.training.export import export, push
from genselfdiff.training.run_folder import read_checkpoint
from genselfdiff.training.runs import finetune, prepared
from genselfdiff.training.settings.stage_configs import FinetuneConfig
from gsd.main import main

ENCODER = "encoder."


@pytest.fixture
def config(finetune_config, vit_file):
    return dataclasses.replace(
        finetune_config, encoder=str(vit_file), architecture=None, steps=4, validate_every=2
    )


@pytest.fixture
def vit_file(tmp_path):
    def linear(name, out, into):
        return {f"{name}.weight": torch.randn(out, into) / 4, f"{name}.bias": torch.randn(out) / 4}

    def norm(name):
        return {f"{name}.weight": torch.ones(16), f"{name}.bias": torch.zeros(16)}

    state = {
        "pos_embed": torch.randn(1, 9, 16) / 4,
        "patch_embed.proj.weight": torch.randn(16, 3, 14, 14) / 8,
        "patch_embed.proj.bias": torch.zeros(16),
        **norm("norm"),
    }
    for block in ("blocks.0", "blocks.1"):
        state |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        state |= linear(f"{block}.attn.qkv", 48, 16) | linear(f"{block}.attn.proj", 16, 16)
        state |= linear(f"{block}.mlp.fc1", 24, 16) | linear(f"{block}.mlp.fc2", 16, 24)
    torch.save(state, tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


@pytest.fixture
def run(config, tmp_path):
    return finetune(config, tmp_path / "run")


def test_the_encoder_stays_and_the_decoder_learns(run, config, vit_file):
    before = read_vit(vit_file).state
    latest = read_checkpoint(run.latest)
    for key, value in before.items():
        assert torch.equal(latest.weights[ENCODER + key], value), key
        assert torch.equal(read_checkpoint(run.best).weights[ENCODER + key], value), key
    learnt = {key for key in latest.weights if not key.startswith(ENCODER)}
    assert latest.average.keys() == learnt
    assert len(latest.optimiser) == len(learnt)
    with prepared(config) as (_, step):
        fresh = step.network.state_dict()
        assert all(not torch.equal(fresh[key], latest.weights[key]) for key in learnt)


def test_a_run_goes_on_without_the_encoder_s_file(
    run, config, vit_file, tmp_path, assert_same_checkpoints
):
    whole = finetune(dataclasses.replace(config, steps=6, decay="none"), tmp_path / "whole")
    part = finetune(dataclasses.replace(config, decay="none"), tmp_path / "part")
    vit_file.unlink()
    longer = dataclasses.replace(FinetuneConfig.read(part.config), steps=6)
    finetune(longer, part.path, resume=True)
    assert_same_checkpoints(read_checkpoint(part.latest), read_checkpoint(whole.latest))
    after = finetune(
        dataclasses.replace(config, encoder=None, init=str(run.path), width=None),
        tmp_path / "after",
    )
    first, second = (read_checkpoint(folder.best).weights for folder in (run, after))
    assert all(torch.equal(first[key], second[key]) for key in first if key.startswith(ENCODER))


def test_of_a_run_the_encoder_alone_can_be_taken(run, config):
    alone = dataclasses.replace(config, encoder=None, init=str(run.path), init_layers="encoder")
    before = read_checkpoint(run.best).weights
    with prepared(alone) as (_, step):
        for key, value in step.network.state_dict().items():
            is_frozen = key.startswith(ENCODER)
            learnt = is_frozen or value.dim() > 1  # norms begin alike
            assert not learnt or torch.equal(value, before[key]) == is_frozen, key


@pytest.mark.parametrize("name", ["model.ts", "model.pt2"])
def test_its_model_predicts_as_the_network_does(run, tmp_path, name, caplog):
    with caplog.at_level(logging.WARNING, "genselfdiff"):
        info = export(run.path, tmp_path / name)
    assert "holds the weights of vit.pth" in caplog.text
    assert info.size_multiple == 16
    assert info.architecture["encoder"]["patch"] == 14
    model = load_model(tmp_path / name, "cpu")
    config = dataclasses.replace(FinetuneConfig.read(run.config), encoder=None)
    with prepared(dataclasses.replace(config, init=str(run.path))) as (_, step):
        step.network.load_state_dict(read_checkpoint(run.best).weights)
        step.network.eval()
        for side in (48, 80):
            images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
            with torch.inference_mode():
                x = images.float() / 127.5 - 1
                truth = step.network(x, torch.zeros(1, dtype=torch.int64)).softmax(1)
                np.testing.assert_allclose(model(images).numpy(), truth.numpy(), atol=2e-5)


def test_what_contradicts_an_encoder_is_refused(config, fields, run, tmp_path):
    def told(kind=InputError, **changes):
        with pytest.raises(kind) as caught, prepared(dataclasses.replace(config, **changes)):
            pass
        return str(caught.value)

    assert "leave out --init" in told(init=str(run.path))
    assert "leave out --architecture" in told(architecture="tiny")
    assert "leave out --input-scaling" in told(input_scaling="zero_one")
    for init in ("none", str(tmp_path / "authors.pth")):
        (tmp_path / "authors.pth").touch()
        without = told(encoder=None, architecture="vit", init=init)
        assert "give the weights of its encoder" in without
    assert "multiple of 16 with architecture vit" in told(tile_size=40)
    assert "there is no such file" in told(ModelError, encoder=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="somebody else's model"):
        push(run.path, tmp_path / "pushed", licence="CC0-1.0")
    text = run.config.read_text().replace("heads = 1", "heads = 3")
    run.config.write_text(text)
    with pytest.raises(ModelError, match="settings of the encoder are damaged"):
        export(run.path, tmp_path / "model.ts")


def test_the_command_needs_no_init_with_an_encoder(fields, vit_file):
    arguments = ["train", "finetune", "--encoder", str(vit_file), "--dry-run", "--mpp", "0.5"]
    arguments += ["--images", str(fields / "images"), "--masks", str(fields / "masks")]
    arguments += ["--tile-size", "32", "--batch-size", "2", "--val", "patient0"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "network: vit, width 32, 1.5 M parameters, of which 1.5 M learn" in result.output


def test_init_and_encoder_replace_each_other_over_a_file(fields, vit_file, tmp_path):
    (tmp_path / "init.toml").write_text('[finetune]\ninit = "nuclei"\n')
    (tmp_path / "encoder.toml").write_text(f'[finetune]\nencoder = "{vit_file}"\n')
    common = ["train", "finetune", "--dry-run", "--mpp", "0.5", "--val", "patient0"]
    common += ["--images", str(fields / "images"), "--masks", str(fields / "masks")]
    common += ["--tile-size", "32", "--batch-size", "2"]
    for source, typed, network in (
        (["--config", tmp_path / "init.toml"], ["--encoder", vit_file], "vit"),
        (["--preset", "laptop"], ["--encoder", vit_file], "vit"),
        (["--config", tmp_path / "encoder.toml"], ["--init", "none", "--width", "8"], "width 8"),
    ):
        result = CliRunner().invoke(main, [*common, *map(str, source), *map(str, typed)])
        assert result.exit_code == 0, result.output
        assert network in result.output
    paper = CliRunner().invoke(main, [*common, "--preset", "paper", "--encoder", str(vit_file)])
    assert "leave out --input-scaling, or the preset that sets it" in paper.output
