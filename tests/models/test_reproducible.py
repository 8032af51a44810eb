"""The same seed gives the same weights, whatever happens in between: real processes, really killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
# Loader processes, dropout, random windows, validation and frequent checkpoints: all that has a state.
SCRIPT = """
import sys
from dataclasses import replace
from moving_squares import SMALL, with_train
from models.train import train

options = with_train(SMALL, epochs=4, checkpoint_minutes=1e-9, accumulate=2)
options = replace(
    options,
    network=replace(SMALL.network, dropout=0.3),
    data=replace(SMALL.data, mirror=0.5, brightness=0.2, contrast=0.3, workers=int(sys.argv[2])),
)
if __name__ == "__main__":
    train("rgb", workspace=sys.argv[1], options=options, progress=lambda line: print(line, flush=True))
"""


@pytest.fixture
def start(workspace, tmp_path):
    """Starts a training in a process of its own."""
    script = tmp_path / "go.py"
    script.write_text(SCRIPT)
    path = f"{ROOT}:{Path(__file__).parent}"
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def begin(workers: int) -> subprocess.Popen:
        command = [sys.executable, str(script), str(workspace), str(workers)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    return begin


def weights_of(process, workspace):
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 0
    return load_checkpoint(str(workspace / "runs" / "rgb" / "checkpoints" / "final.pt")).weights, out


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_killed_in_the_middle_of_an_epoch_goes_on_to_the_same_weights(
    workspace, start, tmp_path, workers
):
    """Four epochs of three steps: SIGKILL at the first new checkpoint, twice, then on to the end."""
    whole, _ = weights_of(start(workers), workspace)
    (workspace / "runs").rename(tmp_path / "whole")
    for _ in range(2):
        process = start(workers)
        step = kill_in_an_epoch(process, workspace)
    resumed, out = weights_of(start(workers), workspace)
    assert f"going on from step {step}" in out
    assert equal(whole, resumed)


def kill_in_an_epoch(process, workspace) -> int:
    """Kills the process as soon as a new checkpoint lies there; returns the checkpoint's step."""
    path = workspace / "runs" / "rgb" / "checkpoints" / "last.ckpt"
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None:
        if path.exists() and path.stat().st_mtime_ns != before:
            process.send_signal(signal.SIGKILL)
            process.wait()
            step = int(torch.load(path, weights_only=True)["global_step"])
            return step
        time.sleep(0.002)
    raise AssertionError("the training ended before it could be killed")
