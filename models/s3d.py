"""S3D-G (Xie et al. 2018): Inception-v1 with separable convolutions in space and time, and feature gates.

The reference is tf-slim's `nets/s3dg.py`: so are the first convolution (3 frames instead of 7), the temporal
convolutions without normalisation that start as the identity, and the pooling, which pads as TensorFlow does.

Shape legend: B clips, C channels, T frames, H rows, W columns, N classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.gates import FeatureGate, scaled_channels

# For each branch of a Mixed block: 1×1 | 1×1, 3×3 | 1×1, 3×3 | pool, 1×1.
PAPER_MIXED: tuple[dict[str, tuple[int, int, int, int, int, int]], ...] = (
    {"3b": (64, 96, 128, 16, 32, 32), "3c": (128, 128, 192, 32, 96, 64)},
    {
        "4b": (192, 96, 208, 16, 48, 64),
        "4c": (160, 112, 224, 24, 64, 64),
        "4d": (128, 128, 256, 24, 64, 64),
        "4e": (112, 144, 288, 32, 64, 64),
        "4f": (256, 160, 320, 32, 128, 128),
    },
    {"5b": (256, 160, 320, 32, 128, 128), "5c": (384, 192, 384, 48, 128, 128)},
)
PAPER_BLOCKS = tuple(len(group) for group in PAPER_MIXED)
_NORM_EPSILON = 1e-3


class SamePool(nn.Module):
    """Max pooling whose output has ceil(size / stride) places, for any size: TensorFlow's padding "SAME"."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, features_BCTHW: Tensor) -> Tensor:
        padding = tuple(map(self._before, features_BCTHW.shape[2:], self.kernel, self.stride))
        return F.max_pool3d(features_BCTHW, self.kernel, self.stride, padding, ceil_mode=True)

    @staticmethod
    def _before(size: int, kernel: int, stride: int) -> int:
        """Places that are added before the first; ceil_mode adds those after the last."""
        places = -(-size // stride)
        return max(0, (places - 1) * stride + kernel - size) // 2


def _unit(
    inputs: int, outputs: int, kernel: Sequence[int], momentum: float, *, stride: int = 1
) -> nn.Sequential:
    padding = tuple(k // 2 for k in kernel)
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, tuple(kernel), stride, padding, bias=False),
        nn.BatchNorm3d(outputs, eps=_NORM_EPSILON, momentum=momentum),
        nn.ReLU(inplace=True),
    )


def _separable(inputs: int, outputs: int, momentum: float) -> nn.Sequential:
    """1×3×3, then 3×1×1 that starts as the identity and has a bias in place of a normalisation."""
    temporal = nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0))
    return nn.Sequential(*_unit(inputs, outputs, (1, 3, 3), momentum), temporal, nn.ReLU(inplace=True))


class Mixed(nn.Module):
    """Four branches side by side, each with its gate."""

    def __init__(self, inputs: int, channels: Sequence[int], *, gated: bool, momentum: float) -> None:
        super().__init__()
        one, two_in, two, three_in, three, four = channels
        self.branch1 = _unit(inputs, one, (1, 1, 1), momentum)
        self.branch2 = nn.Sequential(
            _unit(inputs, two_in, (1, 1, 1), momentum), _separable(two_in, two, momentum)
        )
        self.branch3 = nn.Sequential(
            _unit(inputs, three_in, (1, 1, 1), momentum), _separable(three_in, three, momentum)
        )
        self.branch4 = nn.Sequential(SamePool((3, 3, 3), (1, 1, 1)), _unit(inputs, four, (1, 1, 1), momentum))
        self.channels = one + two + three + four
        self.gates = nn.ModuleList(
            FeatureGate(c) if gated else nn.Identity() for c in (one, two, three, four)
        )

    def forward(self, features_BCTHW: Tensor) -> Tensor:
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        seen = [gate(branch(features_BCTHW)) for branch, gate in zip(branches, self.gates, strict=True)]
        return torch.cat(seen, dim=1)


class S3DG(nn.Module):
    """Clips [B, C, T, H, W] of any length and size to logits [B, N]. The defaults are the reference's full size.

    Args:
        num_classes: N.
        in_channels: 3 for pixels, 2 for optical flow.
        width: factor on all channel counts, each rounded to a multiple of 4.
        blocks: Mixed blocks after each of the three poolings; fewer than (2, 5, 2) leaves out the last ones.
        stem_kernel: (frames, rows, columns) of the first convolution.
        gate: "cell" after conv_2c and each branch of each Mixed block, "block" after conv_2c and each group of
            Mixed blocks, "none".
        dropout: share of pooled features dropped while training.
        norm_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        width: float = 1.0,
        blocks: Sequence[int] = PAPER_BLOCKS,
        stem_kernel: Sequence[int] = (3, 7, 7),
        gate: str = "cell",
        dropout: float = 0.2,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        narrow, wide = scaled_channels(64, width), scaled_channels(192, width)
        self.conv_1a = _unit(in_channels, narrow, stem_kernel, norm_momentum, stride=2)
        self.conv_2b = _unit(narrow, narrow, (1, 1, 1), norm_momentum)
        self.conv_2c = _separable(narrow, wide, norm_momentum)
        self.gate_2c = nn.Identity() if gate == "none" else FeatureGate(wide)
        self.pool_2a = SamePool((1, 3, 3), (1, 2, 2))
        self.pool_3a = SamePool((1, 3, 3), (1, 2, 2))
        self.pool_4a = SamePool((3, 3, 3), (2, 2, 2))
        self.pool_5a = SamePool((2, 2, 2), (2, 2, 2))
        inputs = wide
        for index, (group, count) in enumerate(zip(PAPER_MIXED, blocks, strict=True), start=3):
            layers = nn.Sequential()
            for name, channels in list(group.items())[:count]:
                scaled = [scaled_channels(c, width) for c in channels]
                mixed = Mixed(inputs, scaled, gated=gate == "cell", momentum=norm_momentum)
                layers.add_module(name, mixed)
                inputs = mixed.channels
            if gate == "block":
                layers.add_module("gate", FeatureGate(inputs))
            self.add_module(f"mixed_{index}", layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(inputs, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                if module.bias is None:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                else:
                    nn.init.dirac_(module.weight)
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, clip_BCTHW: Tensor) -> Tensor:
        """Feature maps of the last Mixed block, [B, C, T / 8, H / 32, W / 32], sizes rounded up."""
        features = self.conv_2b(self.pool_2a(self.conv_1a(clip_BCTHW)))
        features = self.mixed_3(self.pool_3a(self.gate_2c(self.conv_2c(features))))
        return self.mixed_5(self.pool_5a(self.mixed_4(self.pool_4a(features))))

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        pooled_BCT = self.features(clip_BCTHW).mean(dim=(3, 4))
        if (
            pooled_BCT.shape[2] > 1
        ):  # the reference averages each two neighbouring places before the classifier
            pooled_BCT = (pooled_BCT[:, :, 1:] + pooled_BCT[:, :, :-1]) / 2
        logits_BTN = self.classifier(self.dropout(pooled_BCT.transpose(1, 2)))
        return logits_BTN.mean(dim=1)
