"""The multi-loss: its definition, the authors' figures, and the native kernel against float64."""

import baselines
import numpy as np
import pytest
import torch
from accuracy import assert_accurate

from genselfdiff.errors import InputError
from genselfdiff.kernels import multi_loss
from genselfdiff.kernels.multi_loss import reference
from genselfdiff.losses import MultiLoss, SingleLoss

from .conftest import on_cpu_alone


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


def test_scalar_form_on_probabilities_is_the_same(case):
    logits, labels = case
    ours, theirs = multi_loss(logits, labels), baselines.multi_loss(logits, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    (a,), (b,) = (torch.autograd.grad(loss, logits) for loss in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


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


def sharp(logits, labels):
    """Almost right: each pixel's own class is raised above the others, but for one pixel."""
    raised = logits.scatter_add(1, labels[:, None], 2 * logits.abs().amax(1, keepdim=True))
    raised[0, :, 0, 0] = logits[0, :, 0, 0]
    return raised


def one_valid_pixel(labels):
    ignored = torch.full_like(labels, 255)
    ignored[:, 0, -1] = labels[:, 0, -1]
    return ignored


NEARLY_NOTHING = pytest.mark.parametrize(
    ("scale", "ignores", "raises"),
    [
        (0.0, False, False),
        (20.0, False, True),
        (100.0, False, False),
        (100.0, False, True),
        (100.0, True, False),
        (1e4, False, False),
        (1e4, False, True),
    ],
)


def check_nearly_nothing(scale, ignores, raises, form):
    """Small images, of which some planes are right or flat but for a rounding error.

    What counts is a share of the largest error: rounding may not make up either.
    """
    generator = torch.Generator().manual_seed(7)
    logits = scale * torch.randn(2, 3, 1, 5, generator=generator)
    labels = torch.randint(0, 3, (2, 1, 5), generator=generator)
    labels[0] = 1  # a class that is everywhere, others that are nowhere
    if ignores:
        labels[1, :, 1:] = 255  # one valid pixel
    if raises:
        logits = sharp(logits, labels)
    found = with_gradient(logits, labels, form=form, ignore_label=255)
    for name, value in in_float64(logits, labels, form, 255).items():
        error = (found[name].double() - value).abs().max()
        # Rounding is magnified by 1 / 0.01 where a plane is flat. The gradient is small, and
        # float64 itself rounds, where it comes from errors of 1e-9 and less.
        allowed = 2e-5 if name == "loss" else 5e-4
        assert error <= allowed * max(1e-3, value.abs().max()), name


@NEARLY_NOTHING
@pytest.mark.parametrize("form", ["scalar", "pixel"])
@on_cpu_alone
def test_errors_that_are_nearly_nothing_count_as_in_float64(backend, scale, ignores, raises, form):
    check_nearly_nothing(scale, ignores, raises, form)


@NEARLY_NOTHING
def test_errors_that_are_nearly_nothing_count_on_a_gpu_too(interpreted, scale, ignores, raises):
    check_nearly_nothing(scale, ignores, raises, "scalar")


def in_float64(logits, labels, form, ignore):
    """The definition again, by differentiable steps that stand one pixel and constant planes."""
    logits = logits.double().requires_grad_()
    log_p = logits.log_softmax(1)
    similarity, count, focal, cross_entropy, pixels = 0.0, 0, 0.0, 0.0, 0
    for image, wanted in zip(log_p, labels, strict=True):
        valid = wanted != ignore if ignore is not None else torch.ones_like(wanted).bool()
        image, wanted = image[:, valid], wanted[valid]
        own = image.gather(0, wanted[None])[0]
        cross_entropy = cross_entropy - own.sum()
        focal = focal - ((1 - own.exp()) ** 2 * own).sum()
        pixels += valid.sum()
        for k, plane in enumerate(image):
            target = (wanted == k).double()

            def standardised(values):
                centred = values - values.mean()
                squares = centred.square().sum() / max(1, len(values) - 1)
                std = squares.sqrt() if squares > 0 else 0.0
                return (centred + 0.01) / (std + 0.01)

            error = (standardised(target) - standardised(plane.exp())).abs()
            counted = error.detach() > 0.1 * error.max()
            count += counted.sum()
            weight = target * -plane if form == "pixel" else 1.0
            similarity = similarity + (error * counted * weight).sum()
    similarity = similarity / max(1, count)
    if form == "scalar":
        similarity = similarity * cross_entropy / pixels
    loss = similarity + focal / pixels
    (grad,) = torch.autograd.grad(loss, logits)
    return {"loss": loss.detach(), "gradient of logits": grad}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_ignored_pixels_hold_does_not_matter(backend, value):
    logits, labels = random_case((2, 3, 5, 6))
    labels[:, 2] = 255
    expected = with_gradient(logits, labels, ignore_label=255)
    logits[:, 1, 2] = value
    found = with_gradient(logits, labels, ignore_label=255)
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, msg=name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_makes_the_loss_nan(backend, value):
    logits, labels = random_case((2, 3, 5, 6))
    logits[1, 2, 3, 4] = value
    found = with_gradient(logits, labels)
    assert found["loss"].isnan()
    assert found["gradient of logits"].isnan().any()


def test_unknown_form_is_refused():
    with pytest.raises(InputError, match="scalar, pixel"):
        MultiLoss("image")


@pytest.mark.parametrize("form", ["scalar", "pixel"])
def test_the_parts_are_losses_of_their_own(case, form):
    logits, labels = case
    labels[:, :2] = 9
    parts = MultiLoss(form, ignore_label=9).components(logits, labels)
    for name, part in parts.items():
        torch.testing.assert_close(SingleLoss(name, form, 9)(logits, labels), part)
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=9)
    torch.testing.assert_close(SingleLoss("cross_entropy", form, 9)(logits, labels), expected)
    with pytest.raises(InputError, match="structural_similarity, focal, cross_entropy"):
        SingleLoss("multi")


SHAPES = [
    (2, 3, 11, 7),
    (1, 2, 1, 1),
    (3, 4, 64, 65),
    (1, 10, 33, 70),
    (2, 1, 5, 5),
    (1, 2, 8, 1030),
]


def random_case(shape, dtype=torch.float32, spread=3.0):
    generator = torch.Generator().manual_seed(5)
    n, c, h, w = shape
    logits = (spread * torch.randn(shape, generator=generator)).to(dtype)
    return logits, torch.randint(0, c, (n, h, w), generator=generator)


def with_gradient(logits, labels, **options):
    logits = logits.detach().requires_grad_()
    loss = multi_loss(logits, labels, **options)
    (grad,) = torch.autograd.grad(loss, logits)
    return {"loss": loss.detach(), "gradient of logits": grad}


@pytest.fixture
def compare(isa):
    """Compare the kernel of one instruction set with float64."""
    return compare_kernel


def compare_kernel(logits, labels, **options):
    """Compare the kernel in force with float64."""

    def run(values):
        return with_gradient(values["logits"], labels, **options)

    ours = with_gradient(logits, labels, **options)
    # Whatever the logits come in, float32 is computed in. A probability is rounded to its own size,
    # as if its logit had been moved by a unit in the last place of 1.
    assert_accurate(ours, run, {"logits": logits.float()}, times=4, least=1.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["scalar", "pixel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_instruction_set_agrees_with_float64(compare, shape, form, dtype):
    logits, labels = random_case(shape, dtype)
    compare(logits, labels, form=form)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("form", ["scalar", "pixel"])
@pytest.mark.parametrize("ignore", [None, 1, 255])
def test_every_option_agrees_with_float64(compare, gamma, form, ignore):
    logits, labels = random_case((2, 3, 30, 41))
    if ignore == 255:
        labels[:, 10:] = 255
    weights = torch.tensor([0.5, 2.0, 1.5])
    compare(
        logits,
        labels,
        form=form,
        focal_gamma=gamma,
        class_weights=weights,
        ignore_label=ignore,
    )


@pytest.mark.parametrize("form", ["scalar", "pixel"])
@pytest.mark.parametrize(
    "shift", [0.0, 20.0, 200.0, 1e4], ids=["even", "sure", "underflow", "huge"]
)
def test_planes_that_are_nearly_constant_agree_with_float64(compare, form, shift):
    logits, labels = random_case((2, 3, 40, 40), spread=0.01)
    logits[:, 0] += shift
    labels[0] = 1  # one class everywhere, the others absent
    compare(logits, labels, form=form)


@pytest.mark.parametrize("form", ["scalar", "pixel"])
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 1, 5, 5), (2, 3, 33, 35)])
def test_the_triton_kernels_agree_with_float64(interpreted, shape, form):
    logits, labels = random_case(shape)
    compare_kernel(logits, labels, form=form)


