"""One clip of one video, from bytes to JPEG frames on a regular grid. Holds a few pictures, never the clip."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import cast

from av.video.reformatter import VideoReformatter

from stores.records import Frame
from stores.rejections import ClipRejected
from transforms.images import encode_rgb
from transforms.options import FramesOptions
from transforms.picture import Orientation, orientation, to_rgb, upright_size
from transforms.resample import resample
from transforms.stage import ClipOutput, Video
from transforms.video_file import open_video
from transforms.video_reader import TimedFrame, VideoReader

Size = tuple[int, int]


def decode_clip(
    video: Video, options: FramesOptions, *, on_progress: Callable[[], None] = lambda: None
) -> ClipOutput:
    """Opens a video and decodes one clip of it, frame by frame while `records` is consumed.

    Args:
        on_progress: called after each decoded picture, also those that are only passed on the way.

    Raises:
        ClipRejected: also while `records` is consumed.
    """
    steps = _decode(video, options, on_progress)
    width_px, height_px = cast(Size, next(steps))
    return ClipOutput(width_px, height_px, cast(Iterator[Frame], steps))


def _decode(video: Video, options: FramesOptions, on_progress: Callable[[], None]) -> Iterator[Size | Frame]:
    """Yields the size of the frames, then the frames."""
    fps = Fraction(options.fps).limit_denominator(10_000)
    start_s = _microseconds(video.start_s)
    stop_s = None if video.stop_s is None else _microseconds(video.stop_s)
    with open_video(video) as file:
        reader = VideoReader(file, options, on_progress=on_progress)
        grid = resample(reader.pictures_from(start_s), fps=fps, start_s=start_s, stop_s=stop_s)
        opening = list(islice(grid, 2))
        if len(opening) < 2:
            raise _too_few(video, options, reader, frames=len(opening))
        first = opening[0][1].picture
        turn = orientation(first)
        size = upright_size(
            first, turn, pixel_aspect=reader.pixel_aspect, shorter_side_px=options.shorter_side_px
        )
        yield size
        for index, image in _encoded(chain(opening, grid), options, turn, size):
            yield Frame(index, round(index * 1_000_000 / fps), image)


def _encoded(
    grid: Iterator[tuple[int, TimedFrame]], options: FramesOptions, turn: Orientation, size: Size
) -> Iterator[tuple[int, bytes]]:
    """JPEG bytes for each grid point; a picture that serves several points is encoded once."""
    width_px, height_px = size
    reformatter = VideoReformatter()
    shown: TimedFrame | None = None
    image = b""
    for index, frame in grid:
        if index >= options.max_frames:
            raise ClipRejected("too_long", f"more than {options.max_frames} frames (frames.max_frames)")
        if frame is not shown:
            rgb_HWC = to_rgb(frame.picture, turn, reformatter, width_px=width_px, height_px=height_px)
            image, shown = encode_rgb(rgb_HWC, jpeg_quality=options.jpeg_quality), frame
        yield index, image


def _too_few(video: Video, options: FramesOptions, reader: VideoReader, *, frames: int) -> ClipRejected:
    """Why a clip has fewer than two frames."""
    if reader.damage:
        return ClipRejected("damaged", reader.damage)
    if reader.decoded == 0:
        return ClipRejected("no_frames")
    if frames == 0 and (video.start_s > 0 or video.stop_s is not None):
        stop = "the end" if video.stop_s is None else f"{video.stop_s:g} s"
        return ClipRejected("empty_segment", f"no frame from {video.start_s:g} s to {stop}")
    return ClipRejected("too_short", f"{frames} frames at {options.fps:g} frames a second")


def _microseconds(seconds: float) -> Fraction:
    return Fraction(round(seconds * 1_000_000), 1_000_000)
