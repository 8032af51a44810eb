"""From stored 8-bit values to what a network sees; the constants travel with the checkpoint.

Shape legend: B clips, T frames, H rows, W columns, C channels.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """`value · scale + offset`, channel by channel.

    Attributes:
        scale, offset: one number a channel.
        is_flow: values grow with the frame when it is enlarged, and brightness means nothing to them.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    is_flow: bool

    @property
    def channels(self) -> int:
        return len(self.scale)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Normalisation":
        return cls(tuple(values["scale"]), tuple(values["offset"]), bool(values["is_flow"]))


_HALF_RANGE = 127.5
PIXELS = Normalisation(scale=(1 / _HALF_RANGE,) * 3, offset=(-1.0,) * 3, is_flow=False)
# Of the photographs on which torchvision's and timm's ResNets were trained.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Normalisation(
    scale=tuple(1 / (255 * d) for d in _DEVIATION),
    offset=tuple(-m / d for m, d in zip(_MEAN, _DEVIATION, strict=True)),
    is_flow=False,
)
FLOW = Normalisation(scale=(1 / 127,) * 2, offset=(-128 / 127,) * 2, is_flow=True)


def normalisation_of(stream: str) -> Normalisation:
    """Pixels to [-1, 1]; flow to [-1, 1] with the stored 128, no motion, at exactly 0."""
    return FLOW if stream == "flow" else PIXELS


def normalise(
    clips_BTHWC: Tensor,
    normalisation: Normalisation,
    *,
    brightness_B: Tensor,
    contrast_B: Tensor,
    scale_B: Tensor,
) -> Tensor:
    """Network input [B, C, T, H, W], float32, whose memory is ordered as in channels_last_3d.

    Args:
        clips_BTHWC: uint8.
        brightness_B, contrast_B: pixels in [-1, 1] become `clamp(pixel · contrast + brightness, -1, 1)` before
            anything else; flow is left alone.
        scale_B: how much the frames were enlarged; flow is multiplied by it.
    """
    factor_C = torch.tensor(normalisation.scale, device=clips_BTHWC.device)
    offset_C = torch.tensor(normalisation.offset, device=clips_BTHWC.device)
    if normalisation.is_flow:
        # The difference is taken first: 128 must become 0 exactly.
        values = (clips_BTHWC.float() + offset_C / factor_C) * (factor_C * _per_clip(scale_B))
    else:
        contrast, brightness = _per_clip(contrast_B), _per_clip(brightness_B)
        values = torch.addcmul(brightness - contrast, clips_BTHWC.float(), contrast / _HALF_RANGE)
        values = values.clamp_(-1, 1)
        if normalisation != PIXELS:
            values = values.mul_(factor_C * _HALF_RANGE).add_(factor_C * _HALF_RANGE + offset_C)
    return values.permute(0, 4, 1, 2, 3)


def _per_clip(values_B: Tensor) -> Tensor:
    return values_B[:, None, None, None, None]
