"""docs/quickstart.ipynb runs from top to bottom over a small workspace, and is committed without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.samples import LABELS, write_sample_videos

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
TINY = """
clips: {{folder: {videos}, group_pattern: '(g\\d+)_c', test_pattern: 'g\\d*[13579]$'}}
frames: {{shorter_side_px: 64}}
network: {{width: 0.1, blocks: [1, 1, 1, 1], stem_kernel: [3, 5, 5]}}
data: {{window_frames: 8, crop_height_px: 48, crop_width_px: 48}}
train: {{epochs: 1, batch_size: 3, learning_rate: 0.01, warmup_steps: 1}}
evaluate: {{frames: 8, crop_height_px: 48, crop_width_px: 48}}
"""


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_it_holds_no_outputs() -> None:
    for cell in code_cells():
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        compile("".join(cell["source"]), str(NOTEBOOK), "exec")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook")
    write_sample_videos(folder / "videos", clips_per_class=2)
    config = folder / "tiny.yaml"
    config.write_text(TINY.format(videos=folder / "videos"))
    place = ("--config", str(config), "--workspace", str(folder / "ws"))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "run", *place],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "ws"


@pytest.mark.slow
def test_it_runs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PERFNET_WORKSPACE", str(workspace))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # The folder is that of the notebook, as in Jupyter.
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pictures = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 3  # frames, pose, flow
    printed = "".join(o.text for cell in cells for o in cell.outputs if o.output_type == "stream")
    assert "frames of 80 x 64 px" in printed
    assert "right: " + LABELS[0] in printed
    for label in LABELS:
        assert label in cells[-2].outputs[-1]["data"]["text/plain"]
    assert "student" in cells[-1].outputs[-1]["data"]["text/plain"]
