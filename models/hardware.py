"""What this machine computes fastest with, and what networks are turned into for it."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint


def has_bf16_units() -> bool:
    """Whether bfloat16 products have hardware of their own: a GPU, AMX, or AVX-512 with bfloat16.

    Without either extension bfloat16 is emulated, and slower. `benchmarks/train_step.py` measures it.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def lightning_precision(precision: str) -> str:
    """Lightning's name for `train.precision`."""
    use_bf16 = has_bf16_units() if precision == "auto" else precision == "bf16"
    return "bf16-mixed" if use_bf16 else "32-true"


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: str) -> torch.autocast:
    """A context in which networks compute in the given `train.precision`."""
    bf16 = lightning_precision(precision) == "bf16-mixed"
    return torch.autocast(device().type, torch.bfloat16, enabled=bf16)


def use_threads(threads: int, processes: int = 1) -> None:
    """Sets PyTorch's CPU threads; 0 takes this process's share of the cores that it may use."""
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // processes))


def frozen(network: nn.Module, *, precision: str) -> nn.Module:
    """A network that is only asked, never trained: evaluation mode, normalisation folded into the convolutions
    before it, weights in the arithmetic of `precision`. Changes the network itself.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            if isinstance(module[index], nn.Conv3d) and isinstance(module[index + 1], _BatchNorm):
                module[index] = fuse_conv_bn_eval(module[index], module[index + 1])
                module[index + 1] = nn.Identity()
    if lightning_precision(precision) == "bf16-mixed":
        network.to(torch.bfloat16)
    return network.to(memory_format=torch.channels_last_3d)


def checkpoint_activations(network: nn.Module, blocks: tuple[type[nn.Module], ...]) -> None:
    """Keeps only what enters each of the blocks; the rest is computed again on the way back."""
    for block in network.modules():
        if isinstance(block, blocks):
            again = partial(_with_statistics_kept, block)
            block.forward = partial(  # type: ignore[method-assign]
                checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False, context_fn=again
            )


def _with_statistics_kept(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Running statistics have seen the batch already when the block is computed for the second time."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked -= 1
