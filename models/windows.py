"""Which frames and pixels of a clip a sample shows: one choice for all streams, a function of the key alone.

Half-open intervals throughout. A window may reach over both ends of a clip that is too short: its frames
there repeat the first and the last one.

    clip            0123456            7 frames
    window [-1, 9)  0012345666         10 frames: one more before, two more after
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SAMPLES, _ORDER = 0, 1


def generator(seed: int, epoch: int, index: int, *, purpose: int = _SAMPLES) -> np.random.Generator:
    """Random numbers of one sample: a counter-based function of (seed, epoch, index)."""
    counter = np.array([0, 0, epoch, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=counter))


def epoch_order(seed: int, epoch: int, clips: int) -> NDArray[np.int64]:
    """The order in which the clips [0, clips) are seen in an epoch."""
    return generator(seed, epoch, 0, purpose=_ORDER).permutation(clips)


@dataclass(frozen=True)
class Window:
    """A cuboid of a clip, in the frames' own pixels or, where it is larger than they are, in scaled ones.

    Attributes:
        start: first frame; negative where the clip is too short and its first frame is repeated.
        frames: how many it shows.
        stride_frames: from one shown frame to the next; 1 shows consecutive frames.
        scale: the frames are enlarged by this factor (1 or more) before cropping.
        top_px, left_px, height_px, width_px: the crop in the scaled frame.
        mirrored: columns are reversed after cropping.
        brightness: added to pixels in [-1, 1], after contrast.
        contrast: factor on pixels in [-1, 1].
    """

    start: int
    frames: int
    stride_frames: int
    scale: float
    top_px: int
    left_px: int
    height_px: int
    width_px: int
    mirrored: bool = False
    brightness: float = 0.0
    contrast: float = 1.0

    def indices(self, records: int) -> NDArray[np.int64]:
        """Records of a store with `records` for the clip: outside [0, records) the nearest one is repeated."""
        return np.clip(self.start + self.stride_frames * np.arange(self.frames), 0, records - 1)


def cover_scale(height_px: int, width_px: int, crop_height_px: int, crop_width_px: int) -> float:
    """Factor that enlarges a frame until it covers the crop; 1 where it does already."""
    return max(1.0, crop_height_px / height_px, crop_width_px / width_px)


def scaled_size(height_px: int, width_px: int, scale: float) -> tuple[int, int]:
    """(height, width) of a frame after scaling."""
    return round(height_px * scale), round(width_px * scale)


@dataclass(frozen=True)
class Crop:
    """The extent of a window.

    Attributes:
        frames, height_px, width_px: what the network sees.
        stride_frames: as in `Window`.
    """

    frames: int
    height_px: int
    width_px: int
    stride_frames: int = 1

    @property
    def span_frames(self) -> int:
        """Frames from the first that is shown to the last, both counted."""
        return (self.frames - 1) * self.stride_frames + 1


def padded_start(clip_frames: int, span_frames: int) -> int:
    """Start of the window that holds a too short clip in its middle; the extra frame goes to the end."""
    return -((span_frames - clip_frames) // 2)


def central_window(clip_frames: int, size_px: tuple[int, int], crop: Crop) -> Window:
    """The middle of a clip.

    Args:
        size_px: (height, width) of the frames.
    """
    scale = cover_scale(*size_px, crop.height_px, crop.width_px)
    height_px, width_px = scaled_size(*size_px, scale)
    room = clip_frames - crop.span_frames
    return Window(
        start=room // 2 if room >= 0 else padded_start(clip_frames, crop.span_frames),
        frames=crop.frames,
        stride_frames=crop.stride_frames,
        scale=scale,
        top_px=(height_px - crop.height_px) // 2,
        left_px=(width_px - crop.width_px) // 2,
        height_px=crop.height_px,
        width_px=crop.width_px,
    )


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random changes; see the section `data` of the options."""

    mirror: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0


def random_window(
    clip_frames: int,
    size_px: tuple[int, int],
    crop: Crop,
    *,
    augmentation: Augmentation,
    random: np.random.Generator,
) -> Window:
    """A window from a random place of a clip, drawn in a fixed order from `random`.

    Args:
        size_px: (height, width) of the frames.
    """
    scale = cover_scale(*size_px, crop.height_px, crop.width_px)
    height_px, width_px = scaled_size(*size_px, scale)
    start, top, left, mirror, brightness, contrast = random.random(6)
    room = clip_frames - crop.span_frames
    return Window(
        start=int(start * (room + 1)) if room >= 0 else padded_start(clip_frames, crop.span_frames),
        frames=crop.frames,
        stride_frames=crop.stride_frames,
        scale=scale,
        top_px=int(top * (height_px - crop.height_px + 1)),
        left_px=int(left * (width_px - crop.width_px + 1)),
        height_px=crop.height_px,
        width_px=crop.width_px,
        mirrored=bool(mirror < augmentation.mirror),
        # A share of the pixel range, which is 2 wide in [-1, 1].
        brightness=2 * augmentation.brightness * (2 * brightness - 1),
        contrast=1 + augmentation.contrast * (2 * contrast - 1),
    )
