"""What a stage is: one clip in, one clip out, both streamed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from stores.records import Record


@dataclass(frozen=True)
class Video:
    """A clip before the first stage: a segment of a video file.

    Attributes:
        uri: local path or gs:// address.
        start_s, stop_s: the half-open segment [start_s, stop_s) in seconds since the video's first frame;
            `stop_s` None means until the end.
        bytes, modified: size and modification mark seen while planning, or None and the reason code where there was
            no file to be read; twice None skips the check.
    """

    clip_id: str
    uri: str
    start_s: float = 0.0
    stop_s: float | None = None
    bytes: int | None = None
    modified: str | None = None


class StoredClip(Protocol):
    """One clip of an input store, read row group by row group."""

    clip_id: str
    frames: int
    width_px: int
    height_px: int

    def records(self) -> Iterator[Any]:
        """All records of the clip in frame order (a People record for each frame, also the empty ones)."""


@dataclass(frozen=True)
class ClipOutput:
    """What a stage made of one clip; `records` is consumed once, as it is computed."""

    width_px: int
    height_px: int
    records: Iterator[Record]


class Stage(Protocol):
    """The computation that brings one store up to date with its inputs.

    Attributes:
        name: also the store's name.
        version: raised by hand when the output of unchanged options changes.
        inputs: names of the stores it reads; () for the first stage, which reads videos.
    """

    name: str
    version: int
    inputs: tuple[str, ...]

    def spec(self) -> Mapping[str, Any]:
        """What, apart from the inputs, determines the output: JSON values only."""

    def setup(self) -> None:
        """Makes the heavy things, once a process; called before `process`, never pickled."""

    def process(self, *clips: Any) -> ClipOutput:
        """One clip: a `Video` for the first stage, otherwise one `StoredClip` for each input.

        Raises:
            ClipRejected: the clip cannot be processed; also while `records` is consumed.
        """
