import torch

from genselfdiff.diffusion import NoisePrediction, NoiseSchedule
from genselfdiff.losses import P2Loss

SCHEDULE = NoiseSchedule.create("quadratic")


def objective(seed=0, reduction="batch_sum"):
    return NoisePrediction(SCHEDULE, P2Loss(SCHEDULE, reduction=reduction), seed)


def test_timesteps_depend_on_the_sample_number_alone():
    one = objective()
    whole = one.draw_timesteps(0, 12)
    parts = torch.cat([one.draw_timesteps(0, 5), one.draw_timesteps(5, 7)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, objective(seed=1).draw_timesteps(0, 12))


def test_timesteps_cover_the_schedule_evenly():
    t = objective().draw_timesteps(0, 4000)
    assert t.min() >= 0
    assert t.max() <= 999
    counts = torch.histc(t.float(), bins=10, min=0, max=1000)
    assert (counts - 400).abs().max() < 100


def test_loss_of_a_batch_is_the_sum_of_its_parts():
    tiles = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    t = torch.tensor([0, 10, 500, 999])

    def network(x, t):
        return x * 0.5

    whole = objective()(network, tiles, t, 100)
    parts = [objective()(network, tiles[i : i + 1], t[i : i + 1], 100 + i) for i in range(4)]
    torch.testing.assert_close(whole, sum(parts), rtol=1e-5, atol=0.0)


def test_perfect_prediction_has_no_loss():
    tiles = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    t = torch.tensor([400, 900])

    def network(x, t):
        alpha_bar = SCHEDULE.alpha_bars[t].float()[:, None, None, None]
        return (x - alpha_bar.sqrt() * (tiles / 127.5 - 1)) / (1 - alpha_bar).sqrt()

    assert objective()(network, tiles, t, 0).item() < 1e-9


def test_stratified_timesteps_spread_over_the_schedule():
    assert objective().stratified_timesteps(4).tolist() == [125, 375, 625, 875]
