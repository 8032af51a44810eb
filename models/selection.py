"""Which clips a run reads: those that all of its stores hold, with their labels and splits. Free of torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from models.options import ModelOptions
from stores.clips import ClipsTable, read_clips
from stores.reader import StoreReader
from stores.summaries import ClipEntry

if TYPE_CHECKING:
    from models.drawn import DrawnPose  # it loads what draws, which planning has no use for

Reader: TypeAlias = "StoreReader | DrawnPose"

# Clips that a store rejected are left out of a run; a run that would lose more than this share is refused,
# because its stores were then made from different videos.
_MAX_MISSING = 0.5


@dataclass(frozen=True)
class LabelledClip:
    """One clip as a run sees it.

    Attributes:
        keys: its clip key in the store of each stream, in the order of the streams.
        class_index: place of its label in the label map.
        frames: number of video frames; its flow has one fewer.
    """

    clip_id: str
    keys: tuple[str, ...]
    label: str
    class_index: int
    split: str
    frames: int
    height_px: int
    width_px: int

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of its frames."""
        return self.height_px, self.width_px


@dataclass(frozen=True)
class Selection:
    """The clips of a run.

    Attributes:
        readers: by stream, in the order that the run names them.
        labels: the label map; a class's index is its place.
        clips: sorted by clip_id, all splits that are not empty.
        missing: clips of the clips table that have a split but stand in none or not in all of the stores.
    """

    readers: Mapping[str, Reader]
    labels: Sequence[str]
    clips: Sequence[LabelledClip]
    missing: int

    @cached_property
    def by_split(self) -> dict[str, list[LabelledClip]]:
        found: dict[str, list[LabelledClip]] = {"train": [], "val": [], "test": []}
        for clip in self.clips:
            found[clip.split].append(clip)
        return found

    def require(self, split: str, column: str) -> list[LabelledClip]:
        """The clips of a split.

        Raises:
            ValueError: there are none.
        """
        found = self.by_split[split]
        if not found:
            counts = ", ".join(f"{name} {len(clips)}" for name, clips in self.by_split.items())
            stores = ", ".join(reader.store.name for reader in self.readers.values())
            raise ValueError(
                f"data.split: column {column!r} has no {split} clip that the stores ({stores}) hold ({counts}); "
                "choose another column or import the clips with a split"
            )
        return found


def check_batch(train_clips: int, batch_size: int) -> None:
    """Raises ValueError where a batch is larger than the train split."""
    if train_clips < batch_size:
        raise ValueError(
            f"train.batch_size: found {batch_size}, but the train split has {train_clips} clips; "
            "choose a smaller batch"
        )


def select_clips(workspace: str, *, streams: Iterable[str], options: ModelOptions) -> Selection:
    """Joins the clips table with the stores of `streams`.

    Raises:
        ValueError: a store without snapshot, stores of different clips, frames or sizes, an unknown split column.
    """
    table = read_clips(workspace)
    splits = table.split(options.data.split)
    readers = {stream: _reader(workspace, stream, options) for stream in streams}
    wanted = [clip_id for clip_id in table.clip_ids if splits[clip_id]]
    held = [clip_id for clip_id in wanted if all(clip_id in reader.clips for reader in readers.values())]
    _check_overlap(readers, wanted, held)
    classes = {label: index for index, label in enumerate(table.labels_sorted)}
    clips = [_labelled(clip_id, readers, table, splits[clip_id], classes) for clip_id in held]
    return Selection(readers, table.labels_sorted, clips, len(wanted) - len(held))


def _reader(workspace: str, stream: str, options: ModelOptions) -> Reader:
    if stream == "pose" and options.drawn:
        from models.drawn import DrawnPose

        return DrawnPose(workspace, options.drawn)
    return StoreReader(workspace, options.store_of(stream))


def _check_overlap(readers: Mapping[str, Reader], wanted: Sequence[str], held: Sequence[str]) -> None:
    if len(held) >= (1 - _MAX_MISSING) * len(wanted):
        return
    counts = [f"{r.store.name} {sum(clip_id in r.clips for clip_id in wanted)}" for r in readers.values()]
    raise ValueError(
        f"of {len(wanted)} clips with a split, {len(held)} are in all stores that the run reads "
        f"({', '.join(counts)}); bring the stores up to date with `perfnet run`"
    )


def _labelled(
    clip_id: str,
    readers: Mapping[str, Reader],
    table: ClipsTable,
    split: str,
    classes: Mapping[str, int],
) -> LabelledClip:
    entries = {stream: reader.clips[clip_id] for stream, reader in readers.items()}
    shapes = {stream: _shape(stream, entry) for stream, entry in entries.items()}
    if len(set(shapes.values())) > 1:
        described = "; ".join(
            f"{readers[s].store.name} {n} frames of {w} × {h} px" for s, (n, h, w) in shapes.items()
        )
        raise ValueError(
            f"clip {clip_id!r} differs between stores ({described}); bring them up to date with `perfnet run`"
        )
    frames, height_px, width_px = next(iter(shapes.values()))
    keys = tuple(entry.key for entry in entries.values())
    label = table.label_of[clip_id]
    return LabelledClip(clip_id, keys, label, classes[label], split, frames, height_px, width_px)


def _shape(stream: str, entry: ClipEntry) -> tuple[int, int, int]:
    """(video frames, height, width): a clip of N frames has N − 1 flows."""
    return entry.frames + (stream == "flow"), entry.height_px, entry.width_px
