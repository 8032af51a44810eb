"""Timed pictures of one video stream, from the start or from a seek. FFmpeg through PyAV, one thread.

The input comes from strangers. FFmpeg gets the bytes through `VideoFile` and is told which containers it may
recognise and that there is no protocol, so that no file makes it open another one.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain

import av
from av.stream import Disposition

from stores.files import printable
from stores.rejections import ClipRejected
from transforms.options import FramesOptions
from transforms.resample import TimedPicture
from transforms.video_file import VideoFile

# Containers of videos only: no playlists (concat, hls, dash), images, subtitles, text or capture devices.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf,rm,dv,nut,ivf,wtv"
NO_PROTOCOL = "none"
AVFMT_FLAG_GENPTS = 1
NOT_A_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
# How many seconds before the segment to seek to, tried in turn before decoding from the video's start: a seek
# may land late, because some containers index decoding times, which differ from the times of display.
SEEK_MARGINS_S = (0, 10)
UNSUPPORTED = (av.error.PatchWelcomeError, av.error.NotImplementedError, av.error.DecoderNotFoundError)
TOO_MANY_PIXELS = "exceeds specified max pixel count"

TimedFrame = TimedPicture[av.VideoFrame]

# FFmpeg's last message becomes part of its exceptions only while it logs; none of it may reach the screen.
logging.getLogger("libav").addHandler(logging.NullHandler())
logging.getLogger("libav").propagate = False
av.logging.set_level(av.logging.ERROR)


class VideoReader:
    """Reads the pictures of a file's video stream.

    Args:
        on_progress: called after each decoded picture, also those that are only passed on the way.

    Attributes:
        pixel_aspect: width over height of one pixel.
        decoded: pictures decoded so far.
        damage: what was found damaged first and passed over, as `keep_damaged` wishes; otherwise None.

    Raises:
        ClipRejected: not_a_video, no_video_stream, damaged, unsupported, too_large or io_error; also from the
            iterators.
    """

    def __init__(
        self, file: VideoFile, options: FramesOptions, *, on_progress: Callable[[], None] = lambda: None
    ) -> None:
        self._file = file
        self._options = options
        self._on_progress = on_progress
        self._tolerant = False
        self.decoded = 0
        self.damage: str | None = None
        self._open()

    @property
    def pixel_aspect(self) -> Fraction:
        return self._stream.sample_aspect_ratio or Fraction(1)

    def pictures_from(self, start_s: Fraction) -> Iterator[TimedFrame]:
        """Yields pictures by strictly growing time, beginning at or before `start_s` if the video does."""
        self._tolerant = start_s > 0  # what is damaged before the segment does not concern it
        pictures = self._pictures()
        first = next(pictures, None)
        if first is None:
            return
        origin_s = (_stamp(first) or 0) * self._tick_s
        pictures = self._sought(origin_s + start_s) if start_s > 0 else chain([first], pictures)
        yield from timed(
            pictures, origin_s=origin_s, tick_s=self._tick_s, nominal_length_s=self._nominal_length_s()
        )

    def _open(self) -> None:
        self._file.seek(0)
        limit = {"max_pixels": str(self._options.max_pixels)}
        guard = {"format_whitelist": FORMATS, "protocol_whitelist": NO_PROTOCOL}
        try:
            self._container = av.open(
                self._file, "r", options=limit, container_options=guard, metadata_errors="replace"
            )
        except (av.FFmpegError, OSError) as error:
            self._refuse(error)
            raise _not_opened(error) from error
        self._stream = _video_stream(self._container)
        # PyAV asks for generated timestamps, which are wrong for H.264 with B-frames in AVI.
        self._container.flags &= ~AVFMT_FLAG_GENPTS
        assert self._stream.time_base is not None
        self._tick_s = self._stream.time_base
        self._check_pixels(self._stream.codec_context.width, self._stream.codec_context.height)
        self._stream.codec_context.options = limit
        self._stream.codec_context.thread_count = 1  # processes give the parallelism

    def _sought(self, wanted_s: Fraction) -> Iterator[av.VideoFrame]:
        """Pictures from a key frame at or before the timestamp `wanted_s`, else from the video's start."""
        for margin_s in SEEK_MARGINS_S:
            landed = self._landed(wanted_s, margin_s)
            if landed is not None:
                break
        else:
            self._open()
            landed = self._pictures()
        self._tolerant = False
        return landed

    def _landed(self, wanted_s: Fraction, margin_s: int) -> Iterator[av.VideoFrame] | None:
        """Pictures from a key frame at or before the timestamp `wanted_s`; None where no seek leads there."""
        try:
            self._container.seek(int((wanted_s - margin_s) / self._tick_s), stream=self._stream)
        except av.FFmpegError:
            return None
        pictures = self._pictures()
        landing = next(
            (picture for picture in pictures if picture.key_frame and not picture.is_corrupt), None
        )
        stamp = None if landing is None else _stamp(landing)
        if landing is None or stamp is None or stamp * self._tick_s > wanted_s:
            return None
        return chain([landing], pictures)

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """Decodes from where the container stands; goes on behind what cannot be decoded."""
        packets = self._container.demux(self._stream)
        started = False  # until the first key frame a decoder may fail: the recording began in between
        while True:
            packet = None
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                started = started or packet.is_keyframe
                pictures = packet.decode()
            except av.EOFError:
                return
            except IndexError:  # at the end PyAV stumbles over streams that appeared after the beginning
                pictures = self._drained()
            except (av.FFmpegError, OSError) as error:
                self._refuse(error)
                if started or packet is None:
                    self._note_damage(_message(error))
                pictures = [] if packet is not None else self._drained()
            for picture in pictures:
                yield self._checked(picture)

    def _drained(self) -> list[av.VideoFrame]:
        """The pictures still inside the decoder after the container could not be read on."""
        try:
            return self._stream.codec_context.decode(None)
        except av.FFmpegError:
            return []

    def _checked(self, picture: av.VideoFrame) -> av.VideoFrame:
        self._check_pixels(picture.width, picture.height)
        if picture.is_corrupt:
            self._note_damage("the next picture is incomplete")
        self.decoded += 1
        self._on_progress()
        return picture

    def _nominal_length_s(self) -> Fraction:
        rate = self._stream.average_rate or self._stream.guessed_rate
        return 1 / rate if rate else 1 / Fraction(self._options.fps)

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._options.max_pixels:
            found = f"{width} x {height} px a frame, frames.max_pixels is {self._options.max_pixels}"
            raise ClipRejected("too_large", found)

    def _refuse(self, error: Exception) -> None:
        """Raises if the error is one that no other packet can heal: not one among decoded pictures."""
        if self._file.error is not None:
            raise ClipRejected("io_error", printable(str(self._file.error))) from error
        if isinstance(error, UNSUPPORTED) and self.decoded == 0 and not self._options.keep_damaged:
            raise ClipRejected("unsupported", _message(error)) from error
        if TOO_MANY_PIXELS in _message(error):
            raise ClipRejected("too_large", _message(error)) from error

    def _note_damage(self, found: str) -> None:
        if self._tolerant:
            return
        detail = f"decoding failed after {self.decoded} frames: {found}"
        if not self._options.keep_damaged:
            raise ClipRejected("damaged", detail)
        self.damage = self.damage or detail


