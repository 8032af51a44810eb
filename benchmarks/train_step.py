"""A training step of R3D50-G as this machine does it best, beside the plain one: float32, contiguous.

    python benchmarks/train_step.py [--width 0.5] [--frames 16] [--side 112] [--batch 2] [--rounds 5]

On a CPU: forward, loss and backward of the same network on the same clips; precision and memory layout are those that
`models.hardware` chooses by itself. Then the step of a student with two teachers beside its step without any.
Sides alternate within one run, and the median of their ratios is printed.

Where there is a GPU: clips a second, peak memory and the share of the card's measured bf16 matrix rate, at full width
and 64 × 224 × 224, and the two distillation steps on it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.checkpoint import build_network
from models.hardware import autocast, device, frozen, lightning_precision, use_threads
from models.losses import cross_entropy, separate_losses
from models.options import NetworkOptions

CLASSES = 600
GPU_BATCHES = (8, 16, 24)
MATRIX_SIDE = 8192


@dataclass(frozen=True)
class Step:
    """Forward, loss and backward of a student, with or without teachers.

    Attributes:
        precision: as `train.precision`.
        contiguous: the plain memory layout instead of channels_last_3d.
    """

    network: nn.Module
    teachers: tuple[nn.Module, ...] = ()
    precision: str = "auto"
    contiguous: bool = False

    def __call__(self, clips_BCTHW: Tensor, classes_B: Tensor) -> None:
        self.network.zero_grad(set_to_none=True)
        if self.contiguous:
            clips_BCTHW = clips_BCTHW.contiguous()
        with autocast(self.precision):
            logits_BN = self.network(clips_BCTHW)
            loss = cross_entropy(logits_BN, classes_B)
            with torch.no_grad():
                taught = [self._asked(teacher, clips_BCTHW) for teacher in self.teachers]
            if taught:
                loss = loss + torch.stack(separate_losses(logits_BN, taught)).sum()
        loss.backward()

    @staticmethod
    def _asked(teacher: nn.Module, clips_BCTHW: Tensor) -> Tensor:
        return teacher(clips_BCTHW.to(next(teacher.parameters()).dtype))


def network(width: float, *, contiguous: bool = False) -> nn.Module:
    torch.manual_seed(0)
    made = build_network(NetworkOptions(width=width), num_classes=CLASSES, in_channels=3).to(device())
    return made.to(memory_format=torch.contiguous_format) if contiguous else made


def clips(batch: int, frames: int, side: int) -> tuple[Tensor, Tensor]:
    """Clips as the loader's values are normalised: [B, C, T, H, W] in channels_last_3d."""
    values = torch.rand(batch, frames, side, side, 3, device=device()) * 2 - 1
    return values.permute(0, 4, 1, 2, 3), torch.arange(batch, device=device()) % CLASSES


def seconds(work: Callable[[], object]) -> float:
    """Of the GPU, or of the CPU: time that other programs take does not count."""
    if not torch.cuda.is_available():
        began_s = time.process_time()
        work()
        return time.process_time() - began_s
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began_s


def alternate(steps: dict[str, Step], batch: tuple[Tensor, Tensor], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            s = seconds(lambda step=step: step(*batch))
            if turn:
                taken[name].append(s)
    return taken


def ratio(taken: dict[str, list[float]], first: str, second: str) -> float:
    return statistics.median(a / b for a, b in zip(taken[first], taken[second], strict=True))


def distillation_steps(width: float) -> dict[str, Step]:
    teachers = tuple(frozen(network(width), precision="auto") for _ in range(2))
    return {"alone": Step(network(width)), "distilled": Step(network(width), teachers)}


def on_cpu(width: float, frames: int, side: int, batch: int, rounds: int, threads: int) -> None:
    use_threads(threads)
    capabilities = torch.cpu.get_capabilities()
    units = [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
    print(
        f"bf16 units: {', '.join(units) or 'none'}; chosen: {lightning_precision('auto')}, channels_last_3d"
    )
    data = clips(batch, frames, side)
    steps = {
        "plain fp32": Step(network(width, contiguous=True), precision="32", contiguous=True),
        "fp32 channels_last_3d": Step(network(width), precision="32"),
        "chosen": Step(network(width)),
    }
    taken = alternate(steps, data, rounds)
    for name, values in taken.items():
        print(
            f"{name:<22} {statistics.median(values):7.3f} s a step of {batch} clips, {frames} × {side}²",
            flush=True,
        )
    print(f"RATIO step_vs_plain_fp32 {ratio(taken, 'plain fp32', 'chosen'):.2f}")
    print_distillation(alternate(distillation_steps(width), data, rounds))


def print_distillation(taken: dict[str, list[float]]) -> None:
    cost = ratio(taken, "distilled", "alone")
    print(f"a step with two teachers takes {cost:.2f} times as long as one without (goal: at most 2.2)")
    print(f"RATIO plain_step_vs_distillation_step {1 / cost:.2f}")


def matrix_rate() -> float:
    """Measured floating-point operations a second of bf16 matrix products."""
    a, b = (torch.randn(MATRIX_SIDE, MATRIX_SIDE, device=device(), dtype=torch.bfloat16) for _ in range(2))
    times = [seconds(lambda: [a @ b for _ in range(10)]) / 10 for _ in range(6)]
    return 2 * MATRIX_SIDE**3 / statistics.median(times[1:])


def on_gpu(frames: int, side: int, rounds: int) -> None:
    torch.backends.cudnn.benchmark = True
    rate = matrix_rate()
    print(f"{torch.cuda.get_device_name()}: {rate / 1e12:.0f} TFLOP/s in bf16 matrix products")
    with torch.device("meta"):
        shape = build_network(NetworkOptions(), num_classes=CLASSES, in_channels=3)
        with FlopCounterMode(display=False) as counter:
            shape(torch.empty(1, 3, frames, side, side)).sum().backward()
    step = Step(network(1.0))
    for batch in GPU_BATCHES:
        torch.cuda.reset_peak_memory_stats()
        taken = alternate({"step": step}, clips(batch, frames, side), rounds)["step"]
        clips_s = batch / statistics.median(taken)
        share = clips_s * counter.get_total_flops() / rate
        memory_gb = torch.cuda.max_memory_allocated() / 1e9
        print(
            f"batch {batch}: {clips_s:.1f} clips/s, peak {memory_gb:.1f} GB, {share:.0%} of the matrix rate",
            flush=True,
        )
        if batch == GPU_BATCHES[0]:
            print(f"RATIO step_vs_matrix_rate {share:.2f}")
    print_distillation(alternate(distillation_steps(1.0), clips(GPU_BATCHES[0], frames, side), rounds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=float, default=0.5, help="of the network, on a CPU")
    parser.add_argument("--frames", type=int, help="16 on a CPU, 64 on a GPU")
    parser.add_argument("--side", type=int, help="112 on a CPU, 224 on a GPU")
    parser.add_argument("--batch", type=int, default=2, help="clips, on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="on a CPU; 0 takes all cores")
    a = parser.parse_args()
    if torch.cuda.is_available():
        on_gpu(a.frames or 64, a.side or 224, a.rounds)
    else:
        on_cpu(a.width, a.frames or 16, a.side or 112, a.batch, a.rounds, a.threads)


if __name__ == "__main__":
    main()
