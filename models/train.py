"""Trains one run of a workspace: selects its clips, fits its network, writes its checkpoint."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.callbacks import Progress
from models.checkpoint import Checkpoint, load_checkpoint
from models.data import EpochBatches
from models.differences import clip_differences, differences
from models.fit import Plan, fit
from models.hardware import lightning_precision, use_threads
from models.options import ModelOptions
from models.ranks import ALONE, Ranks, agreed, joined, launched, processes_for, spawn
from models.runs import (
    RunFolder,
    options_of,
    other_stores,
    select_run,
    teachers_of,
    training_clips,
    training_document,
)
from models.selection import Selection, check_batch
from models.streams import LossNotFinite, StreamClassifier
from stores import files, keys
from stores.reader import StoreReader


def train(run: str, *, workspace: str, options: ModelOptions, progress: Progress = lambda line: None) -> Path:
    """Trains a run and returns the path of its checkpoint.

    An interrupted training of the same key goes on from its last checkpoint; anything else starts anew. With
    several devices each has a process: started here, or by torchrun where they stand in several machines.

    Args:
        run: its name, which begins with rgb, pose, flow or student.
        progress: receives short lines of text.

    Raises:
        ValueError: an unknown run, stores that do not fit together, an empty train split, fewer train clips than
            a batch, teachers that are missing, do not fit, have learnt from other stores or have seen test clips,
            a file of weights that does not fit.
        LossNotFinite: the training has diverged.
    """
    folder = RunFolder(workspace, run)
    if not files.is_local(workspace):
        raise ValueError(
            f"workspace: {workspace} is not local; training writes its runs to a local workspace"
        )
    options = options_of(run, options)
    ranks, processes = launched(), processes_for(options.train.devices)
    if ranks is None and processes > 1:
        try:
            spawn(partial(_train_rank, folder, options), processes=processes, progress=progress)
        finally:
            files.remove(folder.uri("pins.json"))
    else:
        _train_rank(folder, options, progress, ranks or ALONE)
    return Path(files.local_path(folder.checkpoint))


def _train_rank(folder: RunFolder, options: ModelOptions, progress: Progress, ranks: Ranks) -> None:
    """What each process of the training does."""
    use_threads(options.train.threads, ranks.on_machine)
    with joined(ranks):
        teachers = _load_teachers(folder, options)
        selection = select_run(folder.run, workspace=folder.workspace, options=options)
        _check_teachers(teachers, selection, folder)
        plan = _plan(folder, options, selection, ranks)
        if ranks.is_first:
            _announce(plan, progress)
            _open_folder(plan)
        try:
            module = fit(plan, teachers, progress if ranks.is_first else _silent)
            if ranks.is_first:
                _finish(plan, module)
        except LossNotFinite as error:
            found = {"loss": str(error.loss), "step": error.step, "clip_ids": error.clip_ids}
            folder.put_json("not_finite.json", found)
            raise
        finally:
            if ranks.is_first:
                files.remove(folder.uri("pins.json"))


def _silent(line: str) -> None:
    """Only rank 0 speaks."""


def _load_teachers(student: RunFolder, options: ModelOptions) -> dict[str, Checkpoint]:
    found = {}
    for teacher in teachers_of(student.run, options):
        folder = RunFolder(student.workspace, teacher)
        if folder.done is None:
            raise ValueError(f"student.teachers: {teacher} is not trained; run `perfnet train {teacher}`")
        found[teacher] = load_checkpoint(folder.checkpoint)
    return found


def _check_teachers(teachers: Mapping[str, Checkpoint], selection: Selection, student: RunFolder) -> None:
    """Refuses teachers of other classes or other stores, and those that have learnt from clips on which the student
    is judged.
    """
    judged = {clip.clip_id for split in ("val", "test") for clip in selection.by_split[split]}
    for name, checkpoint in teachers.items():
        if list(checkpoint.labels) != list(selection.labels):
            odd = sorted(set(checkpoint.labels) ^ set(selection.labels))[:3]
            raise ValueError(
                f"student.teachers: {name} was trained on {len(checkpoint.labels)} classes, the clips table has "
                f"{len(selection.labels)} (not in both: {', '.join(odd)}); run `perfnet train {name}`"
            )
        teacher = RunFolder(student.workspace, name)
        other = other_stores(teacher, selection)
        if other:
            raise ValueError(
                f"student.teachers: {name} was trained on other stores ({other[0]}); run `perfnet train {name}`"
            )
        seen = teacher.clips()
        leaked = sorted(clip_id for clip_id in judged if seen.get(clip_id, {}).get("split") == "train")
        if leaked:
            raise ValueError(
                f"student.teachers: {name} was trained on {len(leaked)} clips of the student's val or test split, "
                f"the first is {leaked[0]!r}; run `perfnet train {name}`"
            )


def _plan(folder: RunFolder, options: ModelOptions, selection: Selection, ranks: Ranks) -> Plan:
    clips, o = selection.require("train", options.data.split), options.train
    check_batch(len(clips), o.batch_size)
    if o.sync_norm and not torch.cuda.is_available():
        raise ValueError("train.sync_norm: found True, but this machine has no GPU; set it to false")
    document = training_document(folder.run, workspace=folder.workspace, options=options, selection=selection)
    key = keys.digest(document)
    batches = EpochBatches(
        len(clips), batch_size=o.batch_size, seed=o.seed, accumulate=o.accumulate, ranks=ranks
    )
    resumed_step = agreed(_resumable_step(folder, key))
    batches.start = resumed_step % batches.steps
    total_steps = o.steps or o.epochs * batches.steps
    return Plan(folder, options, selection, document, key, batches, total_steps, resumed_step, ranks)


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


def _open_folder(plan: Plan) -> None:
    """Makes the run's folder that of this training, and pins the shards that it reads."""
    folder = plan.folder
    files.remove(folder.uri("not_finite.json"))
    if not plan.resumed_step:
        for uri in (folder.resume, folder.checkpoint, folder.uri("done.json")):
            files.remove(uri)
        folder.put_clips(training_clips(plan.selection))
        folder.put_json("key.json", {"key": plan.key, "document": plan.document})
    readers = plan.selection.readers.values()
    pins = {name: data for reader in readers for name, data in reader.pins.items()}
    folder.put_json("pins.json", {"stores": pins})


