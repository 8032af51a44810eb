"""Airflow and perfnet in environments of their own: each lacks what only the other has."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from serving import ROOT
from synthetic_videos import steady_times, write_video

from stores.store import Store

pytestmark = pytest.mark.slow

_LACKS = """
import sys
class Lacks:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)
sys.meta_path.insert(0, Lacks())
"""
_OF_PERFNET = (
    "pipelines",
    "stores",
    "transforms",
    "models",
    "apache_beam",
    "mediapipe",
    "torch",
    "cv2",
    "av",
)
_TASKS = """
import sys
sys.path[:0] = [{dags!r}, {tests!r}]
import perfnet_prepare
from fake_context import context_of
def run(task, **context):
    return perfnet_prepare.dag.get_task(task).execute(context_of(config={config!r}, **context))
print(run("check"), run("plan_frames"), run("frames", pulled="stale"), sep="\\n")
"""


@pytest.fixture
def perfnets_own(tmp_path: Path) -> Path:
    """An interpreter of another environment, which has what this one has but Airflow, and notes that it was used."""
    venv.create(tmp_path / "venv", symlinks=True)
    site = (
        tmp_path
        / "venv"
        / "lib"
        / f"python{sys.version_info.major}.{sys.version_info.minor}"
        / "site-packages"
    )
    (site / "main.pth").write_text(sysconfig.get_path("purelib"))
    note = f"open({str(tmp_path / 'used')!r}, 'a').write(sys.prefix + '\\n')\n"
    (site / "sitecustomize.py").write_text(_LACKS.format(names=("airflow",)) + note)
    return tmp_path / "venv" / "bin" / "python"


def test_each_side_needs_nothing_of_the_other(perfnets_own: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("a", "b"):
        (videos / name).mkdir(parents=True)
        write_video(videos / name / f"{name}.mp4", steady_times(4))
    config = tmp_path / "c.yaml"
    config.write_text(
        f"workspace: {tmp_path / 'ws'}\nclips: {{folder: {videos}}}\n"
        "frames: {shorter_side_px: 48}\nrun: {workers: 1}\n"
    )
    code = _LACKS.format(names=_OF_PERFNET) + _TASKS.format(
        dags=str(ROOT / "dags"), tests=str(Path(__file__).parent), config=str(config)
    )
    env = {**os.environ, "PERFNET_PYTHON": str(perfnets_own), "PERFNET_HOME": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    variants, plan, done = run.stdout.splitlines()[-3:]
    assert json.loads(variants.replace("'", '"')) == [""]
    assert plan.startswith("cost: frames: ")
    assert done.startswith("frames: ")
    assert Store(str(tmp_path / "ws"), "frames").require_snapshot().totals["clips"] == 2
    assert set((tmp_path / "used").read_text().splitlines()) == {str(tmp_path / "venv")}
