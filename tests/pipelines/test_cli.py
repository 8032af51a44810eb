"""What a user's mistakes look like: one line, exit code 2, no traceback, nothing lost."""

import errno
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_docs import documented_messages, says
from wrong_uses import WRONG

from pipelines import cli, system_libraries
from pipelines.command_setup import config_of
from pipelines.commands import COMMANDS
from pipelines.config import load_config
from stores.checks import Damaged

ROOT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.run(list(arguments))
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few wrong and right files, as the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typo.yaml").write_text("flow: {bound_pix: 3}")
    (tmp_path / "good.yaml").write_text("workspace: ws")
    (tmp_path / "twice.csv").write_text("clip_id,uri,label\na,x.mp4,l\na,y.mp4,l\n")
    (tmp_path / "newline.csv").write_text('clip_id,uri,label\n"a\nb",x.mp4,l\n')
    (tmp_path / "dots.csv").write_text("clip_id,uri,label\n../../a,../x.mp4,l\n")
    (tmp_path / "nothing.yaml").write_text("train:\n  epochs:\n")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("flow: {bound_px")
    (tmp_path / "empty").mkdir()
    (tmp_path / "some" / "a").mkdir(parents=True)
    (tmp_path / "some" / "a" / "x.mp4").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG, ids=[" ".join(a).replace("\n", "?") for a, _ in WRONG]
)
def test_wrong_uses(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = run(capsys, *arguments)
    told = message.replace("{work}", str(work)).replace("{commands}", ", ".join(COMMANDS))
    assert (code, err) == (2, f"perfnet: {told}\n")
    assert not (work / "perfnet-error.log").exists()


def test_every_wrong_use_has_its_row_in_troubleshooting() -> None:
    documented = documented_messages()
    assert [told for _, told in WRONG if not any(says(told, message) for message in documented)] == []
    assert not any(says("nobody says this", message) for message in documented)


@pytest.mark.parametrize(
    "command", [["run"], ["prepare", "frames"], ["status"], ["demo"], ["predict", "a.mp4"]]
)
def test_missing_system_libraries_are_named_with_their_package(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setitem(system_libraries.PACKAGE_OF, "libperfnet-absent.so.1", "libperfnet1")
    code, _, err = run(capsys, *command)
    assert code == 2
    expected = "system libraries are missing: libperfnet-absent.so.1; on Debian: apt-get install libperfnet1"
    assert err == f"perfnet: {expected}\n"


def test_zero_is_a_value() -> None:
    config = config_of(None, {}, max_rejected=0.0, workers=0, retry_rejected=False)
    assert (config.run.max_rejected, config.run.workers) == (0.0, 0)
    assert config_of(None, {"run.workers": 3}, workers=0).run.workers == 0
    assert config_of(None, {"run.workers": 3}, workers=None).run.workers == 3


def test_dots_in_names_stay_names(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "clips", "csv", "dots.csv", "--workspace", "ws")
    assert (code, os.listdir(work / "ws")) == (0, ["clips.parquet"])
    assert "1 clips" in out


def test_a_bug_is_one_line_and_keeps_its_traceback(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> int:
        return int("x")  # a ValueError from a library, not a refusal of ours

    monkeypatch.setitem(__import__("pipelines.commands").commands.COMMANDS, "status", breaks)
    code, _, err = run(capsys, "status")
    assert code == 1
    assert "unexpected ValueError: invalid literal" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "no space is left; make room and run the same command again",
        ),
        (OSError(errno.EROFS, "x", "/ro/a"), 2, "/ro/a: cannot be written, its file system is read-only"),
        (
            OSError(errno.ELOOP, "Too many levels of symbolic links", "l\n"),
            2,
            "l\\n: Too many levels of symbolic links",
        ),
        (Damaged("a is damaged; do"), 1, "a is damaged; do"),
    ],
    ids=["full disk", "read-only", "another", "damaged"],
)
def test_what_the_machine_refuses_is_told_in_words(
    work: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    message: str,
) -> None:
    def breaks() -> int:
        raise error

    monkeypatch.setitem(COMMANDS, "status", breaks)
    found, _, err = run(capsys, "status")
    assert found == code
    assert err.startswith(f"perfnet: {message}")
    assert "Errno" not in err


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {name} " in out for name in COMMANDS)


def names_of(commands: Mapping[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    """What is typed for each command, those below others among them."""
    for name, found in commands.items():
        if isinstance(found, dict):
            yield from names_of(found, *above, name)
        else:
            yield (*above, name)


@pytest.mark.parametrize("command", list(names_of(COMMANDS)), ids=" ".join)
def test_help_of_each_command_fits_a_screen_and_has_an_example_that_parses(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert out.count("\n") <= 30
    example = out.split("Example: ")[1].splitlines()[0]
    assert example.startswith(" ".join(("perfnet", *command)))
    ours, _ = cli._split_off_beam(shlex.split(example)[1:])
    prog, function, rest = cli._find(ours, COMMANDS)
    overrides, rest = cli._split_off_overrides(rest)
    cli._parse(function, prog, rest)
    load_config(None, overrides)


def test_the_command_runs_as_a_program(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "run", "--workspace", str(tmp_path / "none")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
