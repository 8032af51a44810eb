"""The learning rate as a function of the step."""

import math


def rate_factor(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Share of the peak rate at `step`: a linear rise from 0, then half a cosine down to 0.

    With a warm-up longer than half of the training, half of the training is the warm-up.

    Args:
        step: [0, total_steps).
    """
    warmup = min(warmup_steps, total_steps // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total_steps - warmup, 1)))
