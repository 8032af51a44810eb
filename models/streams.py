"""Trains one stream: a backbone, its input and its optimiser as a Lightning module.

Shape legend: B clips, N classes.
"""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from models.data import Batch
from models.losses import cross_entropy
from models.normalisation import Normalisation, normalise
from models.options import TrainOptions
from models.schedule import rate_factor
from stores.commit import StageFailed


class LossNotFinite(StageFailed):
    """Training has diverged, or a clip is not what it seems; the message names the batch's clips."""


def network_input(batch: Batch, stream: str, normalisation: Normalisation) -> Tensor:
    """What the network of a stream sees of a batch: [B, C, T, H, W]."""
    return normalise(
        batch[stream],
        normalisation,
        brightness_B=batch["brightness"],
        contrast_B=batch["contrast"],
        scale_B=batch["scale"],
    )


class StreamClassifier(pl.LightningModule):
    """One network, one stream, cross-entropy.

    Args:
        network: [B, C, T, H, W] to logits [B, N].
        stream: rgb, pose or flow.
        normalisation: of that stream.
        options: how it is fitted.
        total_steps: length of the training, for the schedule.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        stream: str,
        normalisation: Normalisation,
        options: TrainOptions,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.stream = stream
        self.normalisation = normalisation
        self.options = options
        self.total_steps = total_steps

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, N] of a batch."""
        return self.network(network_input(batch, self.stream, self.normalisation))

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        # Dropout, too, is a function of (seed, step): a resumed training equals an uninterrupted one.
        torch.manual_seed((self.options.seed << 24) % 2**63 + self.global_step)
        logits_BN = self(batch)
        loss, parts = self.loss(logits_BN, batch)
        if not torch.isfinite(loss):
            clips = ", ".join(batch["clip_id"])
            raise LossNotFinite(
                f"the loss is {loss.item()} at step {self.global_step} on the clips {clips}; "
                "lower train.learning_rate or look at these clips"
            )
        accuracy = (logits_BN.argmax(dim=1) == batch["class"]).float().mean()
        self.log_dict({f"train/{name}": value for name, value in {"loss": loss, **parts}.items()})
        self.log("train/accuracy", accuracy)
        return {"loss": loss, "accuracy": accuracy}

    def loss(self, logits_BN: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimised, and its parts as they are logged."""
        return cross_entropy(logits_BN, batch["class"], label_smoothing=self.options.label_smoothing), {}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        logits_BN = self(batch)
        size = len(batch["class"])
        accuracy = (logits_BN.argmax(dim=1) == batch["class"]).float().mean()
        self.log("val/loss", cross_entropy(logits_BN, batch["class"]), batch_size=size)
        self.log("val/accuracy", accuracy, batch_size=size)

    def configure_optimizers(self) -> dict[str, Any]:
        o = self.options
        sgd = torch.optim.SGD(
            self.network.parameters(), lr=o.learning_rate, momentum=o.momentum, weight_decay=o.weight_decay
        )

        def factor(step: int) -> float:
            return rate_factor(step, total_steps=self.total_steps, warmup_steps=o.warmup_steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(sgd, factor)
        return {"optimizer": sgd, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
