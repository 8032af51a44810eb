"""What this machine computes fastest with."""

import os

import torch


def has_bf16_units() -> bool:
    """Whether bfloat16 products have hardware of their own: a GPU, AMX, or AVX-512 with bfloat16.

    Measured on a CPU with avx512_bf16 and no AMX: a training step in bf16 takes 0.6 of the time of float32 (both in
    channels_last_3d). Without either extension bfloat16 is emulated, and slower.
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


def use_threads(threads: int) -> None:
    """Sets PyTorch's CPU threads; 0 takes every core that this process may use."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
