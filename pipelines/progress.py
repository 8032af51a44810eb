"""What a person sees while a stage runs: one live line on a terminal, plain lines elsewhere."""

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from models.lines import Passing
from pipelines.units import duration
from stores import files
from transforms.stderr import send_chatter_to

PROGRESS = "progress"
LOGS = ("job.log", "workers.log")
_TERMINAL_PERIOD_S = 0.5
_PLAIN_PERIOD_S = 15.0
_REMOTE_PERIOD_S = 30.0
_UNKNOWN_COLUMNS = 100


@dataclass
class _Tail:
    """Reads what was appended to a folder of JSON-lines files since the last look."""

    folder: str
    offsets: dict[str, int] = field(default_factory=dict)

    def new_lines(self) -> Iterator[dict]:
        for name in sorted(files.list_names(self.folder)):
            with open(os.path.join(self.folder, name), "rb") as file:
                file.seek(self.offsets.get(name, 0))
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self.offsets[name] = self.offsets.get(name, 0) + len(whole)
            yield from map(json.loads, whole.splitlines())


def clips_in_flight(scratch: str) -> list[str]:
    """Clips that a worker has begun and not finished."""
    started: set[str] = set()
    for line in _Tail(os.path.join(scratch, PROGRESS)).new_lines():
        if "start" in line:
            started.add(line["start"])
        else:
            started.discard(line["done"])
    return sorted(started)


@contextlib.contextmanager
def job_log(scratch: str, *, verbose: bool = False) -> Iterator[None]:
    """Keeps the chatter of Beam and of its workers in the job's own log files, and off the screen unless asked for."""
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handlers: list[logging.Handler] = [logging.FileHandler(os.path.join(scratch, LOGS[0]), encoding="utf-8")]
    handlers += [logging.StreamHandler()] if verbose else []
    for handler in handlers:
        handler.setFormatter(formatter)
    root = logging.getLogger()
    # Parsing options makes Beam log to the screen, by a handler of the root logger.
    before, level = root.handlers[:], root.level
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)
    chatter_before = send_chatter_to(os.path.join(scratch, LOGS[1]))  # of a worker inside this process
    try:
        yield
    finally:
        send_chatter_to(chatter_before)
        root.handlers[:] = before
        root.setLevel(level)
        for handler in handlers:
            handler.close()


class Screen:
    """Prints lines, and one live line that is overwritten where there is a terminal.

    Args:
        quiet: print nothing.
        verbose: jobs show their logs as well.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False, verbose: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self.verbose = verbose
        self._live = ""
        self.terminal = self._stream.isatty()

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._quiet:
            return
        self._clear()
        print(text, file=self._stream, flush=True)

    def live(self, text: str) -> None:
        """A line that the next one replaces; elsewhere than on a terminal a plain line."""
        if self._quiet:
            return
        if not self.terminal:
            print(text, file=self._stream, flush=True)
            return
        self._clear()
        self._live = text[: max(20, _columns() - 1)]
        print(self._live, end="", file=self._stream, flush=True)
        _showing.add(self)

    def say(self, text: str) -> None:
        """What a training says: a line that stays, or one that the next may replace."""
        (self.live if isinstance(text, Passing) else self.line)(text)

    def close(self) -> None:
        """Takes the live line away: its work is over, and what comes next begins a line of its own."""
        if self._live:
            self._clear()
            self._stream.flush()

    def _clear(self) -> None:
        if self._live:
            print("\r" + " " * len(self._live) + "\r", end="", file=self._stream)
            self._live = ""
            _showing.discard(self)


_showing: set[Screen] = set()


def close_screens() -> None:
    """Takes away whatever live line a command has left, before its end is told."""
    for screen in list(_showing):
        screen.close()


def _columns() -> int:
    """Of the terminal; 100 where there is none, or one that says 0 because it does not know."""
    with contextlib.suppress(OSError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or _UNKNOWN_COLUMNS
    return _UNKNOWN_COLUMNS


@contextlib.contextmanager
def stage_progress(screen: Screen, stage: str, scratch: str, clips: int) -> Iterator[None]:
    """Shows clips done of total, frames a second, time left and rejections while the block runs.

    Workers tell of their progress through files in `scratch`; where they cannot, `clips` is 0 and nothing is shown.
    """
    if not clips:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_show, args=(screen, stage, scratch, clips, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        screen.close()


@contextlib.contextmanager
def shard_progress(screen: Screen, stage: str, job_folder: str, shards: int) -> Iterator[None]:
    """Shows shards done of total while the block runs, where workers elsewhere can only leave objects."""
    ended = threading.Event()
    done_folder = files.join(job_folder, "done")

    def show() -> None:
        started, before = time.monotonic(), 0
        while not ended.wait(_REMOTE_PERIOD_S):
            with contextlib.suppress(OSError):
                done = len(files.list_names(done_folder))
                if done != before:
                    left = duration((time.monotonic() - started) / done * (shards - done))
                    screen.live(f"{stage}: {done} of {shards} shards, {left} left")
                before = done

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        screen.close()


def _show(screen: Screen, stage: str, scratch: str, clips: int, done: threading.Event) -> None:
    tail = _Tail(os.path.join(scratch, PROGRESS))
    started = time.monotonic()
    finished = frames = rejected = 0
    period = _TERMINAL_PERIOD_S if screen.terminal else _PLAIN_PERIOD_S
    while not done.wait(period):
        for line in tail.new_lines():
            if "done" in line:
                finished += 1
                frames += line["frames"]
                rejected += line["rejected"] is not None
        elapsed = time.monotonic() - started
        left = duration(elapsed / finished * (clips - finished)) if finished else "unknown"
        screen.live(
            f"{stage}: {finished} of {clips} clips, {frames / elapsed:.1f} frames/s, {left} left, {rejected} rejected"
        )
