"""A table from videos to results through the command line: stores, folds, trainings, rows; and nothing twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.samples import write_sample_videos

ROOT = Path(__file__).parents[1]
CONFIG = """
clips: {{folder: {videos}, group_pattern: '(g\\d+)_c', folds: 2}}
frames: {{shorter_side_px: 64}}
network: {{width: 0.1, blocks: [1, 1, 1, 1], stem_kernel: [3, 5, 5]}}
data: {{window_frames: 8, crop_height_px: 48, crop_width_px: 48}}
train: {{epochs: 1, batch_size: 4, learning_rate: 0.01, warmup_steps: 1, norm_momentum: 0.1}}
student: {{weight: 0.1}}
evaluate: {{frames: 8, crop_height_px: 48, crop_width_px: 48}}
"""
RECIPE = """
config: tiny.yaml
splits: [split_1, split_2]
baseline: RGB
draw: group
runs:
  rgb: {}
  flow: {}
  pose-black: {render.variant: black-bar-13-ratio}
  student-flow: {student.teachers: [flow]}
rows:
  RGB: {fuse: [rgb], paper: {top1: 80.4}}
  RGB+Pose on black: {fuse: [rgb, pose-black], paper: {top1: 79.9}}
  Student of Flow: {fuse: [student-flow], paper: {top1: 80.6}}
"""

pytestmark = pytest.mark.slow


def perfnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_table_from_videos_to_rows_and_nothing_twice(tmp_path: Path) -> None:
    write_sample_videos(tmp_path / "videos", clips_per_class=4)
    (tmp_path / "tiny.yaml").write_text(CONFIG.format(videos=tmp_path / "videos"))
    (tmp_path / "table.yaml").write_text(RECIPE)
    arguments = ("experiment", str(tmp_path / "table.yaml"), "--workspace", str(tmp_path / "ws"))

    planned = perfnet(*arguments, "--dry_run")
    assert planned.returncode == 0, planned.stderr
    assert "plan: render/black-bar-13-ratio: stale: not computed yet" in planned.stderr
    assert "plan: train table/student-flow-seed0-split_2: stale: never trained" in planned.stderr
    assert not (tmp_path / "ws" / "runs").exists()

    first = perfnet(*arguments, "--rows", "Student of Flow")
    assert first.returncode == 0, first.stderr
    runs = tmp_path / "ws" / "runs" / "table"
    assert {p.name for p in runs.iterdir()} == {
        f"{run}-seed0-split_{k}" for run in ("rgb", "flow", "student-flow") for k in (1, 2)
    }
    stamps = {p: p.stat().st_mtime_ns for p in runs.rglob("done.json")}

    second = perfnet(*arguments)
    assert second.returncode == 0, second.stderr
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    rows = second.stdout.splitlines()
    assert [line[:17].strip() for line in rows[1:4]] == ["RGB", "RGB+Pose on black", "Student of Flow"]
    document = json.loads((tmp_path / "ws" / "experiments" / "table" / "results.json").read_text())
    assert [row["clips"] for row in document["rows"]] == [24, 24, 24]

    third = perfnet(*arguments, "--quiet")
    assert third.stdout == second.stdout
    assert third.stderr == ""
