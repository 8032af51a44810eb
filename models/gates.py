"""Feature gates of S3D-G and R3D50-G.

Shape legend: B clips, C channels, T frames, H rows, W columns.
"""

import torch
from torch import Tensor, nn


class FeatureGate(nn.Module):
    """`x · sigmoid(W · mean_THW(x) + b)`, channel by channel (Xie et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, channels)
        # Small weights open every gate by half at first, so that no feature is lost before it is learnt.
        nn.init.trunc_normal_(self.project.weight, std=0.01)
        nn.init.zeros_(self.project.bias)

    def forward(self, features_BCTHW: Tensor) -> Tensor:
        gates_BC = torch.sigmoid(self.project(features_BCTHW.mean(dim=(2, 3, 4))))
        return features_BCTHW * gates_BC[:, :, None, None, None]


def scaled_channels(channels: int, width: float) -> int:
    """A channel count of a narrower or wider network: a multiple of 4, at least 4."""
    return max(4, round(channels * width / 4) * 4)
