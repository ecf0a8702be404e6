import numpy as np
import pytest
import torch

from genselfdiff.errors import InputError
from genselfdiff.losses import MultiLoss


def naive(logits, labels, form, weights=None, ignore=None):
    """The definition, image by image and class by class, in plain Python loops over planes."""
    n, c = logits.shape[:2]
    weights = torch.ones(c, dtype=logits.dtype) if weights is None else weights
    p = logits.softmax(1)
    valid = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
    pixels = valid.sum()
    true = labels.clamp(0, c - 1)
    p_true = p.gather(1, true[:, None])[:, 0][valid]
    w_true = weights[true][valid]
    focal = -(w_true * (1 - p_true) ** 2 * p_true.log()).sum() / pixels
    cross_entropy = -(w_true * p_true.log()).sum() / pixels
    total, count = 0.0, 0
    for i in range(n):
        for k in range(c):
            y = (labels[i][valid[i]] == k).to(p)
            q = p[i, k][valid[i]]
            e = (
                (y - y.mean() + 0.01) / (y.std() + 0.01) - (q - q.mean() + 0.01) / (q.std() + 0.01)
            ).abs()
            f = (e > 0.1 * e.max()).to(p)
            count += f.sum()
            ce = -y * q.log() * weights[k] if form == "pixel" else 1.0
            total = total + (weights[k] * e * f * ce).sum()
    similarity = total / count
    return (similarity if form == "pixel" else similarity * cross_entropy), focal


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 11, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 11, 7), generator=generator)
    return logits.requires_grad_(), labels


def test_scalar_form_is_that_of_the_authors_code(golden):
    logits = torch.from_numpy(golden["logits2"]).requires_grad_()
    parts = MultiLoss().components(logits, torch.from_numpy(golden["labels2"]))
    similarity, focal = parts["structural_similarity"], parts["focal"]
    assert similarity.item() == pytest.approx(float(golden["ss2"]), rel=1e-9)
    assert focal.item() == pytest.approx(float(golden["focal2"]), rel=1e-9)
    (both,) = torch.autograd.grad(similarity + focal, logits, retain_graph=True)
    (alone,) = torch.autograd.grad(similarity, logits)
    for name, gradient in (("grad2", both), ("grad_ss2", alone)):
        error = np.abs(gradient.numpy() - golden[name]).max()
        assert error <= 1e-9 * np.abs(golden[name]).max(), name


@pytest.mark.parametrize("form", ["scalar", "pixel"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [None, 2, 255])
def test_both_forms_are_their_definition(case, form, weighted, ignore):
    logits, labels = case
    if ignore == 255:
        labels = labels.clone()
        labels[:, :3] = 255
    weights = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64) if weighted else None
    parts = MultiLoss(form, class_weights=weights, ignore_label=ignore).components(logits, labels)
    expected = naive(logits, labels, form, weights, ignore)
    for name, ours, theirs in zip(parts, parts.values(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=name)
        (a,) = torch.autograd.grad(ours, logits, retain_graph=True)
        (b,) = torch.autograd.grad(theirs, logits, retain_graph=True)
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11, msg=f"gradient of {name}")


@pytest.mark.parametrize("form", ["scalar", "pixel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_underflow_and_constant_planes_stay_finite(form, dtype):
    logits = torch.zeros(2, 3, 8, 8, dtype=dtype)
    logits[:, 0] = 1e4  # the other classes underflow to zero
    logits.requires_grad_()
    labels = torch.ones(2, 8, 8, dtype=torch.int64)  # one class everywhere, others absent
    loss = MultiLoss(form)(logits, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert loss.item() > 1.0


def test_all_ignored_is_zero_with_zero_gradient(case):
    logits, labels = case
    loss = MultiLoss(ignore_label=9)(logits, torch.full_like(labels, 9))
    loss.backward()
    assert loss.item() == 0.0
    assert (logits.grad == 0).all()


def test_ignored_pixels_do_not_matter(case):
    logits, labels = case
    labels[:, 4:] = 255
    loss = MultiLoss(ignore_label=255)
    changed = logits.detach().clone()
    changed[:, :, 4:] = 50.0
    torch.testing.assert_close(loss(changed, labels), loss(logits, labels).detach())


def test_perfect_prediction_is_nearly_free():
    labels = torch.randint(0, 2, (1, 16, 16))
    logits = 40.0 * torch.nn.functional.one_hot(labels, 2).permute(0, 3, 1, 2).float()
    assert MultiLoss()(logits, labels).item() < 1e-6


def test_unknown_form_is_refused():
    with pytest.raises(InputError, match="scalar, pixel"):
        MultiLoss("image")
