import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from moving_squares import SMALL, put_clips, put_store, put_workspace, squares, with_train

from models.evaluation import evaluate
from models.predictions import fuse, measure, read_predictions
from models.runs import evaluation_stale_reason
from models.train import train


def judge(run, workspace, options=SMALL):
    return evaluate(run, workspace=str(workspace), options=options)


def stale(run, workspace, options=SMALL):
    return evaluation_stale_reason(run, workspace=str(workspace), options=options)


@pytest.fixture
def trained(workspace):
    train("flow", workspace=str(workspace), options=SMALL)
    return workspace


def test_evaluation_writes_predictions_that_give_its_metrics(trained):
    metrics = judge("flow", trained)
    folder = trained / "runs" / "flow"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    table = pq.read_table(folder / "predictions.parquet")
    assert table.column_names == ["clip_id", "logits", "label"]
    assert table["clip_id"].to_pylist() == sorted(c.clip_id for c in squares(2, split="test"))
    assert measure(read_predictions("flow", workspace=str(trained))) == metrics
    assert measure(fuse({"flow": 1.0}, workspace=str(trained))) == metrics
    rows = list(csv.reader((folder / "confusion.csv").open()))
    assert rows[0] == ["true", "down", "left", "right"]
    counts_NN = np.array([row[1:] for row in rows[1:]], int)
    assert (counts_NN.sum(), counts_NN.trace() / 6) == (6, pytest.approx(metrics["top1"]))


def test_the_batch_size_changes_no_prediction(trained):
    judge("flow", trained)
    whole = read_predictions("flow", workspace=str(trained)).logits_BN
    judge("flow", trained, replace(SMALL, evaluate=replace(SMALL.evaluate, batch_size=1)))
    single = read_predictions("flow", workspace=str(trained)).logits_BN
    np.testing.assert_allclose(single, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_loader_processes_change_no_prediction(trained):
    judge("flow", trained)
    alone = read_predictions("flow", workspace=str(trained)).logits_BN
    judge("flow", trained, replace(SMALL, data=replace(SMALL.data, workers=2)))
    assert np.array_equal(read_predictions("flow", workspace=str(trained)).logits_BN, alone)


def test_a_network_that_has_learnt_is_found_to_be_right(tmp_path):
    """The flow of each class is one constant: anything that trains at all tells them apart."""
    workspace = put_workspace(tmp_path, squares(6, split="train") + squares(3, split="test", seed=1))
    crop = {"crop_height_px": 32, "crop_width_px": 32}
    options = replace(
        with_train(SMALL, epochs=25, recalibration_batches=9),
        evaluate=replace(SMALL.evaluate, frames=6, **crop),
    )
    train("flow", workspace=str(workspace), options=options)
    metrics = judge("flow", workspace, options)
    assert metrics["top1"] == 1.0
    assert metrics["p_value"] == pytest.approx(3.0**-9)


def test_an_evaluation_is_fresh_until_something_changes(trained):
    assert stale("flow", trained) == "never evaluated"
    judge("flow", trained)
    assert stale("flow", trained) is None
    longer = replace(SMALL, evaluate=replace(SMALL.evaluate, frames=9))
    assert stale("flow", trained, longer) == "evaluate.frames: was 8, is 9"
    clips = squares(4, split="train") + squares(3, split="test", seed=1)
    put_clips(trained, clips)
    put_store(trained, "flow", clips)
    assert stale("flow", trained) == "the test clips have changed"


def test_training_again_makes_the_evaluation_stale(trained):
    judge("flow", trained)
    options = with_train(SMALL, seed=5)
    train("flow", workspace=str(trained), options=options)
    assert stale("flow", trained, options) == "the run was trained again"


def test_a_run_that_is_not_trained_or_not_evaluated_says_what_to_run(trained):
    with pytest.raises(ValueError, match="run rgb is not trained; run `perfnet train rgb`"):
        judge("rgb", trained)
    with pytest.raises(ValueError, match="run flow is not evaluated; run `perfnet evaluate flow`"):
        fuse({"flow": 1.0}, workspace=str(trained))


def test_clips_that_were_trained_on_do_not_judge(trained):
    clips = squares(4, split="train") + squares(2, split="test", seed=1)
    put_clips(trained, [replace(c, split="test") if c.clip_id == "train/left-02" else c for c in clips])
    with pytest.raises(ValueError, match=r"run flow was trained on 1 of the clips .*'train/left-02'"):
        judge("flow", trained)


def test_a_label_that_was_not_trained_is_named(trained):
    clips = squares(4, split="train") + squares(2, split="test", seed=1)
    rows = [replace(c, label="up") if c.clip_id == "test/left-01" else c for c in clips]
    put_clips(trained, rows)
    with pytest.raises(
        ValueError, match=r"'test/left-01' has the label 'up', which run flow was not trained on"
    ):
        judge("flow", trained)
