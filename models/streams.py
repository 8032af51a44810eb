"""Trains one stream: a backbone, its input and its optimiser as a Lightning module.

Shape legend: B clips, N classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.data import Batch
from models.losses import cross_entropy
from models.normalisation import Normalisation, normalise
from models.options import TrainOptions
from models.ranks import summed
from models.schedule import rate_factor
from stores.checks import StageFailed

_MOST_NAMED = 8


class LossNotFinite(StageFailed):
    """Training has diverged, or a clip is not what it seems.

    Attributes:
        loss: nan or inf.
        clip_ids: of the batch.
    """

    def __init__(self, loss: float, step: int, clip_ids: Sequence[str]) -> None:
        super().__init__(loss, step, clip_ids)
        self.loss, self.step, self.clip_ids = loss, step, list(clip_ids)

    def __str__(self) -> str:
        named, more = ", ".join(self.clip_ids[:_MOST_NAMED]), len(self.clip_ids) - _MOST_NAMED
        return (
            f"the loss is {self.loss} at step {self.step} on the clips {named}"
            f"{f' and {more} more' if more > 0 else ''} (all in not_finite.json of the run); "
            "lower train.learning_rate or look at these clips"
        )


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
        self.train()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, N] of a batch."""
        return self.network(network_input(batch, self.stream, self.normalisation))

    def train(self, mode: bool = True) -> "StreamClassifier":
        super().train(mode)
        if self.options.freeze_norm:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        # Dropout, too, is a function of the place in the training: a resumed one equals an uninterrupted one.
        part = batch_index % self.options.accumulate
        place = [self.options.seed, self.global_step, part, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
        logits_BN = self(batch)
        loss, parts = self.loss(logits_BN, batch)
        if not torch.isfinite(loss):
            raise LossNotFinite(loss.item(), self.global_step, batch["clip_id"])
        accuracy = (logits_BN.argmax(dim=1) == batch["class"]).float().mean()
        self.log_dict({f"train/{name}": value for name, value in {"loss": loss, **parts}.items()})
        self.log("train/accuracy", accuracy)
        return {"loss": loss, "accuracy": accuracy.detach()}

    def loss(self, logits_BN: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimised, and its parts as they are logged."""
        return cross_entropy(logits_BN, batch["class"], label_smoothing=self.options.label_smoothing), {}

    def on_validation_start(self) -> None:
        """All ranks judge with the statistics of rank 0, and count in float64: the sums are exact."""
        if torch.distributed.is_initialized():
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
        self._judged = torch.zeros(3, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        logits_BN, classes_B = self(batch), batch["class"]
        loss = cross_entropy(logits_BN, classes_B) * len(classes_B)
        hits = (logits_BN.argmax(dim=1) == classes_B).sum()
        self._judged += torch.stack([loss.double(), hits.double(), loss.new_tensor(len(classes_B)).double()])

    def on_validation_epoch_end(self) -> None:
        """Sums over the ranks once, at the end: they may have judged different numbers of clips."""
        loss, hits, clips = summed(self._judged)
        self.log("val/loss", loss / clips)
        self.log("val/accuracy", hits / clips)

    def configure_optimizers(self) -> dict[str, Any]:
        o = self.options
        sgd = torch.optim.SGD(self._groups(), lr=o.peak_rate, momentum=o.momentum)

        def factor(step: int) -> float:
            return rate_factor(step, total_steps=self.total_steps, warmup_steps=o.warmup_steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(sgd, factor)
        return {"optimizer": sgd, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters with their weight decay. Those of normalisation layers, and biases, have one dimension."""
        decay, parameters = self.options.weight_decay, list(self.network.parameters())
        if self.options.decay == "all":
            return [{"params": parameters, "weight_decay": decay}]
        return [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
