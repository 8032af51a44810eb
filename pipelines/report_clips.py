"""Clips for the report: rgb, pose and flow side by side, as small animations.

Shape legend: T frames, H rows, W columns, C colour channels (RGB).
"""

import base64
import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config import Config
from pipelines.looks import bound_of
from pipelines.stages import store_name
from stores import keys
from stores.clips import ClipsTable
from stores.reader import StoreReader
from stores.store import Store
from stores.summaries import ClipEntry
from transforms.flow import decode, dequantise
from transforms.images import decode_rgb
from transforms.preview import flow_colours, side_by_side
from transforms.render import draw_people

_HEIGHT_PX = 144
_MOST_FRAMES = 40
_FPS = 10.0
_QUALITY = 60
_SPLITS_FIRST = ("test", "val", "train", "")


@dataclass(frozen=True)
class Animation:
    """One clip to look at.

    Attributes:
        streams: what is side by side, from left to right.
        animated, still: data URIs of WebP pictures.
        seconds: how much of the clip is shown.
    """

    clip_id: str
    label: str
    split: str
    streams: Sequence[str]
    width_px: int
    height_px: int
    frames: int
    seconds: float
    animated: str
    still: str


def choose(clips: ClipsTable, split_column: str, number: int) -> list[str]:
    """Clips of as many classes as possible: one of each class in turn, test clips first."""
    splits = dict(zip(clips.clip_ids, clips.splits.get(split_column, [""] * len(clips)), strict=True))
    by_label: dict[str, list[str]] = {}
    for clip_id in sorted(clips.clip_ids, key=lambda c: (_SPLITS_FIRST.index(splits[c]), keys.digest(c))):
        by_label.setdefault(clips.label_of[clip_id], []).append(clip_id)
    rounds = zip_longest(*(by_label[label] for label in sorted(by_label)))
    return [clip_id for turn in rounds for clip_id in turn if clip_id is not None][:number]


def animations(config: Config, clips: ClipsTable, number: int) -> list[Animation]:
    """Up to `number` clips, with the streams that are computed; none without a frames store."""
    if Store(config.workspace, "frames").snapshot() is None:
        return []
    column = config.data.split
    # Rejected clips are in no store: a few more are looked at than are shown.
    candidates = choose(clips, column, 3 * number)
    panels = _Panels(config, candidates)
    splits = dict(zip(clips.clip_ids, clips.splits.get(column, [""] * len(clips)), strict=True))
    held = [clip_id for clip_id in candidates if panels.holds(clip_id)][:number]
    held.sort(key=lambda clip_id: (clips.label_of[clip_id], clip_id))
    return [panels.animate(c, label=clips.label_of[c], split=splits[c]) for c in held]


def _reader_of(workspace: str, name: str, clip_ids: Sequence[str]) -> StoreReader | None:
    """A reader that looks only at the shards of these clips: a page needs few of a large store."""
    if Store(workspace, name).snapshot() is None:
        return None
    reader = StoreReader(workspace, name)
    wanted = {keys.shard_of(clip_id, reader.snapshot.encoding.num_shards) for clip_id in clip_ids}
    shards = tuple(s for s in reader.snapshot.shards if s.shard in wanted)
    reader.snapshot = dataclasses.replace(reader.snapshot, shards=shards)
    return reader


