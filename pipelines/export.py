"""Exports a workspace as MediaSequence TFRecord files by split, for DMVR, Scenic and whatever else reads them."""

import copy
import hashlib
import json
import math
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines.export_progress import Progress
from pipelines.progress import Screen
from pipelines.whole_folder import INDEX, check_target, whole_folder
from stores import files
from stores.clips import SPLITS, ClipsTable
from stores.lineage import strangers
from stores.reader import StoreReader
from stores.tfrecord import write_record
from transforms.export_clip import SATURATION_PX, ClipLabel, mediasequence_example
from transforms.flow import bound_for
from transforms.options import FlowOptions

STORES = ("frames", "flow", "pose")
_CLIPS_PER_FILE = 256


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        clips: by split.
        files: written, by split.
        left_out: clips that have a split but are not in all stores.
    """

    clips: dict[str, int]
    files: dict[str, int]
    left_out: list[str]


@dataclass(frozen=True)
class Layout:
    """How the examples are laid out.

    Attributes:
        split_column: of the clips table.
        num_files: a split; None makes about 256 clips a file.
        jpeg_quality: of the flow images; frames are passed on as they are.
    """

    split_column: str
    num_files: int | None = None
    jpeg_quality: int = 95

    def files(self, clips: int) -> int:
        return self.num_files or math.ceil(clips / _CLIPS_PER_FILE)


def export_mediasequence(
    workspace: str,
    clips: ClipsTable,
    out: str,
    layout: Layout,
    *,
    workers: int,
    overwrite: bool,
    screen: Screen,
    pose_specs: Mapping[str, str] | None = None,
) -> Exported:
    """Writes one complete example a clip, in files such as train-00000-of-00100.

    Args:
        pose_specs: what determines the pose of single clips beside their frames; None where nothing does.

    Raises:
        ValueError: a store is missing or was computed from other frames, no such split column, nothing to export, or
            `out` is not empty.
    """
    check_target(out, overwrite=overwrite)
    splits = _splits(clips, layout.split_column)
    readers = [StoreReader(workspace, name) for name in STORES]
    held = set.intersection(*(set(reader.clips) for reader in readers))
    left_out = [clip_id for clip_id, split in splits.items() if split and clip_id not in held]
    chosen = {s: sorted((c for c in held if splits.get(c) == s), key=_shuffled) for s in SPLITS if s}
    chosen = {split: found for split, found in chosen.items() if found}
    _check_same_frames(readers, {c for found in chosen.values() for c in found}, pose_specs)
    if not chosen:
        raise ValueError(
            f"nothing to export: no clip has a split in {layout.split_column} and is in all of {', '.join(STORES)}"
        )
    counts = {split: len(found) for split, found in chosen.items()}
    exported = Exported(counts, {split: layout.files(count) for split, count in counts.items()}, left_out)
    make = _maker(readers, clips, layout.jpeg_quality)
    progress = Progress(screen, "export", sum(counts.values()))
    with whole_folder(out) as folder, ThreadPoolExecutor(workers) as pool:
        for split, found in chosen.items():
            total = exported.files[split]
            for index in range(total):
                uri = files.join(folder, f"{split}-{index:05d}-of-{total:05d}")
                _write(uri, _in_order(pool, make, found[index::total], 2 * workers), progress)
        _write_index(folder, exported, clips)
    return exported


def _check_same_frames(
    readers: Sequence[StoreReader], chosen: Collection[str], pose_specs: Mapping[str, str] | None
) -> None:
    """Refuses to write new frames beside flow or people of the frames before."""
    frames = readers[STORES.index("frames")].clips
    for reader in readers:
        name = reader.store.name
        if name == "frames":
            continue
        specs = pose_specs if name == "pose" else None
        wrong = [c for c in strangers(reader.clips, reader.snapshot, [frames], specs) if c in chosen]
        if wrong:
            raise ValueError(
                f"store {name} was computed from other frames than there are now, in {len(wrong)} clips such as "
                f"{files.printable(wrong[0])}; run `perfnet run {name}` first"
            )


def _splits(clips: ClipsTable, column: str) -> dict[str, str]:
    if column not in clips.splits:
        known = ", ".join(clips.splits) or "none; perfnet clips makes one"
        raise ValueError(
            f"--split_column: the clips table has no column {files.quoted(column)}; split columns: {known}"
        )
    return clips.split(column)


def _shuffled(clip_id: str) -> bytes:
    """Neighbours in the table are often alike: files hold the clips in the order of their names' digests."""
    return hashlib.sha256(clip_id.encode()).digest()


def _maker(readers: Sequence[StoreReader], clips: ClipsTable, jpeg_quality: int) -> Callable[[str], bytes]:
    """A function from clip_id to the serialised example; each thread reads with readers of its own."""
    own = threading.local()
    labels = _labels(clips)
    given_px = readers[STORES.index("flow")].options.get("bound_px")
    bound = FlowOptions(bound_px=given_px if isinstance(given_px, (int, float)) else None)

    def make(clip_id: str) -> bytes:
        if not hasattr(own, "readers"):
            own.readers = [copy.copy(reader) for reader in readers]
        frames, flow, pose = own.readers
        entry = frames.clips[clip_id]
        return mediasequence_example(
            labels[clip_id],
            frames=frames.records(clip_id),
            pairs=flow.records(clip_id),
            people=pose.records(clip_id),
            size_px=(entry.width_px, entry.height_px),
            bound_px=bound_for(bound, width_px=entry.width_px, height_px=entry.height_px),
            jpeg_quality=jpeg_quality,
        )

    return make


def _labels(clips: ClipsTable) -> dict[str, ClipLabel]:
    index = {label: i for i, label in enumerate(clips.labels_sorted)}
    rows = zip(clips.clip_ids, clips.uris, clips.starts_s, clips.stops_s, clips.labels, strict=True)
    return {row[0]: ClipLabel(*row, label_index=index[row[4]]) for row in rows}


def _in_order(
    pool: ThreadPoolExecutor, make: Callable[[str], bytes], clip_ids: Sequence[str], ahead: int
) -> Iterator[bytes]:
    """Examples in the order of the clips, at most `ahead` of them in memory."""
    for start in range(0, len(clip_ids), ahead):
        yield from pool.map(make, clip_ids[start : start + ahead])


def _write(uri: str, examples: Iterator[bytes], progress: Progress) -> None:
    with files.staged(uri) as path, open(path, "wb") as file:
        for example in examples:
            write_record(file, example)
            progress.one_more()


def _write_index(folder: str, exported: Exported, clips: ClipsTable) -> None:
    """What people need beside the files: the label map, and how many clips there are."""
    index = {
        "clips": exported.clips,
        "files": exported.files,
        "left_out": exported.left_out,
        "labels": clips.labels_sorted,
        "flow_saturation_px": SATURATION_PX,
    }
    files.put_bytes(files.join(folder, INDEX), json.dumps(index, indent=1, ensure_ascii=False).encode())
