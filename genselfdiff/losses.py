"""The losses of both stages as modules over the kernels."""

import torch
import torch.distributed as dist
from torch import nn

from genselfdiff.choices import LOSS_FORMS, LOSSES
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


class SingleLoss(nn.Module):
    """What the multi-loss is compared with: one of its parts alone, or cross entropy.

    Args:
        name: "structural_similarity", "focal" (its exponent is 2), or "cross_entropy".
        form: of the structural similarity loss, as of `MultiLoss`.
        ignore_label: pixels with this label do not count.

    ``loss(logits, labels)`` takes what `MultiLoss` takes, in plain torch.

    Raises:
        InputError: no such loss, or form.
    """

    def __init__(self, name: str, form: str = "scalar", ignore_label: int | None = None) -> None:
        super().__init__()
        single = [loss for loss in LOSSES if loss != "multi"]
        if name not in single:
            raise InputError(f"no loss {name!r} of one part: choose one of {', '.join(single)}")
        # Cross entropy is the focal loss of exponent 0.
        gamma = 0.0 if name == "cross_entropy" else 2.0
        self.part = "focal" if name == "cross_entropy" else name
        self.parts = MultiLoss(form, gamma, ignore_label=ignore_label)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The scalar loss."""
        return self.parts.components(logits, labels)[self.part]