@pytest.mark.parametrize("form", ["scalar", "pixel"])
@pytest.mark.parametrize(("gamma", "ignore"), [(0.0, 1), (1.0, None), (1.5, 255)])
def test_every_option_of_the_triton_kernels_agrees_with_float64(interpreted, form, gamma, ignore):
    logits, labels = random_case((2, 3, 9, 11), torch.bfloat16)
    if ignore == 255:
        labels[:, 5:] = 255
    weights = torch.tensor([0.5, 2.0, 1.5])
    compare_kernel(
        logits,
        labels,
        form=form,
        focal_gamma=gamma,
        class_weights=weights,
        ignore_label=ignore,
    )


@pytest.mark.parametrize("form", ["scalar", "pixel"])
@pytest.mark.parametrize("shift", [20.0, 200.0, 1e4], ids=["sure", "underflow", "huge"])
def test_the_triton_kernels_stand_nearly_constant_planes(interpreted, form, shift):
    logits, labels = random_case((2, 3, 20, 20), spread=0.01)
    logits[:, 0] += shift
    labels[0] = 1  # one class everywhere, the others absent
    compare_kernel(logits, labels, form=form)


def test_what_is_no_class_makes_the_loss_of_the_triton_kernels_nan(interpreted, monkeypatch):
    monkeypatch.setattr(reference, "check", lambda *arguments: None)  # as on a GPU: no look at them
    logits, labels = random_case((1, 3, 4, 4))
    labels[0, 2, 3] = 3
    assert torch.ops.gsd.multi_loss(logits, labels, None, False, 2.0, None)[0].isnan()