def _announce(plan: Plan, progress: Progress) -> None:
    run, o = plan.folder.run, plan.options.train
    train_clips = len(plan.selection.by_split["train"])
    left_out = f", {plan.selection.missing} clips are not in all stores" if plan.selection.missing else ""
    went_on = f", going on from step {plan.resumed_step}" if plan.resumed_step else ""
    devices = f" on {plan.ranks.world} devices" if plan.ranks.world > 1 else ""
    if not plan.resumed_step and files.exists(plan.folder.resume):
        progress(f"{run}: starts anew, its interrupted training had another configuration: {_changes(plan)}")
    progress(
        f"{run}: {train_clips} training clips, {len(plan.selection.labels)} classes, {plan.total_steps} steps of "
        f"{o.batch_size}{devices}, {lightning_precision(o.precision)}{left_out}{went_on}"
    )


def _changes(plan: Plan) -> str:
    """How the training that is planned differs from the one that the run's folder holds."""
    before: dict[str, Any] = (plan.folder.read_json("key.json") or {}).get("document", {})
    clips = {
        clip.clip_id: {"key": "+".join(clip.keys), "label": clip.label, "split": clip.split}
        for clip in training_clips(plan.selection)
    }
    changed = [*differences(before, plan.document), *clip_differences(plan.folder.clips(), clips)]
    return "; ".join(changed) or "it cannot be read"


def _finish(plan: Plan, module: StreamClassifier) -> None:
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
