"""Why a clip can be rejected: a closed list of reason codes, each with its cause.

A `data` rejection is sealed until the video changes; a `transient` one is tried again by the next run.
"""

from dataclasses import dataclass
from typing import Literal

Cause = Literal["data", "transient"]

REASONS: dict[str, tuple[Cause, str]] = {
    "missing_file": ("data", "the video does not exist"),
    "unreadable_file": ("data", "the video cannot be opened: permissions, or not a regular file"),
    "empty_file": ("data", "the video has no bytes"),
    "not_a_video": ("data", "no supported container format was recognised"),
    "no_video_stream": ("data", "the file holds no video stream"),
    "no_frames": ("data", "the video stream holds no frame that can be decoded"),
    "damaged": ("data", "decoding failed midway; frames.keep_damaged keeps what was decoded"),
    "too_short": ("data", "fewer than two frames at the target rate"),
    "empty_segment": ("data", "no frame lies in [start_s, stop_s)"),
    "too_long": ("data", "more frames than frames.max_frames"),
    "too_large": ("data", "more pixels a frame than frames.max_pixels"),
    "unsupported": ("data", "the codec or pixel format is not supported by this FFmpeg"),
    "no_keypoints": ("data", "pose.keypoints holds nothing for this clip"),
    "wrong_keypoints": ("data", "its keypoints cannot be read, or are another clip's"),
    "timeout": ("transient", "no frame came within frames.timeout_s"),
    "decoder_crashed": ("transient", "the decoder process died on this video"),
    "io_error": ("transient", "reading failed"),
    "file_changed": ("transient", "the video changed, came or went between planning and reading"),
    "internal_error": ("transient", "an unexpected exception; its traceback is in the summary of the shard"),
}


class ClipRejected(Exception):
    """Raised by a stage for a clip that it cannot process.

    Args:
        reason: a code of `REASONS`.
        detail: what was found, in words a person understands.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in REASONS, reason
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    @property
    def cause(self) -> Cause:
        return REASONS[self.reason][0]

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(frozen=True)
class Rejection:
    """One rejected clip as it stands in a summary."""

    clip_id: str
    key: str
    cause: Cause
    reason: str
    detail: str

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"unknown rejection reason {self.reason!r}; known: {', '.join(REASONS)}")