class _Panels:
    """The streams of a few clips, side by side."""

    def __init__(self, config: Config, clip_ids: Sequence[str]) -> None:
        names = {"frames": "frames", "pose": "pose", "render": store_name("render", config), "flow": "flow"}
        found = {stage: _reader_of(config.workspace, name, clip_ids) for stage, name in names.items()}
        self._readers = {stage: reader for stage, reader in found.items() if reader}
        self._render = config.render
        self._fps = float(self._readers["frames"].options["fps"])

    def holds(self, clip_id: str) -> bool:
        return clip_id in self._readers["frames"].clips

    def animate(self, clip_id: str, *, label: str, split: str) -> Animation:
        """The middle of a clip, at about ten frames a second."""
        entry = self._readers["frames"].clips[clip_id]
        step = max(1, round(self._fps / _FPS))
        span = min(entry.frames, _MOST_FRAMES * step)
        start = (entry.frames - span) // 2
        columns = self._columns(clip_id, entry, start, start + span, step)
        rows = zip(*columns.values(), strict=True)
        panels_THWC = [side_by_side([_fit(picture) for picture in row]) for row in rows]
        height_px, width_px = panels_THWC[0].shape[:2]
        animated, still = _webp(panels_THWC, milliseconds=round(1000 * step / self._fps))
        seconds = span / self._fps
        streams = tuple(columns)
        return Animation(
            clip_id, label, split, streams, width_px, height_px, entry.frames, seconds, animated, still
        )

    def _columns(
        self, clip_id: str, entry: ClipEntry, start: int, stop: int, step: int
    ) -> dict[str, list[NDArray[np.uint8]]]:
        """Stream → its pictures of frames start, start + step, … before stop."""

        def records(stage: str) -> Iterator[Any]:
            return self._readers[stage].records(clip_id, start, min(stop, self._frames(stage, clip_id)))

        rgb = [decode_rgb(r.image) for i, r in enumerate(records("frames")) if i % step == 0]
        columns = {"rgb": rgb}
        if self._has("render", clip_id):
            columns["pose"] = [decode_rgb(r.image) for i, r in enumerate(records("render")) if i % step == 0]
        elif self._has("pose", clip_id):
            people = [r for i, r in enumerate(records("pose")) if i % step == 0]
            columns["pose"] = [self._draw(*pair) for pair in zip(rgb, people, strict=True)]
        if self._has("flow", clip_id):
            bound_px = bound_of(self._readers["flow"], entry)
            pairs = [r for i, r in enumerate(records("flow")) if i % step == 0]
            flow = [flow_colours(dequantise(decode(p.x, p.y), bound_px), bound_px=bound_px) for p in pairs]
            columns["flow"] = flow + flow[-1:] * (len(rgb) - len(flow))
        return columns

    def _has(self, stage: str, clip_id: str) -> bool:
        """Whether a stream can stand beside the frames: it may be left from frames of another rate or size."""
        if stage not in self._readers or clip_id not in self._readers[stage].clips:
            return False
        ours, frames = (self._readers[s].clips[clip_id] for s in (stage, "frames"))
        same_size = (ours.width_px, ours.height_px) == (frames.width_px, frames.height_px)
        return same_size and ours.frames + (stage == "flow") == frames.frames

    def _frames(self, stage: str, clip_id: str) -> int:
        return self._readers[stage].clips[clip_id].frames

    def _draw(self, image_HWC: NDArray[np.uint8], people: Any) -> NDArray[np.uint8]:
        return draw_people(
            image_HWC,
            people,
            self._render.variant,
            min_keypoint_score=self._render.min_keypoint_score,
            thickness_px=self._render.thickness_px,
            thickness_ratio=self._render.thickness_ratio,
        )


def _fit(picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrinks to the height of the page's pictures; smaller ones stay."""
    height_px, width_px = picture_HWC.shape[:2]
    if height_px <= _HEIGHT_PX:
        return picture_HWC
    size = (max(1, round(width_px * _HEIGHT_PX / height_px)), _HEIGHT_PX)
    return np.asarray(cv2.resize(picture_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)


def _webp(panels_THWC: Sequence[NDArray[np.uint8]], *, milliseconds: int) -> tuple[str, str]:
    """Data URIs of the animation, and of its middle frame for people who want nothing to move."""
    pictures = [Image.fromarray(panel) for panel in panels_THWC]
    animated, still = io.BytesIO(), io.BytesIO()
    how: Any = {"format": "WEBP", "quality": _QUALITY, "method": 3}
    pictures[0].save(
        animated, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, **how
    )
    pictures[len(pictures) // 2].save(still, **how)
    return data_uri(animated.getvalue()), data_uri(still.getvalue())


def data_uri(content: bytes) -> str:
    """A WebP picture as an address that holds it."""
    return "data:image/webp;base64," + base64.b64encode(content).decode()
