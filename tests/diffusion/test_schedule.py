import numpy as np
import pytest
import torch

from genselfdiff.choices import SCHEDULES
from genselfdiff.diffusion import NoiseSchedule
from genselfdiff.errors import InputError


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_are_those_of_the_authors_code(golden, kind):
    schedule = NoiseSchedule.create(kind, 1000)
    for name, values in (
        ("beta", schedule.betas),
        ("abar", schedule.alpha_bars),
        ("postvar", schedule.posterior_variance),
    ):
        np.testing.assert_allclose(
            values.numpy(), golden[f"{name}_{kind}"], rtol=1e-12, atol=1e-12, err_msg=name
        )
        assert values.dtype == torch.float64


def test_p2_weight_with_k_and_gamma_1_is_the_noise_share():
    schedule = NoiseSchedule.create("quadratic")
    torch.testing.assert_close(schedule.p2_weights(), 1 - schedule.alpha_bars, rtol=1e-12, atol=0.0)


def test_p2_weight_with_gamma_0_is_1():
    assert (NoiseSchedule.create("linear").p2_weights(gamma=0.0) == 1).all()


def test_unknown_schedules_are_refused():
    with pytest.raises(InputError, match="choose one of quadratic"):
        NoiseSchedule.create("cubic")
    with pytest.raises(InputError, match="too few"):
        NoiseSchedule.create("linear", 1)
