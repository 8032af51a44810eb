"""Trains one run of a workspace: selects its clips, fits its network, writes its checkpoint."""

import logging
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from models.callbacks import BestWeights, MetricsFile, Progress, ProgressLines, ResumeCheckpoints
from models.checkpoint import Checkpoint, build_network, load_checkpoint
from models.data import AlignedWindows, Batch, CentralWindows, EpochBatches, RandomWindows, training_loader
from models.distill import DistilledClassifier, Teacher
from models.hardware import autocast, lightning_precision, use_threads
from models.normalisation import normalisation_of
from models.options import ModelOptions
from models.recalibration import recalibrate
from models.runs import (
    RunFolder,
    options_of,
    select_run,
    streams_of,
    teachers_of,
    training_clips,
    training_document,
)
from models.selection import Selection
from models.streams import StreamClassifier
from stores import files, keys
from stores.reader import StoreReader

_LOG_EVERY_STEPS = 10


@dataclass(frozen=True)
class _Plan:
    """What is about to be trained.

    Attributes:
        batches: of one epoch.
        total_steps: of the whole training.
        resumed_step: steps that an earlier, interrupted training has done.
    """

    folder: RunFolder
    options: ModelOptions
    selection: Selection
    key: str
    batches: EpochBatches
    total_steps: int
    resumed_step: int


def train(run: str, *, workspace: str, options: ModelOptions, progress: Progress = lambda line: None) -> Path:
    """Trains a run and returns the path of its checkpoint.

    An interrupted training of the same key goes on from its last checkpoint; anything else starts anew.

    Args:
        run: rgb, pose, flow or student.
        progress: receives short lines of text.

    Raises:
        ValueError: an unknown run, stores that do not fit together, an empty train split, fewer train clips than
            a batch, teachers that are missing, do not fit or have seen test clips.
        LossNotFinite: the training has diverged.
    """
    folder = RunFolder(workspace, run)
    if not files.is_local(workspace):
        raise ValueError(
            f"workspace: {workspace} is not local; training writes its runs to a local workspace"
        )
    options = options_of(run, options)
    use_threads(options.train.threads)
    teachers = _load_teachers(run, workspace, options)
    selection = select_run(run, workspace=workspace, options=options)
    _check_teachers(teachers, selection, folder)
    plan = _prepare(folder, options, selection)
    _announce(plan, progress)
    pins = {name: data for reader in selection.readers.values() for name, data in reader.pins.items()}
    folder.put_json("pins.json", {"stores": pins})
    try:
        with _quiet():
            module = _fit(plan, teachers, progress)
        return _finish(plan, module)
    finally:
        files.remove(folder.uri("pins.json"))


def _load_teachers(run: str, workspace: str, options: ModelOptions) -> dict[str, Checkpoint]:
    found = {}
    for teacher in teachers_of(run, options):
        folder = RunFolder(workspace, teacher)
        if folder.done is None:
            raise ValueError(f"student.teachers: {teacher} is not trained; run `perfnet train {teacher}`")
        found[teacher] = load_checkpoint(folder.checkpoint)
    return found


def _check_teachers(teachers: Mapping[str, Checkpoint], selection: Selection, student: RunFolder) -> None:
    """Refuses teachers of other classes, and those that have learnt from clips on which the student is judged."""
    judged = {clip.clip_id for split in ("val", "test") for clip in selection.by_split[split]}
    for name, checkpoint in teachers.items():
        if list(checkpoint.labels) != list(selection.labels):
            odd = sorted(set(checkpoint.labels) ^ set(selection.labels))[:3]
            raise ValueError(
                f"student.teachers: {name} was trained on {len(checkpoint.labels)} classes, the clips table has "
                f"{len(selection.labels)} (not in both: {', '.join(odd)}); run `perfnet train {name}`"
            )
        seen = RunFolder(student.workspace, name).clips()
        leaked = sorted(clip_id for clip_id in judged if seen.get(clip_id, {}).get("split") == "train")
        if leaked:
            raise ValueError(
                f"student.teachers: {name} was trained on {len(leaked)} clips of the student's val or test split, "
                f"the first is {leaked[0]!r}; run `perfnet train {name}`"
            )


def _prepare(folder: RunFolder, options: ModelOptions, selection: Selection) -> _Plan:
    clips = selection.require("train", options.data.split)
    batch_size = options.train.batch_size
    if len(clips) < batch_size:
        raise ValueError(
            f"train.batch_size: found {batch_size}, but the train split has {len(clips)} clips; choose a smaller batch"
        )
    document = training_document(folder.run, workspace=folder.workspace, options=options, selection=selection)
    key = keys.digest(document)
    resumed_step = _resumable_step(folder, key)
    if not resumed_step:
        for uri in (folder.resume, folder.checkpoint, folder.uri("done.json")):
            files.remove(uri)
        folder.put_clips(training_clips(selection))
        folder.put_json("key.json", {"key": key, "document": document})
    batches = EpochBatches(len(clips), batch_size=batch_size, seed=options.train.seed)
    batches.start = resumed_step % len(batches)
    total_steps = options.train.steps or options.train.epochs * len(batches)
    return _Plan(folder, options, selection, key, batches, total_steps, resumed_step)


def _resumable_step(folder: RunFolder, key: str) -> int:
    """Steps done by an interrupted training of the same key; 0 where there is none."""
    started = folder.read_json("key.json")
    if not started or started.get("key") != key or folder.done or not files.exists(folder.resume):
        return 0
    try:
        state = torch.load(files.local_path(folder.resume), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError):
        return 0
    return int(state["global_step"])


