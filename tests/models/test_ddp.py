"""Trainings in two processes of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from moving_squares import SMALL, put_workspace, squares, with_train

from models.checkpoint import load_checkpoint
from models.ranks import Ranks, spawn
from models.streams import LossNotFinite
from models.train import train
from stores.checks import StageFailed

TWO = with_train(SMALL, devices=2, freeze_norm=True)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Two processes also where there is one GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def fit(run, workspace, options):
    lines = []
    path = train(run, workspace=str(workspace), options=options, progress=lines.append)
    return load_checkpoint(str(path)).weights, lines


def largest_difference(first, second):
    return max(float((first[n] - second[n]).abs().max()) for n in first if first[n].is_floating_point())


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_the_same_batch(workspace, tmp_path):
    """Within 1e-4 over 20 steps; one process with a batch of another size is far away."""
    options = with_train(SMALL, freeze_norm=True, steps=20, epochs=1)
    alone, _ = fit("rgb", workspace, options)
    (workspace / "runs").rename(tmp_path / "alone")
    together, lines = fit("rgb", workspace, with_train(options, devices=2, checkpoint_minutes=1e-9))
    assert "20 steps of 4 on 2 devices" in lines[0]
    assert largest_difference(alone, together) < 1e-4
    (workspace / "runs").rename(tmp_path / "together")
    other, _ = fit("rgb", workspace, with_train(options, batch_size=6))
    assert largest_difference(alone, other) > 1e-3


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_uneven_shares_of_the_clips_never_make_one_process_wait(tmp_path):
    """13 training clips and 3 to validate by: no share of either is like the other, and both end."""
    clips = (
        squares(4, split="train") + squares(1, split="val", seed=2) + squares(1, split="train", seed=3)[:1]
    )
    clips[-1] = type(clips[-1])("train/extra", "down", "train", seed=77)
    workspace = put_workspace(tmp_path, clips)
    weights, lines = fit("flow", workspace, with_train(SMALL, devices=2, epochs=2, recalibration_batches=1))
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert "13 training clips" in lines[0]
    rows = (workspace / "runs" / "flow" / "metrics.csv").read_text()
    accuracies = {float(row.split(",")[2]) for row in rows.splitlines() if ",val/accuracy," in row}
    assert accuracies <= {round(k / 3, 6) for k in range(4)} | {0.333333, 0.666667}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_one_process_that_diverges_ends_the_training_and_names_the_clips(workspace):
    with pytest.raises(LossNotFinite, match=r"the loss is (nan|inf) at step \d+ on the clips train/"):
        fit("rgb", workspace, with_train(TWO, learning_rate=100.0, epochs=40, warmup_steps=0))
    assert len(json.loads((workspace / "runs" / "rgb" / "not_finite.json").read_text())["clip_ids"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_torchrun_starts_the_processes_as_well(workspace):
    """As on several machines, where each is told who it is; a batch that two cannot share is refused in words."""
    code = (
        "from moving_squares import SMALL, with_train; from models.train import train; import sys;"
        f"train('rgb', workspace={str(workspace)!r}, options=with_train(SMALL, steps=2), progress=print)"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    script = workspace / "go.py"
    script.write_text(code)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout.count("2 steps of 4 on 2 devices") == 1
    assert (workspace / "runs" / "rgb" / "done.json").exists()


def refuses(say, ranks: Ranks):
    say(f"process {ranks.rank} of {ranks.world}")
    if ranks.rank == 1:
        raise ValueError("data.split: nothing there")
    torch.distributed.init_process_group("gloo")  # waits for the other, which never comes


def dies(say, ranks: Ranks):
    if ranks.rank == 1:
        os.abort()
    torch.distributed.init_process_group("gloo")


@pytest.mark.timeout(120)
def test_a_process_that_refuses_ends_the_others_and_its_words_are_handed_on():
    with pytest.raises(ValueError, match=r"^data.split: nothing there$"):
        spawn(refuses, processes=2, progress=lambda line: None)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_process_that_dies_ends_the_others():
    with pytest.raises(StageFailed, match=r"a process of the training ended with -6"):
        spawn(dies, processes=2, progress=lambda line: None)
