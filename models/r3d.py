"""R3D50-G (PERF-Net, table 1): a 3D ResNet-50 that never strides in time and gates its features.

Shape legend: B clips, C channels, T frames, H rows, W columns, N classes.
"""

from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from models.gates import FeatureGate, scaled_channels

STAGE_CHANNELS = (64, 128, 256, 512)
EXPANSION = 4
PAPER_BLOCKS = (3, 4, 6, 3)
# res5 alternates the other way round than the paper's table says: only so does the network cost the 3666 GFLOP
# that the paper states, and so does the code of the non-local network on which it is based.
PAPER_TEMPORAL_KERNELS = ((3,), (3, 1), (3, 1), (1, 3))


def _convolution(
    inputs: int, outputs: int, kernel: Sequence[int], stride: int, momentum: float
) -> nn.Sequential:
    """Convolution without bias that keeps the length (and the size at stride 1), then normalisation."""
    padding = tuple(k // 2 for k in kernel)
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, tuple(kernel), (1, stride, stride), padding, bias=False),
        nn.BatchNorm3d(outputs, momentum=momentum),
    )


class Cell(nn.Module):
    """A bottleneck: t×1×1, 1×3×3 (with the stride), 1×1×1, and a shortcut."""

    def __init__(
        self, inputs: int, channels: int, *, temporal: int, stride: int, gated: bool, momentum: float
    ) -> None:
        super().__init__()
        outputs = channels * EXPANSION
        self.reduce = _convolution(inputs, channels, (temporal, 1, 1), 1, momentum)
        self.spatial = _convolution(channels, channels, (1, 3, 3), stride, momentum)
        self.expand = _convolution(channels, outputs, (1, 1, 1), 1, momentum)
        changes_shape = stride != 1 or inputs != outputs
        self.shortcut = (
            _convolution(inputs, outputs, (1, 1, 1), stride, momentum) if changes_shape else nn.Identity()
        )
        self.gate = FeatureGate(outputs) if gated else nn.Identity()

    def forward(self, features_BCTHW: Tensor) -> Tensor:
        residual = torch.relu_(self.reduce(features_BCTHW))
        residual = torch.relu_(self.spatial(residual))
        residual = self.expand(residual)
        return self.gate(torch.relu_(residual.add_(self.shortcut(features_BCTHW))))


class R3D50G(nn.Module):
    """The backbone of PERF-Net: clips [B, C, T, H, W] of any length and size to logits [B, N].

    The defaults are the paper's full size; `width` and `blocks` shrink it.

    Args:
        num_classes: N.
        in_channels: 3 for pixels, 2 for optical flow.
        width: factor on all channel counts, each rounded to a multiple of 4.
        blocks: cells in res2, res3, res4, res5.
        temporal_kernels: for each stage, the temporal kernel lengths that its cells take in turn.
        stem_kernel: (frames, rows, columns) of the first convolution.
        gate: "block" after each stage, "cell" after each cell, "none".
        temporal_pool: halve the frames after res2 by max pooling, as the network it descends from does; the
            paper removes it.
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
        temporal_kernels: Sequence[Sequence[int]] = PAPER_TEMPORAL_KERNELS,
        stem_kernel: Sequence[int] = (5, 7, 7),
        gate: str = "block",
        temporal_pool: bool = False,
        dropout: float = 0.0,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        widths = [scaled_channels(channels, width) for channels in STAGE_CHANNELS]
        self.stem = _convolution(in_channels, widths[0], stem_kernel, 2, norm_momentum)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.temporal_pool = nn.MaxPool3d((2, 1, 1), ceil_mode=True) if temporal_pool else nn.Identity()
        inputs = widths[0]
        for index, (channels, cells, kernels) in enumerate(
            zip(widths, blocks, temporal_kernels, strict=True)
        ):
            stage = []
            for cell, temporal in enumerate(islice(cycle(kernels), cells)):
                stride = 2 if index > 0 and cell == 0 else 1
                gated = gate == "cell"
                stage.append(
                    Cell(
                        inputs,
                        channels,
                        temporal=temporal,
                        stride=stride,
                        gated=gated,
                        momentum=norm_momentum,
                    )
                )
                inputs = channels * EXPANSION
            if gate == "block":
                stage.append(FeatureGate(inputs))
            self.add_module(f"res{index + 2}", nn.Sequential(*stage))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(inputs, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """He et al. 2015 for convolutions; cells whose shortcut is the identity start as it (Goyal et al. 2017).

        Cells that change the shape do not: their shortcut is a random projection, and a shallow network, which
        has no others, would learn nothing else for many epochs.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Cell) and isinstance(module.shortcut, nn.Identity):
                nn.init.zeros_(module.expand[1].weight)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, clip_BCTHW: Tensor) -> Tensor:
        """Feature maps of res5, [B, C, T, H / 32, W / 32]."""
        features = self.pool(torch.relu_(self.stem(clip_BCTHW)))
        features = self.temporal_pool(self.res2(features))
        return self.res5(self.res4(self.res3(features)))

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        pooled_BC = self.features(clip_BCTHW).mean(dim=(2, 3, 4))
        return self.classifier(self.dropout(pooled_BC))
