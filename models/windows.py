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
        frames: length.
        scale: the frames are enlarged by this factor (1 or more) before cropping.
        top_px, left_px, height_px, width_px: the crop in the scaled frame.
        mirrored: columns are reversed after cropping.
        brightness: added to pixels in [-1, 1], after contrast.
        contrast: factor on pixels in [-1, 1].
    """

    start: int
    frames: int
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
        return np.clip(np.arange(self.start, self.start + self.frames), 0, records - 1)


def cover_scale(height_px: int, width_px: int, crop_height_px: int, crop_width_px: int) -> float:
    """Factor that enlarges a frame until it covers the crop; 1 where it does already."""
    return max(1.0, crop_height_px / height_px, crop_width_px / width_px)


def scaled_size(height_px: int, width_px: int, scale: float) -> tuple[int, int]:
    """(height, width) of a frame after scaling."""
    return round(height_px * scale), round(width_px * scale)


def padded_start(clip_frames: int, window_frames: int) -> int:
    """Start of the window that holds a too short clip in its middle; the extra frame goes to the end."""
    return -((window_frames - clip_frames) // 2)


def central_window(clip_frames: int, size_px: tuple[int, int], crop: tuple[int, int, int]) -> Window:
    """The middle of a clip.

    Args:
        size_px: (height, width) of the frames.
        crop: (frames, height, width) of the window.
    """
    frames, crop_height_px, crop_width_px = crop
    scale = cover_scale(*size_px, crop_height_px, crop_width_px)
    height_px, width_px = scaled_size(*size_px, scale)
    long_enough = clip_frames >= frames
    return Window(
        start=(clip_frames - frames) // 2 if long_enough else padded_start(clip_frames, frames),
        frames=frames,
        scale=scale,
        top_px=(height_px - crop_height_px) // 2,
        left_px=(width_px - crop_width_px) // 2,
        height_px=crop_height_px,
        width_px=crop_width_px,
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
    crop: tuple[int, int, int],
    *,
    augmentation: Augmentation,
    random: np.random.Generator,
) -> Window:
    """A window from a random place of a clip, drawn in a fixed order from `random`.

    Args:
        size_px, crop: as in `central_window`.
    """
    frames, crop_height_px, crop_width_px = crop
    scale = cover_scale(*size_px, crop_height_px, crop_width_px)
    height_px, width_px = scaled_size(*size_px, scale)
    start, top, left, mirror, brightness, contrast = random.random(6)
    long_enough = clip_frames >= frames
    return Window(
        start=int(start * (clip_frames - frames + 1)) if long_enough else padded_start(clip_frames, frames),
        frames=frames,
        scale=scale,
        top_px=int(top * (height_px - crop_height_px + 1)),
        left_px=int(left * (width_px - crop_width_px + 1)),
        height_px=crop_height_px,
        width_px=crop_width_px,
        mirrored=bool(mirror < augmentation.mirror),
        # A share of the pixel range, which is 2 wide in [-1, 1].
        brightness=2 * augmentation.brightness * (2 * brightness - 1),
        contrast=1 + augmentation.contrast * (2 * contrast - 1),
    )