def test_the_gradient_in_closed_form_is_that_of_autograd(case):
    logits, labels = case
    labels[:, :2] = 255
    weights = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)
    for pixel_form in (False, True):
        for gamma in (0.0, 1.0, 2.0, 3.5):
            arguments = (labels, weights, pixel_form, gamma, 255)
            loss, grad = reference.multi_loss(logits, *arguments)
            expected = sum(reference.components(logits, *arguments))
            (wanted,) = torch.autograd.grad(expected, logits)
            torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
            torch.testing.assert_close(grad, wanted, rtol=1e-10, atol=1e-14)


def test_results_do_not_depend_on_threads_or_on_what_memory_held(isa, monkeypatch):
    logits, labels = random_case((3, 4, 90, 100))
    before = torch.get_num_threads()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    results = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(threads == 2)  # fills new memory with NaN
            results.append(torch.ops.gsd.multi_loss(logits, labels, None, False, 2.0, None))
            results.append(torch.ops.gsd.multi_loss(logits[:1], labels[:1], None, True, 2.0, None))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(before)
    for i, (loss, grad) in enumerate(results):
        assert torch.equal(loss, results[i % 2][0])
        assert torch.equal(grad, results[i % 2][1])


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    ],
    ids=["channels_last", "strided"],
)
def test_strides_and_label_types_do_not_matter(backend, view):
    logits, labels = random_case((2, 3, 10, 14))
    expected = with_gradient(logits, labels)
    for labels_as in (labels.int(), labels.to(torch.uint8), labels.mT.contiguous().mT):
        found = with_gradient(view(logits), labels_as)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-9, msg=name)


def test_many_classes_are_left_to_plain_torch(monkeypatch):
    logits, labels = random_case((1, 300, 4, 4))
    monkeypatch.delenv("GSD_KERNELS", raising=False)
    found, exact = with_gradient(logits, labels), with_gradient(logits.double(), labels)
    for name, value in exact.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-3, atol=1e-7, msg=name)
    monkeypatch.setenv("GSD_KERNELS", "cpp")
    with pytest.raises(InputError, match="takes up to 256 classes"):
        multi_loss(logits, labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([[[0, 3]]])}, "label 3 is none of the 3 classes"),
        ({"labels": torch.tensor([[[0, -1]]])}, "label -1 is none of the 3 classes"),
        ({"labels": torch.tensor([[[0, 2**32 + 1]]])}, "label 4294967297 is none"),
        ({"labels": torch.tensor([[[0, 1, 2]]])}, r"integers of shape \(1, 1, 2\)"),
        ({"labels": torch.tensor([[[0.0, 1.0]]])}, "must be integers"),
        ({"logits": torch.zeros(1, 3, 2)}, r"shape \(N, C, H, W\)"),
        ({"class_weights": torch.ones(2)}, r"class_weights must have shape \(3,\)"),
        ({"focal_gamma": 0.5}, "focal_gamma must be 0 or at least 1, not 0.5"),
        ({"focal_gamma": float("nan")}, "focal_gamma must be 0 or at least 1"),
    ],
)
def test_bad_arguments_are_named(backend, change, message):
    good = {"logits": torch.zeros(1, 3, 1, 2), "labels": torch.tensor([[[0, 2]]])}
    with pytest.raises(RuntimeError, match=message):
        multi_loss(**(good | change))
    with pytest.raises(ValueError, match="form must be one of scalar, pixel, not Pixel"):
        multi_loss(**good, form="Pixel")


def test_an_empty_batch_costs_nothing(backend):
    logits, labels = torch.zeros(0, 3, 4, 4), torch.zeros(0, 4, 4, dtype=torch.int64)
    found = with_gradient(logits, labels)
    assert found["loss"] == 0
    assert found["gradient of logits"].shape == logits.shape


def test_a_second_derivative_is_refused_clearly():
    logits, labels = random_case((1, 2, 3, 3))
    logits.requires_grad_()
    loss, _ = torch.ops.gsd.multi_loss(logits, labels, None, False, 2.0, None)
    (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="multi_loss has no second derivative"):
        torch.autograd.grad(grad.square().sum(), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_the_operation_is_registered_properly(dtype, weights):
    logits, labels = random_case((2, 3, 4, 5), dtype)
    torch.library.opcheck(
        torch.ops.gsd.multi_loss.default,
        (logits.requires_grad_(), labels, weights, False, 2.0, 255),
    )


def test_compiles_in_one_graph(backend):
    logits, labels = random_case((2, 3, 4, 5))
    logits.requires_grad_()

    def loss(x):
        return multi_loss(x * 2.0, labels)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (one,) = torch.autograd.grad(compiled(logits), logits)
    (other,) = torch.autograd.grad(loss(logits), logits)
    torch.testing.assert_close(one, other)
