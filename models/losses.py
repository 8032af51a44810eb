"""Losses of the student, as pure functions of logits (PERF-Net, section 3.3).

Shape legend: B clips, N classes. All squared errors are computed in float32, whatever the networks ran in.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def squared_error(student_BN: Tensor, target_BN: Tensor, *, reduction: str = "mean") -> Tensor:
    """Squared difference of logits: its mean or sum over the classes, then its mean over the clips.

    Args:
        student_BN, target_BN: logits.
        reduction: "mean" or "sum" over the N classes; the paper leaves it open.
    """
    squares_BN = (student_BN.float() - target_BN.float()).square()
    over_classes_B = squares_BN.mean(dim=1) if reduction == "mean" else squares_BN.sum(dim=1)
    return over_classes_B.mean()


def separate_losses(
    student_BN: Tensor, teachers: Sequence[Tensor], *, reduction: str = "mean"
) -> list[Tensor]:
    """One squared error for each teacher (equation 1): their sum is the paper's separate loss."""
    return [squared_error(student_BN, teacher_BN, reduction=reduction) for teacher_BN in teachers]


def unified_loss(student_BN: Tensor, teachers: Sequence[Tensor], *, reduction: str = "mean") -> Tensor:
    """Squared error against the sum of the teachers' logits, that is, against their late fusion."""
    return squared_error(student_BN, torch.stack(list(teachers)).float().sum(dim=0), reduction=reduction)


def cross_entropy(logits_BN: Tensor, classes_B: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the clips, in float32."""
    return F.cross_entropy(logits_BN.float(), classes_B, label_smoothing=label_smoothing)


def gradient_ratio(logits_BN: Tensor, distillation: Tensor, classification: Tensor) -> Tensor:
    """How hard distillation pulls: norm of its gradient at the logits, over that of the cross-entropy."""
    pulls = [
        torch.autograd.grad(loss, logits_BN, retain_graph=True)[0] for loss in (distillation, classification)
    ]
    return pulls[0].norm() / pulls[1].norm().clamp_min(1e-12)
