"""The decoder child: decodes clips for its parent, one after another, until its standard input ends.

Run as `python -m transforms.decoder_child`; see decoder_pipe.py for the messages. A video that hangs or
crashes FFmpeg takes only this process with it.
"""

import os
import signal
import sys
import time
import traceback
from typing import BinaryIO, cast

from stores.records import Frame
from stores.rejections import ClipRejected
from transforms import decoder_pipe as pipe
from transforms.decode import decode_clip
from transforms.options import FramesOptions
from transforms.stage import Video

PROGRESS_PERIOD_S = 0.5
# The parent kills after timeout_s. Where it is gone, the alarm does, a little later.
ALARM_MARGIN_S = 1.0


class _Answers:
    """The way to the parent, with an alarm that runs while FFmpeg works, not while the parent is slow."""

    def __init__(self, output: BinaryIO, timeout_s: float) -> None:
        self._output = output
        self._alarm_s = timeout_s + ALARM_MARGIN_S
        self._sent_s = time.monotonic()
        self._arm(self._alarm_s)

    def send(self, message: bytes) -> None:
        self._arm(0)
        self._output.write(message)
        self._output.flush()
        self._sent_s = time.monotonic()
        self._arm(self._alarm_s)

    def progress(self) -> None:
        """A picture was decoded: start the alarm again and, now and then, tell the parent."""
        if time.monotonic() - self._sent_s > min(PROGRESS_PERIOD_S, self._alarm_s / 8):
            self.send(pipe.pack(pipe.PROGRESS))

    def finish(self, message: bytes) -> None:
        self.send(message)
        self._arm(0)

    @staticmethod
    def _arm(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def serve(requests: BinaryIO, output: BinaryIO) -> None:
    """Answers requests until there are no more."""
    output.write(pipe.pack(pipe.READY))
    output.flush()
    while header := requests.read(pipe.HEADER.size):
        _, length = pipe.HEADER.unpack(header)
        video, options = pipe.unpack_request(requests.read(length))
        answers = _Answers(output, options.timeout_s)
        answers.finish(_decoded(answers, video, options))


def _decoded(answers: _Answers, video: Video, options: FramesOptions) -> bytes:
    """Sends size and frames; returns the closing message."""
    try:
        clip = decode_clip(video, options, on_progress=answers.progress)
        answers.send(pipe.pack_size(clip.width_px, clip.height_px))
        for frame in clip.records:
            answers.send(pipe.pack_frame(cast(Frame, frame)))
    except ClipRejected as rejected:
        return pipe.pack_rejected(rejected)
    except BrokenPipeError:
        raise  # the parent is gone
    except Exception:  # noqa: BLE001  a bad program: the parent raises it again
        return pipe.pack(pipe.FAILED, traceback.format_exc().encode(errors="backslashreplace"))
    return pipe.pack(pipe.END)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the messages
    try:
        serve(sys.stdin.buffer, output)
    except BrokenPipeError:
        os._exit(0)  # nobody is left to read; flushing at exit would only fail again


if __name__ == "__main__":
    main()
