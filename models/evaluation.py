"""Judges trained runs by one central crop a clip.

Shape legend: B clips, N classes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.callbacks import Progress
from models.checkpoint import Checkpoint, load_checkpoint
from models.data import AlignedWindows, CentralWindows, batches_in_order
from models.hardware import autocast, device, use_threads
from models.lines import Passing
from models.options import ModelOptions
from models.predictions import Metrics, Predictions, measure, write_confusion, write_predictions
from models.runs import RunFolder, evaluation_document, other_stores, select_evaluation
from models.selection import LabelledClip
from models.streams import network_input
from stores import keys


def evaluate(
    run: str, *, workspace: str, options: ModelOptions, progress: Progress = lambda line: None
) -> Metrics:
    """Predicts the clips of `evaluate.on` with a trained run; writes predictions, confusion and metrics.

    Raises:
        ValueError: the run is not trained, has seen a clip on which it would be judged, does not know a label,
            has learnt from other stores, or there is no clip to judge it by.
    """
    folder = RunFolder(workspace, run)
    use_threads(options.train.threads)
    document = evaluation_document(run, workspace=workspace, options=options)
    checkpoint = load_checkpoint(folder.checkpoint)
    selection = select_evaluation(run, workspace=workspace, options=options)
    clips = selection.require(options.evaluate.on, options.data.split)
    _check_unseen(folder, clips)
    other = other_stores(folder, selection)
    if other:
        raise ValueError(
            f"run {run} was trained on other stores than it would be judged on ({other[0]}); run `perfnet train {run}`"
        )
    classes = _classes(clips, checkpoint, run)
    dataset = AlignedWindows(
        {checkpoint.stream: selection.readers[checkpoint.stream]},
        clips,
        choose=CentralWindows(options.evaluate),
    )

    def count(done: int) -> None:
        progress(Passing(f"{run}: {done} of {len(clips)} clips"))

    logits_BN = _logits(checkpoint, dataset, options, count)
    found = Predictions(checkpoint.labels, [c.clip_id for c in clips], classes, logits_BN)
    write_predictions(folder, found)
    write_confusion(folder, found)
    metrics = measure(found)
    folder.put_json("metrics.json", metrics)
    folder.put_json("evaluation.json", {"key": keys.digest(document), "document": document})
    return metrics


def _check_unseen(folder: RunFolder, clips: Sequence[LabelledClip]) -> None:
    trained_on = {clip_id for clip_id, row in folder.clips().items() if row["split"] == "train"}
    seen = [clip.clip_id for clip in clips if clip.clip_id in trained_on]
    if seen:
        raise ValueError(
            f"run {folder.run} was trained on {len(seen)} of the clips that would judge it, the first is {seen[0]!r}; "
            f"run `perfnet train {folder.run}`"
        )


def _classes(clips: Sequence[LabelledClip], checkpoint: Checkpoint, run: str) -> NDArray[np.int64]:
    index = {label: i for i, label in enumerate(checkpoint.labels)}
    for clip in clips:
        if clip.label not in index:
            raise ValueError(
                f"clip {clip.clip_id!r} has the label {clip.label!r}, which run {run} was not trained on; "
                f"run `perfnet train {run}`"
            )
    return np.array([index[clip.label] for clip in clips], np.int64)


@torch.inference_mode()
def _logits(
    checkpoint: Checkpoint, dataset: AlignedWindows, options: ModelOptions, progress: Callable[[int], None]
) -> NDArray[np.float32]:
    network = checkpoint.build().to(device())
    found: list[NDArray[np.float32]] = []
    with autocast(options.train.precision):
        size, workers = options.evaluate.batch_size, options.data.workers
        for batch in batches_in_order(dataset, size, workers=workers):
            on_device = {k: v.to(device()) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            logits_BN = network(network_input(on_device, checkpoint.stream, checkpoint.normalisation))
            found.append(logits_BN.float().cpu().numpy())
            done = sum(map(len, found))
            if done // 100 > (done - len(logits_BN)) // 100:
                progress(done)
    return np.concatenate(found)
