"""The losses of both stages as modules over the kernels."""

import torch
import torch.distributed as dist
from torch import nn

from genselfdiff.choices import LOSS_FORMS
from genselfdiff.diffusion.schedule import DeviceTable, NoiseSchedule
from genselfdiff.errors import InputError
from genselfdiff.kernels import (
    multi_loss,
    multi_loss_components,
    multi_loss_over_processes,
    p2_loss,
)

REDUCTIONS = ("mean", "batch_sum")


class P2Loss(nn.Module):
    """Squared error of the predicted noise, weighted over time steps (Choi et al. 2022).

    ``loss(pred, noise, t)`` takes (N, ...) tensors and t (N,) int64. Each sample's squared error
    is averaged over its elements and weighted; "mean" averages over the batch, "batch_sum" (the
    authors' code) sums over it.

    Raises:
        InputError: no such reduction.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        k: float = 1.0,
        gamma: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise InputError(f"no reduction {reduction!r}: choose one of {', '.join(REDUCTIONS)}")
        self.reduction = reduction
        self.weights = schedule.p2_weights(k, gamma)  # no buffer: MPS has no float64
        self._by_device = DeviceTable(self.weights)

    def forward(self, pred: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Scalar loss of predicted against true noise at steps ``t``."""
        weights = self._by_device.on(pred.device)
        return p2_loss(pred, noise, t, weights, reduction=self.reduction)


class MultiLoss(nn.Module):
    """Structural similarity loss plus focal loss, equal weights (GenSelfDiff-HIS, stage 2).

    ``loss(logits, labels)`` takes (N, C, H, W) logits and (N, H, W) integer labels; see
    `genselfdiff.kernels.multi_loss` for the arguments. Its sums run over the batch of each process
    alone; with ``sync``, where several processes train together, over all their batches: the loss
    of one process that had them all (`genselfdiff.kernels.multi_loss_over_processes`).

    Raises:
        InputError: no such form.
    """

    def __init__(
        self,
        form: str = "scalar",
        focal_gamma: float = 2.0,
        class_weights: torch.Tensor | None = None,
        ignore_label: int | None = None,
        sync: bool = False,
    ) -> None:
        super().__init__()
        if form not in LOSS_FORMS:
            raise InputError(f"no multi-loss form {form!r}: choose one of {', '.join(LOSS_FORMS)}")
        self.form = form
        self.focal_gamma = focal_gamma
        self.class_weights = class_weights
        self.ignore_label = ignore_label
        self.sync = sync

    def components(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Both parts, under "structural_similarity" and "focal", in plain torch."""
        similarity, focal = multi_loss_components(
            logits, labels, self.form, self.focal_gamma, self.class_weights, self.ignore_label
        )
        return {"structural_similarity": similarity, "focal": focal}

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum of both parts."""
        together = self.sync and dist.is_initialized() and dist.get_world_size() > 1
        function = multi_loss_over_processes if together else multi_loss
        return function(
            logits, labels, self.form, self.focal_gamma, self.class_weights, self.ignore_label
        )
