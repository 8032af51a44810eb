"""The frames stage: a clip of a video becomes JPEG frames at a regular rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from transforms.decoder import thread_decoder
from transforms.options import FramesOptions
from transforms.stage import ClipOutput, Video


@dataclass(frozen=True)
class FramesStage:
    """Decodes videos; see `transforms.stage.Stage`."""

    options: FramesOptions
    name: ClassVar[str] = "frames"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = ()

    def spec(self) -> Mapping[str, Any]:
        """What determines the output; not timeout_s, which only decides whether there is one."""
        return {
            "stage": self.name,
            "version": self.version,
            "fps": self.options.fps,
            "shorter_side_px": self.options.shorter_side_px,
            "jpeg_quality": self.options.jpeg_quality,
            "keep_damaged": self.options.keep_damaged,
            "max_frames": self.options.max_frames,
            "max_pixels": self.options.max_pixels,
        }

    def setup(self) -> None:
        """Nothing to make: each thread's decoder starts with the thread's first clip."""

    def process(self, video: Video) -> ClipOutput:
        """Frames of one clip.

        Raises:
            ClipRejected: also while the records are read.
        """
        return thread_decoder().frames(video, self.options)
