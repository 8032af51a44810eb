"""Trains the student: RGB in, the label and the teachers' logits as targets (PERF-Net, section 3.3).

Shape legend: B clips, N classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from models.data import Batch
from models.hardware import frozen
from models.losses import cross_entropy, gradient_ratio, separate_losses, unified_loss
from models.normalisation import Normalisation
from models.options import StudentOptions
from models.streams import StreamClassifier, network_input


@dataclass(frozen=True)
class Teacher:
    """A frozen network with the stream it looks at, of whatever backbone."""

    network: nn.Module
    stream: str
    normalisation: Normalisation

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, precision: str, compiled: bool = False) -> "Teacher":
        """From a checkpoint, in the arithmetic of the training.

        Args:
            precision, compiled: as `train.precision` and `train.compile`.
        """
        network = frozen(checkpoint.build(), precision=precision)
        if compiled:
            network.compile()
        return cls(network, checkpoint.stream, checkpoint.normalisation)

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """Its logits [B, N] of its own stream of the batch, in float32."""
        clip_BCTHW = network_input(batch, self.stream, self.normalisation)
        dtype = next(self.network.parameters()).dtype
        return self.network(clip_BCTHW.to(dtype)).float()


class DistilledClassifier(StreamClassifier):
    """A student beside its teachers.

    The teachers are no sub-modules: they stay in evaluation mode and out of the student's checkpoints.

    Args:
        teachers: by name.
        student: how it learns from them.
        others: as for `StreamClassifier`.
    """

    def __init__(
        self, network: nn.Module, *, teachers: Mapping[str, Teacher], student: StudentOptions, **others: Any
    ) -> None:
        super().__init__(network, **others)
        self.student = student
        self._teachers = dict(teachers)

    def on_fit_start(self) -> None:
        for teacher in self._teachers.values():
            teacher.network.to(self.device)

    def loss(self, logits_BN: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy plus the weighted distillation losses, and each of them for the log."""
        taught = {name: teacher.logits(batch) for name, teacher in self._teachers.items()}
        if self.trainer.global_step % self.trainer.log_every_n_steps == 0:
            self._log_pull(logits_BN, taught, batch)
        label = cross_entropy(logits_BN, batch["class"], label_smoothing=self.options.label_smoothing)
        distillation, parts = self._distillation(logits_BN, taught)
        agreement = {
            f"agreement_{name}": (logits.argmax(1) == logits_BN.argmax(1)).float().mean()
            for name, logits in taught.items()
        }
        return label + distillation, {"label": label, **parts, **agreement}

    def _distillation(
        self, logits_BN: Tensor, taught: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        reduction, weight = self.student.reduction, self.student.weight
        targets = list(taught.values())
        if self.student.loss == "unified":
            loss = unified_loss(logits_BN, targets, reduction=reduction)
            return weight * loss, {"unified": loss}
        losses = separate_losses(logits_BN, targets, reduction=reduction)
        return weight * torch.stack(losses).sum(), dict(zip(taught, losses, strict=True))

    @torch.enable_grad()
    def _log_pull(self, logits_BN: Tensor, taught: Mapping[str, Tensor], batch: Batch) -> None:
        """Logs how hard distillation pulls beside the label: `student.weight` is chosen by it."""
        logits_BN = logits_BN.detach().float().requires_grad_()
        distillation, _ = self._distillation(logits_BN, taught)
        label = cross_entropy(logits_BN, batch["class"])
        self.log("train/distillation_pull", gradient_ratio(logits_BN, distillation, label))
