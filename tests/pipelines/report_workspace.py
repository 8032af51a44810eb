"""A small workspace for the report: stores, a rejected clip, runs that were judged; with the names of an attacker."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from moving_squares import put_store, squares

from models.predictions import Predictions, write_predictions
from models.runs import RunFolder
from stores import files
from stores.clips import make_clips, write_clips
from stores.rejections import Rejection
from stores.store import Store
from stores.summaries import ShardReference, ShardSummary

HOSTILE_CLIP = "<img src=x onerror=alert(1)>"
LABELS = ["$x_1$ & \"quoted\" 'label'", "</style></svg><script>alert(2)</script>", "плавание ✓"]
REJECTED_CLIP = "broken\" onmouseover='alert(3)"
RUNS = ("rgb", "pose", "flow", "student")


def put_report_workspace(folder: Path, *, trained: bool = True) -> str:
    """Six test and six train clips of three classes; the first test clip has a hostile name.

    Of the six test clips rgb gets one of each class right, flow the first class and one of each other, the student
    all, and pose none.
    """
    test, train = squares(2, split="test", frames=12), squares(2, split="train", frames=12)
    test[0] = replace(test[0], clip_id=HOSTILE_CLIP)
    clips = [*test, *train]
    class_of = {clip.clip_id: sorted(("down", "left", "right")).index(clip.label) for clip in clips}
    rows = [
        {
            "clip_id": c.clip_id,
            "uri": "x.mp4",
            "label": LABELS[class_of[c.clip_id]],
            "split": c.split,
            "group": c.clip_id[:3],
        }
        for c in clips
    ]
    rows.append({"clip_id": REJECTED_CLIP, "uri": "y.mp4", "label": LABELS[0], "split": "train"})
    write_clips(str(folder), make_clips(rows))
    for name in ("frames", "pose", "render/rgb-bar-13-ratio", "flow"):
        put_store(folder, name, clips, spec={"fps": 25.0} if name == "frames" else {"bound_px": 8.0})
    _reject(str(folder))
    if trained:
        _judge(str(folder), sorted((c.clip_id, class_of[c.clip_id]) for c in test))
    return str(folder)


def _reject(workspace: str) -> None:
    """Adds a rejected clip to the frames store."""
    store = Store(workspace, "frames")
    snapshot = store.require_snapshot()
    (shard,) = snapshot.shards
    summary = store.summary(shard.summary)
    assert isinstance(summary, ShardSummary)
    rejection = Rejection(
        REJECTED_CLIP, "0" * 64, "data", "damaged", "line one\n<b>moov</b> atom\x1b[31m not found"
    )
    summary = replace(summary, rejected=(rejection,))
    reference = ShardReference.of(summary, store.put_summary(summary))
    store.put_snapshot(replace(snapshot, shards=(reference,)))


def _judge(workspace: str, clips: list[tuple[str, int]]) -> None:
    """Predictions and a learning curve of each run."""
    classes = np.array([index for _, index in clips])
    nth = np.array([(classes[:i] == c).sum() for i, c in enumerate(classes)])
    right = {"rgb": nth == 0, "pose": nth < 0, "flow": (nth == 0) | (classes == 0), "student": nth >= 0}
    labels = sorted(LABELS)
    place = np.array([labels.index(label) for label in LABELS])
    for run in RUNS:
        guesses = np.where(right[run], classes, (classes + 1) % 3)
        logits = np.eye(3, dtype=np.float32)[place[guesses]]
        found = Predictions(labels, [clip_id for clip_id, _ in clips], place[classes], logits)
        write_predictions(RunFolder(workspace, run), found)
        rows = [
            f"{step},train/{m},{value}"
            for step in range(1, 9)
            for m, value in (("accuracy", step / 8), ("loss", 1 / step))
        ]
        curve = "\n".join(["step,metric,value", *rows, "8,val/accuracy,0.5", "8,val/loss,0.7", ""])
        files.put_bytes(files.join(workspace, "runs", run, "metrics.csv"), curve.encode())
