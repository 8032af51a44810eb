"""What a user's mistakes look like: one line, exit code 2, no traceback, nothing lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import cli, system_libraries
from pipelines.command_setup import config_of

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
    (tmp_path / "empty").mkdir()
    return tmp_path


WRONG = [
    (
        ["run", "--config", "typo.yaml"],
        "unknown key 'flow.bound_pix' in typo.yaml; did you mean 'flow.bound_px'?",
    ),
    (["run", "--flow.bound_pix", "3"], "unknown key 'flow.bound_pix'; did you mean 'flow.bound_px'?"),
    (["run", "--config", "none.yaml"], "--config: none.yaml does not exist"),
    (["run", "--config", "empty"], "--config: empty cannot be read: Is a directory"),
    (["run", "pos"], "unknown stage 'pos'; known: frames, pose, render, flow, train-rgb"),
    (
        ["run", "--workspace", "nowhere"],
        "nowhere/clips.parquet does not exist; make it with `perfnet clips folder`",
    ),
    (["run", "--clips.folder", "nowhere"], "clips folder: nowhere is not a folder"),
    (["run", "--max_rejected", "many"], "--max_rejected: found 'many', expected a number"),
    (["run", "--max_rejected", "2"], "run.max_rejected: found 2.0, expected between 0 and 1"),
    (["run", "--nonsense"], "unrecognized arguments: --nonsense; see perfnet run --help"),
    (["run", "--flow.bound_px"], "--flow.bound_px needs a value"),
    (["run", "--flow.bound_px", "wide"], "flow.bound_px"),
    (["prepare"], "see perfnet prepare --help"),
    (["prepare", "train-rgb"], "unknown stage 'train-rgb'; known: frames, pose, render, flow"),
    (["prepare", "pose", "--config", "good.yaml"], "ws/clips.parquet does not exist"),
    (["train", "depth"], "unknown run 'depth'; known: rgb, pose, flow, student"),
    (["evaluate", "depth"], "unknown run 'depth'"),
    (["fuse", "rgb", "flow=much"], "fuse: found 'flow=much', expected a run and its weight: rgb=0.5"),
    (["fuse", "rgb", "rgb=2"], "fuse: run 'rgb' is named twice; give it a larger weight: rgb=2"),
    (["fuse", "depth"], "unknown run 'depth'"),
    (["fuse", "rgb", "--workspace", "empty"], "run rgb is not evaluated; run `perfnet evaluate rgb`"),
    (["compare", "rgb", "student", "--workspace", "empty"], "run rgb is not evaluated"),
    (["predict"], "predict: name at least one video file, folder or glob"),
    (
        ["predict", "a.mp4", "--output", "a.txt"],
        "--output: found 'a.txt', expected a name that ends in .json or",
    ),
    (["predict", "a.mp4", "--stride_s", "0"], "--stride_s: found 0.0, expected seconds, more than 0"),
    (["predict", "empty"], "predict: empty: the folder holds no videos"),
    (["predict", "*.nothing"], "predict: *.nothing: no file has such a name"),
    (["gradcam", "c", "--output", "a.jpg"], "--output: found 'a.jpg', expected a name that ends in .png"),
    (
        ["gradcam", "c", "--runs", "rgb", "--workspace", "empty"],
        "run rgb is not trained; run `perfnet train rgb`",
    ),
    (["clips", "folder", "nowhere"], "clips folder: nowhere is not a folder"),
    (["clips", "folder", "empty"], "clips folder: empty holds no videos"),
    (["clips", "folder", "empty", "--group", "("], "clips.group_pattern: '(' is not a regular expression"),
    (["clips", "csv", "twice.csv"], "clips csv: twice.csv clip 2: duplicate clip_id 'a'"),
    (["clips", "csv", "newline.csv"], "clip_id holds a control or unprintable character ('a\\nb')"),
    (["clips", "csv", "none.csv"], "clips csv: none.csv is not a file"),
    (["clips", "folder", "empty", "--folds", "1"], "clips.folds: found 1, expected 0 or 2 to 100"),
    (["clips", "kinetics", "--videos", "empty"], "clips kinetics: name at least one annotation CSV file"),
    (["clips", "kinetics", "a.csv", "--videos", "nowhere"], "--videos: nowhere is not a folder"),
    (["clips", "kinetics", "none.csv", "--videos", "empty"], "clips kinetics: none.csv is not a file"),
    (["clips", "kinetics", "twice.csv", "--videos", "empty"], "twice.csv has no column youtube_id"),
    (["clips", "ucf101", "empty", "--splits", "empty"], "--splits: "),
    (["clips", "hmdb51", "empty", "--splits", "nowhere"], "--splits: nowhere is not a folder"),
    (["clips", "xml"], "unknown command 'clips xml'; known: folder, csv, kinetics, ucf101, hmdb51"),
    (["rum"], "unknown command 'rum'; known: demo, init, config"),
    (["ru\nm"], "unknown command 'ru\\nm'"),
    (
        ["status", "--", "--runner=DataflowRunner"],
        "this command takes no -- options; found --runner=DataflowRunner",
    ),
    (["status", "--workspace", "http://x"], "only local paths and gs:// addresses are read"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG, ids=[" ".join(a).replace("\n", "?") for a, _ in WRONG]
)
def test_wrong_uses(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.startswith("perfnet: ")
    assert err.count("\n") == 1, err
    assert not (work / "perfnet-error.log").exists()


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


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.commands import COMMANDS

    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    "command", ["run", "prepare", "train", "evaluate", "fuse", "compare", "predict", "status", "demo"]
)
def test_help_of_each_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"perfnet {command}" in out.split("Example:")[1]


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
