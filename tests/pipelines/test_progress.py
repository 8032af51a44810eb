"""What the screen shows of a job, and what only its log file gets."""

import io
import logging
from pathlib import Path

import pytest

from pipelines.progress import Screen, job_log
from pipelines.units import duration, size


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
