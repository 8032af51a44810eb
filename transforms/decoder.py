"""Decoding in a child process, so that a video which hangs or crashes FFmpeg costs one clip."""

import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stores.files import is_local, local_path, printable
from stores.records import Frame
from stores.rejections import ClipRejected
from transforms import decoder_pipe as pipe
from transforms.options import FramesOptions
from transforms.stage import ClipOutput, Video

# -P: a module of the current folder must not stand in for one of ours.
COMMAND = (sys.executable, "-P", "-m", "transforms.decoder_child")
START_TIMEOUT_S = 60.0
DYING_TIMEOUT_S = 5.0
READ_BYTES = 1 << 18


class DecoderError(RuntimeError):
    """The decoder does not start or has a bug: no fault of the video."""


class _Child:
    """One child process and its pipes."""

    def __init__(self, command: Sequence[str]) -> None:
        # A file, because a pipe that nobody empties would block the child; appending, so that it can be cut.
        self._log = tempfile.TemporaryFile("ab+")  # noqa: SIM115  closed with the child
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._received = bytearray()
        self.stop = weakref.finalize(self, _stop, self._process, os.getpid())
        self._await_ready()

    def _await_ready(self) -> None:
        try:
            kind, _ = self.receive(START_TIMEOUT_S)
        except ClipRejected as died:
            raise DecoderError(f"the decoder process does not start: {died.detail}") from died
        if kind != pipe.READY:
            self.stop()
            raise DecoderError(f"the decoder process started with {kind!r}")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: bytes) -> None:
        """Sends a request; a child that is dying answers with its end, which `receive` reports."""
        self._log.truncate(0)
        try:
            view = memoryview(request)
            while view:
                view = view[self._input.write(view) :]
        except BrokenPipeError:
            return

    def receive(self, timeout_s: float) -> tuple[bytes, bytes]:
        """The next message; the child is dead after an exception.

        Raises:
            ClipRejected: timeout or decoder_crashed.
            DecoderError: the child was stopped for another clip, or closed.
        """
        if not self.stop.alive:
            raise DecoderError("this clip's decoder was closed or given another clip before all was read")
        deadline_s = time.monotonic() + timeout_s
        self._fill(pipe.HEADER.size, deadline_s, timeout_s)
        kind, length = pipe.HEADER.unpack_from(self._received)
        if length > pipe.MAX_PAYLOAD_BYTES:
            raise self.senseless(f"a message of {length} bytes")
        stop = pipe.HEADER.size + length
        self._fill(stop, deadline_s, timeout_s)
        payload = bytes(self._received[pipe.HEADER.size : stop])
        del self._received[:stop]
        return kind, payload

    def _fill(self, size: int, deadline_s: float, timeout_s: float) -> None:
        """Reads until `size` bytes are there."""
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        while len(self._received) < size:
            if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
                self.stop()
                raise ClipRejected("timeout", f"no frame for {timeout_s:g} s")
            data = self._output.read(READ_BYTES)
            if not data:
                raise self._crashed(timeout_s)
            self._received += data

    def senseless(self, found: str) -> ClipRejected:
        """Stops a child that says what makes no sense; returns the rejection for its clip."""
        self.stop()
        return ClipRejected("decoder_crashed", f"the decoder process sent {printable(found)}")

    def _crashed(self, timeout_s: float) -> ClipRejected:
        try:
            code = self._process.wait(timeout=DYING_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return self.senseless("no more, but goes on")
        self.stop()
        if code == -signal.SIGALRM:
            return ClipRejected("timeout", f"no frame for {timeout_s:g} s")
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return ClipRejected("decoder_crashed", how + (f": {printable(lines[-1])[:300]}" if lines else ""))


def _stop(process: subprocess.Popen, owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked copy of the parent ends; the child is not its own
    process.kill()
    process.wait()
    for end in (process.stdin, process.stdout):
        assert end is not None
        end.close()


class Decoder:
    """Decodes clips one at a time in a persistent child process. For one thread.

    Args:
        command: starts the child.
    """

    def __init__(self, *, command: Sequence[str] = COMMAND) -> None:
        self._command = tuple(command)
        self._idle: _Child | None = None
        self._busy: _Child | None = None

    def frames(self, video: Video, options: FramesOptions) -> ClipOutput:
        """Decodes one clip; its records come as the child makes them, a few ahead of the reader.

        The next call gives up a clip whose records were not read to the end, at the price of a new child.

        Raises:
            ClipRejected: also while the records are read.
            DecoderError: the child does not start or has a bug; also while the records are read.
        """
        if is_local(video.uri):  # the child keeps the working folder in which it was started
            video = replace(video, uri=os.path.abspath(local_path(video.uri)))
        child = self._take()
        child.ask(pipe.pack_request(video, options))
        kind, payload = self._next(child, options.timeout_s)
        if kind != pipe.SIZE:
            raise child.senseless(f"{kind!r} instead of a size")
        try:
            width_px, height_px = pipe.unpack_size(payload)
        except struct.error as error:
            raise child.senseless(str(error)) from error
        return ClipOutput(width_px, height_px, self._records(child, options.timeout_s))

    def close(self) -> None:
        """Ends the child; the next clip starts another."""
        for child in (self._idle, self._busy):
            if child:
                child.stop()
        self._idle = self._busy = None

    def _take(self) -> _Child:
        if self._busy:
            self._busy.stop()  # its reader gave up and nobody wants the rest
        child = self._idle if self._idle and self._idle.alive else _Child(self._command)
        self._idle, self._busy = None, child
        return child

    def _next(self, child: _Child, timeout_s: float) -> tuple[bytes, bytes]:
        """The next message that is not about progress.

        Raises:
            ClipRejected, DecoderError: what the child reports or what happened to it.
        """
        while True:
            kind, payload = child.receive(timeout_s)
            if kind == pipe.PROGRESS:
                continue
            if kind in (pipe.END, pipe.REJECTED, pipe.FAILED) and child is self._busy:
                self._idle, self._busy = child, None
            if kind == pipe.FAILED:
                raise DecoderError(payload.decode(errors="replace"))
            if kind == pipe.REJECTED:
                try:
                    rejected = pipe.unpack_rejected(payload)
                except ValueError as error:
                    raise child.senseless(str(error)) from error
                raise rejected
            return kind, payload

    def _records(self, child: _Child, timeout_s: float) -> Iterator[Frame]:
        finished = False
        try:
            while True:
                kind, payload = self._next(child, timeout_s)
                if kind == pipe.END:
                    finished = True
                    return
                if kind != pipe.FRAME:
                    raise child.senseless(f"{kind!r} instead of a frame")
                try:
                    frame = pipe.unpack_frame(payload)
                except (struct.error, ValueError) as error:
                    raise child.senseless(str(error)) from error
                yield frame
        except (ClipRejected, DecoderError):
            finished = True
            raise
        finally:
            if not finished:
                child.stop()


_local = threading.local()


def thread_decoder() -> Decoder:
    """The decoder of the calling thread, made at its first call; ends with the thread."""
    if getattr(_local, "owner", None) != os.getpid():  # a forked process must not share its parent's child
        _local.owner, _local.decoder = os.getpid(), Decoder()
    decoder: Decoder = _local.decoder
    return decoder
