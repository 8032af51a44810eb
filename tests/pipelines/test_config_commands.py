"""perfnet init and perfnet config: what they write is what perfnet reads."""

import builtins
import io
import sys
from pathlib import Path

import pytest
import yaml

from pipelines import cli
from pipelines.config import load_config

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if "rows:" not in path.read_text())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("wave/scene1_a", "wave/scene2_a", "walk/scene1_b", "walk/scene2_b"):
        path = tmp_path / "my videos" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "my videos"


def sources(printed: str) -> dict[str, str]:
    """section.key → the comment beside it."""
    found, section = {}, ""
    for line in printed.splitlines():
        key, _, rest = line.partition(":")
        if not rest.strip():
            section = key
        else:
            name = f"{section}.{key.strip()}" if key.startswith(" ") else key
            found[name] = rest.rpartition("  # ")[2]
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_what_config_prints_is_the_configuration(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "config", "--config", str(recipe))
    assert code == 0
    (tmp_path / "printed.yaml").write_text(out)
    assert load_config(str(tmp_path / "printed.yaml")) == load_config(str(recipe))


def test_each_value_says_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERFNET_VIDEOS", "/from/environment")
    (tmp_path / "c.yaml").write_text(
        "# a comment\nclips:\n  folder: null\n\ntrain: {epochs: 3}\nevaluate:\n  'on': val\n"
    )
    _, out, _ = run(capsys, "config", "--config", "c.yaml", "--flow.bound_px", "15", "--workspace", "w # x")
    found = sources(out)
    assert found["clips.folder"] == "environment, PERFNET_VIDEOS"
    assert found["train.epochs"] == "c.yaml:5"
    assert found["evaluate.'on'"] == "c.yaml:7"
    assert found["flow.bound_px"] == "command line, --flow.bound_px"
    assert found["workspace"] == "command line, --workspace"
    assert {source for name, source in found.items() if name.startswith("frames.")} == {"default"}
    values = yaml.safe_load(out)
    assert values["workspace"] == "w # x"
    assert (values["clips"]["folder"], values["flow"]["bound_px"]) == ("/from/environment", 15)


def test_the_environment_gives_way_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERFNET_VIDEOS", "/videos")
    (tmp_path / "c.yaml").write_text("clips:\n  folder: /videos\n")
    assert sources(run(capsys, "config", "--config", "c.yaml")[1])["clips.folder"] == "c.yaml:2"


def test_config_refuses_what_run_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "config", "--flow.bound_pix", "3")
    assert (code, out) == (2, "")
    assert err == "perfnet: unknown key 'flow.bound_pix'; did you mean 'flow.bound_px'?\n"


def test_init_writes_a_configuration_that_reads_back(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = r"(scene\d+)_"
    code, out, _ = run(
        capsys, "init", "--videos", "my videos", "--group_pattern", pattern, "--test_share", "0.5"
    )
    assert code == 0
    assert "4 clips, 2 classes, 2 groups" in out
    config = load_config("perfnet.yaml")
    assert (config.clips.folder, config.clips.group_pattern) == ("my videos", pattern)
    assert (config.clips.test_share, config.workspace) == (0.5, "workspace")
    comments = [line for line in Path("perfnet.yaml").read_text().splitlines() if "#" in line]
    assert len(comments) > 15


def test_init_for_few_videos_writes_what_can_be_trained(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "init", "--videos", "my videos")[0] == 0
    assert load_config("perfnet.yaml").train.batch_size == 2
    for number in range(20):
        (videos / "wave" / f"more_{number}.mp4").touch()
    assert run(capsys, "init", "--videos", "my videos", "--force")[0] == 0
    assert load_config("perfnet.yaml").train.batch_size == 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--train.batch_size", "3"],
            "train.batch_size: found 3, but the train split has 2 clips; choose a smaller batch",
        ),
        (
            ["--data.split", "split_7"],
            "data.split: the clips table has no column 'split_7'; split columns: split",
        ),
    ],
)
def test_run_refuses_what_could_not_be_trained_before_any_work(
    videos: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    run(capsys, "init", "--videos", "my videos")
    code, _, err = run(capsys, "run", "--config", "perfnet.yaml", *flags, "--quiet")
    assert (code, err) == (2, f"perfnet: {message}\n")
    assert sorted(path.name for path in Path("workspace").iterdir() if path.is_dir()) == []


def test_init_replaces_nothing_unasked(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("perfnet.yaml").write_text("workspace: mine")
    code, _, err = run(capsys, "init", "--videos", "my videos")
    assert code == 2
    assert err == "perfnet: --output: perfnet.yaml exists; name another file or add --force\n"
    assert Path("perfnet.yaml").read_text() == "workspace: mine"
    assert run(capsys, "init", "--videos", "my videos", "--force")[0] == 0
    assert load_config("perfnet.yaml").workspace == "workspace"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--videos: name the folder of videos, as in `perfnet init --videos FOLDER`"),
        (["--videos", "nowhere"], "--videos: nowhere is not a folder"),
        (
            ["--videos", "my videos", "--test_share", "1"],
            "--test_share: found 1.0, expected at least 0, less than 1",
        ),
    ],
)
def test_init_refuses(
    videos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, _, err = run(capsys, "init", *arguments)
    assert (code, err) == (2, f"perfnet: {message}\n")
    assert not Path("perfnet.yaml").exists()


def test_init_asks_on_a_terminal(
    videos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    answers = iter(["", "my videos", ""])  # an empty answer without a default is asked again
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return next(answers)

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(builtins, "input", answer)
    assert run(capsys, "init")[0] == 0
    assert len(questions) == 3
    assert questions[2] == "workspace, for stores and results [workspace]: "
    assert load_config("perfnet.yaml").clips.folder == "my videos"
