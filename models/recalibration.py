"""Statistics of the normalisation layers, averaged anew where training was too short for running ones."""

from collections.abc import Iterable

import torch
import torch.distributed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.data import Batch
from models.ranks import summed


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Batch]) -> None:
    """Replaces running means and variances by their plain average over `batches`; weights stay as they are.

    Args:
        module: on the device of the batches.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    module.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None means: the average of all batches, each with equal weight.
        norm.momentum = None
        norm.train()
    for batch in batches:
        module(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if torch.distributed.is_initialized():  # the ranks have looked at equally many batches
            for statistics in (norm.running_mean, norm.running_var):
                summed(statistics).div_(torch.distributed.get_world_size())
    module.eval()
