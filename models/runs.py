"""The folder of a run, what its result depends on, and why it is stale. Free of torch.

A run's key is the digest of its document: everything that determines the trained weights. `key.json` holds the
document from the first step on, `done.json` is written last: a training without it was interrupted.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.differences import clip_differences, differences
from models.options import ModelOptions, role_of
from models.selection import LabelledClip, Selection, select_clips
from stores import files, keys

VERSION = 2
"""Raised by hand when the same document leads to other weights."""

EVALUATION_VERSION = 2
_NOT_IN_DATA = ("workers", "cache_mb")
# What machine it runs on, and how: the same weights but for rounding and, with several devices, the batch that
# each normalisation layer sees.
_NOT_IN_TRAIN = ("checkpoint_minutes", "threads", "devices", "compile", "checkpoint_activations")
_WEIGHTS = ("inflate_from", "start_from")
_NOT_IN_EVALUATE = ("batch_size",)


@dataclass(frozen=True)
class RunFolder:
    """`runs/<run>/` of a workspace.

    Attributes:
        workspace: local path or gs:// address.
        run: its name, which begins with its role: rgb, pose, flow or student; see `role_of`.

    Raises:
        ValueError: the name has no role.
    """

    workspace: str
    run: str

    def __post_init__(self) -> None:
        role_of(self.run)

    def uri(self, *names: str) -> str:
        return files.join(self.workspace, "runs", self.run, *names)

    @property
    def checkpoint(self) -> str:
        """The trained network."""
        return self.uri("checkpoints", "final.pt")

    @property
    def resume(self) -> str:
        """The state from which an interrupted training goes on."""
        return self.uri("checkpoints", "last.ckpt")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """One of the folder's JSON files; None where it is missing or not whole."""
        try:
            found = json.loads(files.read_bytes(self.uri(name)))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put_json(self, name: str, value: Mapping[str, Any]) -> None:
        files.put_bytes(
            self.uri(name), json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode()
        )

    @property
    def done(self) -> dict[str, Any] | None:
        """What `done.json` says of a finished training: its key and the checkpoint's sha256."""
        found = self.read_json("done.json")
        return found if found and files.exists(self.checkpoint) else None

    def put_clips(self, clips: list[LabelledClip]) -> None:
        """Records which clips a training reads."""
        rows = {
            name: [r[name] for r in map(_clip_row, clips)] for name in ("clip_id", "key", "label", "split")
        }
        with files.staged(self.uri("clips.parquet")) as path:
            pq.write_table(pa.table(rows), path, compression="zstd")

    def clips(self) -> dict[str, dict[str, str]]:
        """The clips that the training read, by clip_id: key, label and split."""
        try:
            with files.open_read(self.uri("clips.parquet")) as file:
                rows = pq.read_table(file).to_pylist()
        except FileNotFoundError:
            return {}
        return {row["clip_id"]: row for row in rows}


def _clip_row(clip: LabelledClip) -> dict[str, str]:
    return {"clip_id": clip.clip_id, "key": "+".join(clip.keys), "label": clip.label, "split": clip.split}


def teachers_of(run: str, options: ModelOptions) -> tuple[str, ...]:
    """Runs whose networks a run learns from."""
    return options.student.teachers if role_of(run) == "student" else ()


def options_of(run: str, options: ModelOptions) -> ModelOptions:
    """The options as a run uses them: the student may train for another number of epochs."""
    epochs = options.student.epochs
    if role_of(run) != "student" or epochs is None:
        return options
    return replace(options, train=replace(options.train, epochs=epochs, steps=None))


def streams_of(run: str, options: ModelOptions) -> tuple[str, ...]:
    """Streams that training a run reads; its own stream comes first."""
    if role_of(run) != "student":
        return (role_of(run),)
    return tuple(dict.fromkeys(("rgb", *map(role_of, options.student.teachers))))


def select_run(run: str, *, workspace: str, options: ModelOptions) -> Selection:
    """The clips that a run reads; raises ValueError as `select_clips` does."""
    return select_clips(workspace, streams=streams_of(run, options), options=options)


def training_clips(selection: Selection) -> list[LabelledClip]:
    """Clips that training may look at: train and val, never test."""
    return [clip for clip in selection.clips if clip.split != "test"]


def _without(options: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in asdict(options).items() if key not in names}


def training_document(
    run: str, *, workspace: str, options: ModelOptions, selection: Selection
) -> dict[str, Any]:
    """Everything that determines the weights of a run, as plain JSON values."""
    options = options_of(run, options)
    clips = training_clips(selection)
    document: dict[str, Any] = {
        "version": VERSION,
        "run": role_of(run),
        "network": _without(options.network, _WEIGHTS) | _initial_weights(options),
        "data": _without(options.data, _NOT_IN_DATA),
        "train": _without(options.train, _NOT_IN_TRAIN),
        "stores": {stream: _describe(selection, stream) for stream in selection.readers},
        "labels": list(selection.labels),
        "clips": keys.digest([_clip_row(clip) for clip in clips]),
    }
    if role_of(run) == "student":
        document["student"] = _without(options.student, ("epochs",))  # they are in train.epochs
        document["teachers"] = {
            teacher: (RunFolder(workspace, teacher).done or {}).get("checkpoint")
            for teacher in teachers_of(run, options)
        }
    return json.loads(keys.canonical_json(document))


