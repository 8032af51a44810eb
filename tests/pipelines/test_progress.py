"""What the screen shows of a job, and what only its log file gets."""

import contextlib
import fcntl
import io
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pipelines.progress import Screen, job_log
from pipelines.units import duration, size
from transforms.stderr import stderr_silenced


@pytest.mark.parametrize("verbose", [False, True])
def test_the_chatter_of_libraries_is_in_the_log_and_on_the_screen_only_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    root, earlier = logging.getLogger(), logging.StreamHandler(io.StringIO())
    root.addHandler(earlier)
    before = root.handlers[:]
    try:
        with job_log(str(tmp_path), verbose=verbose):
            logging.getLogger("apache_beam.runners").info("chatter")
        assert root.handlers == before
    finally:
        root.removeHandler(earlier)
    assert "INFO apache_beam.runners: chatter" in (tmp_path / "job.log").read_text()
    assert earlier.stream.getvalue() == ""
    assert ("chatter" in capsys.readouterr().err) == verbose


def test_the_chatter_of_native_libraries_is_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with job_log(str(tmp_path)), stderr_silenced():
        os.write(2, b"oneDNN custom operations are on\n")
    with stderr_silenced():
        os.write(2, b"outside of a job\n")
    assert (tmp_path / "workers.log").read_text() == "oneDNN custom operations are on\n"
    assert capfd.readouterr().err == ""


def test_a_live_line_is_a_plain_line_without_a_terminal() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.live("1 of 2")
    screen.live("2 of 2")
    screen.line("done")
    assert stream.getvalue() == "1 of 2\n2 of 2\ndone\n"


def test_a_live_line_is_replaced_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    screen = Screen(stream)
    screen.live("1 of 2")
    screen.line("done")
    assert stream.getvalue() == "1 of 2\r      \rdone\n"


def test_quiet_is_silent() -> None:
    stream = io.StringIO()
    Screen(stream, quiet=True).line("done")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59.4, "59 s"), (190, "3 min 10 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e12, "2.0 TB")]
)
def test_sizes(size_bytes: float, shown: str) -> None:
    assert size(size_bytes) == shown


def on_a_terminal(program: str, columns: int = 80) -> list[str]:
    """The lines that a person sees when `program` has run on a terminal; spaces at their ends left out."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    received = b""
    with contextlib.suppress(OSError):  # the terminal hangs up when its last writer ends
        while piece := os.read(leader, 4096):
            received += piece
    os.close(leader)
    child.wait()
    return [_seen(line) for line in received.decode().replace("\r\n", "\n").split("\n")]


def _seen(line: str) -> str:
    """What stands in a line after all that was written over its beginning."""
    shown = ""
    for text in line.split("\r"):
        shown = text + shown[len(text) :]
    return shown.rstrip()


AFTER_A_LIVE_LINE = """
import os, signal, sys
from pipelines import cli, commands
from pipelines.progress import Screen
from stores.checks import StageFailed

def status():
    screen = Screen()
    screen.line("plan: frames: stale")
    screen.live("frames: 1 of 2 clips, 9 frames/s, 0:00 left")
    {then}
    return 0

commands.COMMANDS["status"] = status
cli.main(["status"])
"""


@pytest.mark.parametrize(
    ("then", "last"),
    [
        ("pass", []),
        ("raise StageFailed('frames: too many')", ["perfnet: frames: too many"]),
        (
            "os.kill(os.getpid(), signal.SIGINT)",
            [
                "perfnet: interrupted; finished shards and checkpoints are kept, run the same command to go on",
            ],
        ),
        ("sys.exit(3)", []),
        ("screen.close(); print('top-1')", ["top-1"]),
        ("screen.line('frames: done')", ["frames: done"]),
    ],
    ids=["end", "error", "Ctrl-C", "exit", "result", "line"],
)
def test_whatever_ends_a_command_begins_a_line_of_its_own(then: str, last: list[str]) -> None:
    shown = on_a_terminal(AFTER_A_LIVE_LINE.format(then=then), columns=200)
    assert shown == ["plan: frames: stale", *last, ""]


def test_a_stage_takes_its_line_away(tmp_path: Path) -> None:
    shown = on_a_terminal(
        "import time; from pipelines.progress import Screen, stage_progress; screen = Screen()\n"
        f"with stage_progress(screen, 'flow', {str(tmp_path)!r}, 3): time.sleep(1.2)\n"
        "print('store  clips')"
    )
    assert shown == ["store  clips", ""]


def test_a_terminal_that_does_not_know_its_columns_gets_whole_lines() -> None:
    said = "rgb: step 8 of 400, loss 1.618, accuracy 0.17, 0.5 clips/s"
    program = f"from pipelines.progress import Screen; Screen().live({said!r})"
    assert on_a_terminal(program, columns=0) == [said]
    assert on_a_terminal(program, columns=40) == [said[:39]]


def test_what_a_training_announces_stays_and_its_steps_pass() -> None:
    program = (
        "from pipelines.progress import Screen; from models.lines import Passing; screen = Screen()\n"
        "for text in ('starts anew', Passing('step 1'), Passing('step 2'), 'step 3', Passing('step 4')):\n"
        "    screen.say(text)\n"
    )
    assert on_a_terminal(program) == ["starts anew", "step 3", "step 4"]
