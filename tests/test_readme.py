"""Every command of the README is run, in order, as a reader would type it.

The blocks run in one folder, by a shell, through stand-ins on the PATH:

* `perfnet` is the real command line with networks, pictures and sample videos made tiny by overrides;
* `python -m pipelines.drawn_videos` draws two short clips a motion;
* `make` only shows that its target does what the README says: `make demo` then runs `perfnet demo`; the tests and
  Airflow are run by `make test` and by tests/dags;
* commands with gs:// are not run, because they need a cloud: tests/test_docs.py parses them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown import ROOT, blocks, commands

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks(README, "sh")
RUN_BY_OTHERS = ("make test", "make airflow")

TINY = """
--frames.shorter_side_px 64 --network.width 0.1 --network.blocks [1,1,1,1] --network.stem_kernel [3,5,5]
--data.window_frames 8 --data.crop_height_px 48 --data.crop_width_px 48 --data.stride_frames 1
--train.epochs 1 --train.batch_size 2 --train.recalibration_batches 0 --train.threads 1
--evaluate.frames 8 --evaluate.crop_height_px 48 --evaluate.crop_width_px 48 --evaluate.stride_frames 1
"""

PERFNET = """\
import functools, inspect, sys
from pipelines import cli, samples
from pipelines.commands import COMMANDS

samples.write_sample_videos = functools.partial(samples.write_sample_videos, clips_per_class=2)
arguments = sys.argv[1:]
ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
found = COMMANDS.get(arguments[0])
tiny = TINY if callable(found) and "overrides" in inspect.signature(found).parameters else []
tiny = [] if arguments[0] in ("experiment", "config") else tiny
cli.main([*ours, *tiny, *arguments[len(ours) :]])
"""

PYTHON = """\
import functools, sys
from pipelines import drawn_videos

assert sys.argv[1:3] == ["-m", "pipelines.drawn_videos"], sys.argv
drawn_videos.write_drawn_videos = functools.partial(
    drawn_videos.write_drawn_videos, clips_per_motion=2, duration_s=0.8
)
drawn_videos.main(sys.argv[3:])
"""

MAKE = """\
#!/bin/sh
case "$1" in
  demo) exec perfnet demo ;;
  test|airflow) ;;
  *) echo "no stand-in for make $1" >&2; exit 9 ;;
esac
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place that looks like a checkout to the commands, with a user's videos in it."""
    from pipelines.samples import write_sample_videos

    folder = tmp_path_factory.mktemp("readme")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    made = folder / "made"
    written = write_sample_videos(made, clips_per_class=4)
    for label in ("rise", "sway"):
        shutil.copytree(made / label, folder / "videos" / label)
    shutil.copy(written[0].path, folder / "new.mp4")
    table = "".join(f"{video.path},{video.label}\n" for video in written)
    (folder / "labels.csv").write_text("uri,label\n" + table)
    for index, video in enumerate(written):
        name = f"set{1 + index % 2}_seq{1 + index % 10:02d}_{index:03d}.mp4"
        place = folder / "ut_interaction" / video.label / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(video.path)
    _stand_ins(folder / "bin")
    return folder


def _stand_ins(folder: Path) -> None:
    folder.mkdir()
    for name, code in (("perfnet", PERFNET), ("python", PYTHON)):
        (folder / f"{name}.py").write_text(code.replace("TINY", repr(TINY.split()), 1))
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/{name}.py" "$@"\n')
    (folder / "make").write_text(MAKE)
    for name in ("perfnet", "python", "make"):
        (folder / name).chmod(0o755)


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_targets_of_make_do_what_the_readme_says() -> None:
    expected = {
        "demo": ".venv/bin/perfnet demo",
        "airflow": "dags/serve.sh 8080",
        "test": ".venv/bin/pytest ",
    }
    for target, line in expected.items():
        # Called from `make test-all`, make would also say which directory it enters and leaves.
        dry = ["make", "--no-print-directory", "-n", target]
        shown = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True)
        assert shown.stdout.strip().splitlines()[-1].removeprefix("@").startswith(line)


def test_make_runs_the_demo(folder: Path) -> None:
    """First, whatever the order of the blocks: later ones look at what it makes."""
    done = shell("make demo", folder)
    assert done.returncode == 0, done.stderr
    assert [
        line.split()[0] for line in done.stdout.splitlines() if line.startswith(("rgb ", "student "))
    ] == [
        "rgb",
        "student",
    ]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:50])
def test_every_command_runs(block: str, folder: Path) -> None:
    """In order: what an earlier block has made, a later one looks at."""
    for line in commands(block):
        if "gs://" in line or line in ("make demo", *RUN_BY_OTHERS):
            continue
        done = shell(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, line


def test_the_plan_is_the_real_one(folder: Path) -> None:
    """The printed plan is what the command above it prints."""
    (shown,) = blocks(README, "text")
    line = next(command for block in BLOCKS for command in commands(block) if "--dry_run" in command)
    printed = shell(line, folder)
    plans = [text for text in printed.stderr.splitlines() if text.startswith("plan: ")]
    assert plans == shown.strip().splitlines()


def test_the_files_that_are_named_are_made(folder: Path) -> None:
    for name in ("demo/workspace/reports/report.html", "work/reports/report.html", "look.webp"):
        assert (folder / name).stat().st_size > 10_000, name
    for name in ("sheet.png", "people.json", "g01_c01.mp4", "g01_c01.png"):
        assert (folder / name).stat().st_size > 0, name
