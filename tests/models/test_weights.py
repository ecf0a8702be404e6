import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from genselfdiff.errors import ModelError
from genselfdiff.models.registry import create_model
from genselfdiff.models.weights import load_initial_weights, read_authors_checkpoint


def test_everything_but_the_head_is_loaded():
    source, target = create_model("tiny"), create_model("tiny", out_channels=2)
    fresh_head = target.net.final_conv[0].block1.proj.weight.clone()
    report = load_initial_weights(target, source.state_dict(), origin="run1")
    own = target.state_dict()
    for key, value in source.state_dict().items():
        if not key.startswith("net.final_conv."):
            assert torch.equal(own[key], value), key
    assert torch.equal(own["net.final_conv.0.block1.proj.weight"], fresh_head)
    assert set(report.fresh) == {key for key in own if key.startswith("net.final_conv.")}
    assert "net.final_conv" in str(report)


def test_weights_of_another_width_are_refused_and_nothing_is_copied():
    target = create_model("tiny")
    before = {key: value.clone() for key, value in target.state_dict().items()}
    other = create_model("tiny", width=24).state_dict()
    with pytest.raises(ModelError, match=r"run1: .*: net\.init_conv\.weight has shape"):
        load_initial_weights(target, other, origin="run1")
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_missing_entries_are_named():
    state = create_model("tiny").state_dict()
    del state["net.mid_attn.fn.norm.bias"]
    with pytest.raises(ModelError, match=r"they lack 1 tensor \(net\.mid_attn\.fn\.norm\.bias\)"):
        load_initial_weights(create_model("tiny"), state, origin="x.pth")


@pytest.mark.parametrize("loss", [np.array(0.25), np.array(0.25, np.float32), np.float64(0.25)])
def test_checkpoint_of_the_authors_code_is_read(tmp_path, loss):
    state = create_model("tiny").state_dict()
    path = tmp_path / "theirs.pth"
    torch.save({"epoch": 99, "loss": loss, "model_state_dict": state}, path)
    read = read_authors_checkpoint(path)
    assert read.keys() == state.keys()
    assert torch.equal(read["net.init_conv.weight"], state["net.init_conv.weight"])


def test_checkpoint_written_under_numpy_1_is_read(tmp_path):
    """NumPy 1 called the module of its reconstruction function numpy.core.multiarray."""
    legacy = tmp_path / "numpy1.pth"

    class Renamed(pickle._Pickler):  # the C pickler cannot be hooked
        def save_global(self, obj, name=None):
            if getattr(obj, "__module__", "") == "numpy._core.multiarray":
                self.write(b"cnumpy.core.multiarray\n" + obj.__name__.encode() + b"\n")
                self.memoize(obj)
            else:
                super().save_global(obj, name)

    Renamed.dispatch = dict.fromkeys((type(lambda: 0), type(len)), Renamed.save_global)
    Renamed.dispatch = pickle._Pickler.dispatch | Renamed.dispatch

    class Module:
        __name__ = "pickle"
        Pickler = Renamed
        dumps = staticmethod(pickle.dumps)

    torch.save(
        {"epoch": 1, "loss": np.array(0.5), "model_state_dict": {"a": torch.ones(2)}},
        legacy,
        pickle_module=Module,
    )
    assert b"numpy.core.multiarray" in legacy.read_bytes()
    assert torch.equal(read_authors_checkpoint(legacy)["a"], torch.ones(2))


class Hostile:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    "content",
    [
        Hostile(),
        {"weights": 1},
        {"model_state_dict": {"a": 1}},
        {"model_state_dict": {1: torch.ones(2)}},
        {"model_state_dict": {"a": torch.ones(2, dtype=torch.complex64)}},
        {"model_state_dict": {"a": torch.ones(2).to_sparse()}},
    ],
)
def test_other_pickles_are_refused(tmp_path, content):
    path = tmp_path / "bad.pth"
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"bad\.pth"):
        read_authors_checkpoint(path)


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    path = tmp_path / "text.pth"
    path.write_text("not a checkpoint")
    with pytest.raises(ModelError, match=r"text\.pth"):
        read_authors_checkpoint(path)
    with pytest.raises(ModelError, match=r"absent\.pth"):
        read_authors_checkpoint(tmp_path / "absent.pth")


def test_a_checkpoint_that_would_unpack_to_much_is_refused(tmp_path):
    path, packed = tmp_path / "weights.pth", tmp_path / "packed.pth"
    torch.save({"epoch": 1, "model_state_dict": {"a": torch.zeros(2**20)}}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ModelError, match=r"packed\.pth: would unpack to 4,"):
        read_authors_checkpoint(packed)