def _initial_weights(options: ModelOptions) -> dict[str, str]:
    """Digests of the files that training starts from: it is their content that counts, not where they lie."""
    found = {}
    for name in _WEIGHTS:
        uri = getattr(options.network, name)
        if uri:
            try:
                found[name] = files.digest(uri).hexdigest()
            except (FileNotFoundError, IsADirectoryError) as error:
                raise ValueError(f"network.{name}: {files.printable(uri)} does not exist") from error
    return found


def _describe(selection: Selection, stream: str) -> dict[str, Any]:
    reader = selection.readers[stream]
    return {"store": reader.store.name, "spec": reader.spec}


def other_stores(folder: RunFolder, selection: Selection) -> list[str]:
    """How the stores of a selection differ from those that a trained run has read, in words, stream by stream."""
    document = (folder.read_json("key.json") or {}).get("document", {})
    found = []
    for stream, before in document.get("stores", {}).items():
        if stream in selection.readers:
            now = json.loads(keys.canonical_json(_describe(selection, stream)))
            if before != now:
                changed = differences({"stores": {stream: before}}, {"stores": {stream: now}})
                found.append("; ".join(changed) or f"the store of {stream} was computed otherwise")
    return found


def stale_reason(run: str, *, workspace: str, options: ModelOptions) -> str | None:
    """Why a run must be trained, in words; None where its result stands.

    Raises:
        ValueError: an unknown run.
    """
    folder = RunFolder(workspace, run)
    started = folder.read_json("key.json")
    if started is None:
        return "never trained"
    for teacher in teachers_of(run, options):
        if RunFolder(workspace, teacher).done is None:
            return f"teacher {teacher} is not trained"
    try:
        selection = select_run(run, workspace=workspace, options=options)
    except ValueError as error:  # a store that is not there yet: say what asks for it
        return "; ".join(_moved_stores(started.get("document", {}), options)) or str(error)
    document = training_document(run, workspace=workspace, options=options, selection=selection)
    if keys.digest(document) != started.get("key"):
        now = {row["clip_id"]: row for row in map(_clip_row, training_clips(selection))}
        changed = differences(started.get("document", {}), document)
        return "; ".join([*changed, *clip_differences(folder.clips(), now)]) or "the run folder is damaged"
    done = folder.done
    if done is None or done.get("key") != started.get("key"):
        return "its training was interrupted"
    return None


def _moved_stores(document: Mapping[str, Any], options: ModelOptions) -> list[str]:
    """Streams that are to be read from another store than before, in words."""
    before = {stream: {"store": store["store"]} for stream, store in document.get("stores", {}).items()}
    now = {stream: {"store": options.store_of(stream)} for stream in before}
    return differences({"stores": before}, {"stores": now})


def evaluation_document(run: str, *, workspace: str, options: ModelOptions) -> dict[str, Any]:
    """Everything that determines the predictions of a trained run.

    Raises:
        ValueError: the run is not trained, or its stores cannot be read.
    """
    done = RunFolder(workspace, run).done
    if done is None:
        raise ValueError(f"run {run} is not trained; run `perfnet train {run}`")
    selection = select_evaluation(run, workspace=workspace, options=options)
    clips = selection.by_split[options.evaluate.on]
    document = {
        "version": EVALUATION_VERSION,
        "checkpoint": done["checkpoint"],
        "evaluate": _without(options.evaluate, _NOT_IN_EVALUATE),
        "data": {"split": options.data.split},
        "clips": keys.digest([_clip_row(clip) for clip in clips]),
    }
    return json.loads(keys.canonical_json(document))


def select_evaluation(run: str, *, workspace: str, options: ModelOptions) -> Selection:
    """The clips on which a run is judged: only its own stream is read, also of the student."""
    return select_clips(workspace, streams=streams_of(run, options)[:1], options=options)


def evaluation_stale_reason(run: str, *, workspace: str, options: ModelOptions) -> str | None:
    """Why a run must be evaluated, in words; None where its predictions stand."""
    folder = RunFolder(workspace, run)
    before = folder.read_json("evaluation.json")
    if before is None or not files.exists(folder.uri("predictions.parquet")):
        return "never evaluated"
    try:
        document = evaluation_document(run, workspace=workspace, options=options)
    except ValueError as error:
        return str(error)
    if keys.digest(document) == before.get("key"):
        return None
    changed = differences(before.get("document", {}), document)
    if document["clips"] != before.get("document", {}).get("clips"):
        changed.append(f"the {options.evaluate.on} clips have changed")
    return "; ".join(changed)