def timed(
    pictures: Iterable[av.VideoFrame], *, origin_s: Fraction, tick_s: Fraction, nominal_length_s: Fraction
) -> Iterator[TimedFrame]:
    """Gives pictures their times after `origin_s`, strictly growing whatever their timestamps say.

    A picture without a timestamp follows its predecessor; one not later than its predecessor is dropped. One
    without a length is as long as the step to it, the first one `nominal_length_s`.

    Args:
        tick_s: seconds a unit of `pts` and `duration`.
    """
    previous: TimedFrame | None = None
    for picture in pictures:
        stamp = _stamp(picture)
        if stamp is not None:
            time_s = stamp * tick_s - origin_s
        else:
            time_s = previous.time_s + previous.length_s if previous else Fraction(0)
        if previous and time_s <= previous.time_s:
            continue
        length_s = (picture.duration or 0) * tick_s
        if length_s <= 0:
            length_s = time_s - previous.time_s if previous else nominal_length_s
        previous = TimedPicture(time_s, length_s, picture)
        yield previous


def _stamp(picture: av.VideoFrame) -> int | None:
    """Time of display, or of decoding where the container knows no other (AVI); both grow by the same steps."""
    return picture.dts if picture.pts is None else picture.pts


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The stream to decode: FFmpeg's choice among the moving pictures, cover art and thumbnails aside."""
    videos = [s for s in container.streams.video if not s.disposition & NOT_A_VIDEO]
    if not videos:
        kinds = ", ".join(stream.type for stream in container.streams)
        raise ClipRejected("no_video_stream", f"streams found: {kinds}" if kinds else "no stream at all")
    decodable = [stream for stream in videos if stream.codec_context is not None]
    if not decodable:
        raise ClipRejected("unsupported", "this FFmpeg has no decoder for the video stream")
    best = container.streams.best("video")
    return best if best in decodable else decodable[0]


def _not_opened(error: Exception) -> ClipRejected:
    """Tells a container that is not one of ours from one of ours whose beginning is damaged."""
    log = getattr(error, "log", None)
    demuxer = printable(log[1]) if log else ""
    if "not on whitelist" in _message(error):
        return ClipRejected("not_a_video", f"the content is {demuxer!r}, which is no supported container")
    if demuxer.split(",")[0] in FORMATS.split(","):
        return ClipRejected("damaged", f"the file's {demuxer} header cannot be read: {_message(error)}")
    return ClipRejected("not_a_video", _message(error))


def _message(error: Exception) -> str:
    """FFmpeg's words, on one line: its error text and what it last logged."""
    text = getattr(error, "strerror", None) or str(error)
    log = getattr(error, "log", None)
    return printable(f"{text} ({log[2].strip()})" if log else text)[:300]