def _announce(plan: _Plan, progress: Progress) -> None:
    train_clips = len(plan.selection.by_split["train"])
    left_out = f", {plan.selection.missing} clips are not in all stores" if plan.selection.missing else ""
    went_on = f", going on from step {plan.resumed_step}" if plan.resumed_step else ""
    precision = lightning_precision(plan.options.train.precision)
    progress(
        f"{plan.folder.run}: {train_clips} training clips, {len(plan.selection.labels)} classes, "
        f"{plan.total_steps} steps of {plan.options.train.batch_size}, {precision}{left_out}{went_on}"
    )


def _module(plan: _Plan, teachers: Mapping[str, Checkpoint]) -> StreamClassifier:
    options = plan.options
    stream = streams_of(plan.folder.run, options)[0]
    normalisation = normalisation_of(stream)
    torch.manual_seed(options.train.seed)
    network = build_network(
        options.network,
        num_classes=len(plan.selection.labels),
        in_channels=normalisation.channels,
        norm_momentum=options.train.norm_momentum,
    )
    shared: dict[str, Any] = {
        "stream": stream,
        "normalisation": normalisation,
        "options": options.train,
        "total_steps": plan.total_steps,
    }
    if not teachers:
        return StreamClassifier(network, **shared)
    taught_by = {name: Teacher.of(checkpoint) for name, checkpoint in teachers.items()}
    return DistilledClassifier(network, teachers=taught_by, student=options.student, **shared)


def _windows(plan: _Plan) -> AlignedWindows:
    data = plan.options.data
    return AlignedWindows(
        plan.selection.readers,
        plan.selection.by_split["train"],
        choose=RandomWindows(data, plan.options.train.seed),
        cache_mb=data.cache_mb,
    )


def _validation(plan: _Plan) -> DataLoader | None:
    clips = plan.selection.by_split["val"]
    if not clips:
        return None
    evaluate = plan.options.evaluate
    dataset = AlignedWindows(plan.selection.readers, clips, choose=CentralWindows(evaluate))
    places = [(0, index) for index in range(len(clips))]
    size = evaluate.batch_size
    return DataLoader(dataset, batch_sampler=[places[i : i + size] for i in range(0, len(places), size)])


def _fit(plan: _Plan, teachers: Mapping[str, Checkpoint], progress: Progress) -> StreamClassifier:
    """Runs all steps that are left, takes the best weights where there is a val split, recalibrates."""
    options, windows, validation = plan.options, _windows(plan), _validation(plan)
    module = _module(plan, teachers)
    best = BestWeights()
    metrics = MetricsFile(plan.folder.uri("metrics.csv"), resumed_step=plan.resumed_step)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        precision=lightning_precision(options.train.precision),
        max_steps=plan.total_steps,
        logger=[metrics, _tensorboard(plan)],
        callbacks=[
            ProgressLines(
                plan.folder.run,
                progress,
                total_steps=plan.total_steps,
                batch_size=options.train.batch_size,
            ),
            ResumeCheckpoints(
                plan.folder.resume, minutes=options.train.checkpoint_minutes, before=metrics.flush
            ),
            *([best] if validation else []),
        ],
        check_val_every_n_epoch=options.train.validate_epochs,
        log_every_n_steps=min(_LOG_EVERY_STEPS, len(plan.batches)),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=plan.folder.uri(),
    )
    resume = files.local_path(plan.folder.resume) if plan.resumed_step else None
    loader = training_loader(windows, plan.batches, workers=options.data.workers)
    trainer.fit(module, loader, validation, ckpt_path=resume, weights_only=True)
    if best.weights is not None:
        module.network.load_state_dict(best.weights)
    elif options.train.recalibration_batches:
        with autocast(options.train.precision):
            recalibrate(module, _recalibration(plan, windows))
    return module


def _recalibration(plan: _Plan, windows: AlignedWindows) -> Iterator[Batch]:
    """Batches of training windows that the training itself did not see: those of the epochs after its last."""
    batches = EpochBatches(
        len(windows), batch_size=plan.options.train.batch_size, seed=plan.options.train.seed
    )
    first = plan.total_steps // len(batches) + 1

    def endless() -> Iterator[Batch]:
        epoch = first
        while True:
            batches.set_epoch(epoch)
            yield from training_loader(windows, batches, workers=0)
            epoch += 1

    return islice(endless(), plan.options.train.recalibration_batches)


def _finish(plan: _Plan, module: StreamClassifier) -> Path:
    """Writes the checkpoint, then `done.json`, the commit record of the run."""
    folder, options = plan.folder, plan.options
    frames = plan.selection.readers.get("rgb")
    Checkpoint(
        run=folder.run,
        stream=module.stream,
        labels=tuple(plan.selection.labels),
        network=options.network,
        normalisation=module.normalisation,
        evaluate=options.evaluate,
        frames=frames.options if isinstance(frames, StoreReader) else {},
        key=plan.key,
        weights=module.network.state_dict(),
    ).save(folder.checkpoint)
    digest = files.digest(folder.checkpoint).hexdigest()
    folder.put_json("done.json", {"key": plan.key, "checkpoint": digest, "steps": plan.total_steps})
    files.remove(folder.resume)
    return Path(files.local_path(folder.checkpoint))


def _tensorboard(plan: _Plan) -> pl.loggers.TensorBoardLogger:
    """TensorBoard events beside the CSV.

    TensorBoard would load TensorFlow (seconds, hundreds of megabytes) only to write files; the presence of the
    module `notf` makes it use its own small replacement.
    """
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    purge = plan.resumed_step or None
    return pl.loggers.TensorBoardLogger(plan.folder.uri(), name="tensorboard", version="", purge_step=purge)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's chatter (hardware found, advice on workers) from the screen."""
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", module="pytorch_lightning|lightning_fabric|torch.optim|torch.utils"
            )
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
