"""Small stores with known content, and options that train on them in seconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from models.options import (
    DataOptions,
    EvaluateOptions,
    ModelOptions,
    NetworkOptions,
    StudentOptions,
    TrainOptions,
)
from stores import keys
from stores.clips import make_clips, write_clips
from stores.reader import StoreReader
from stores.records import FlowPair, Frame, People, Record
from stores.shards import ShardBuilder
from stores.store import Store
from stores.summaries import Encoding, ShardReference, ShardSummary, Snapshot
from transforms import flow

POSE_STORE = "render/rgb-bar-13-ratio"
BOUND_PX = 8.0
DIRECTIONS = {"down": (0, 2), "left": (-2, 0), "right": (2, 0)}


@dataclass(frozen=True)
class MovingSquare:
    """A clip of a bright square that moves evenly over a dim ground.

    Attributes:
        step_px: (x, y) motion a frame.
    """

    clip_id: str
    label: str
    split: str
    frames: int = 10
    height_px: int = 40
    width_px: int = 48
    seed: int = 0

    @property
    def step_px(self) -> tuple[int, int]:
        return DIRECTIONS[self.label]

    def image(self, frame: int) -> NDArray[np.uint8]:
        random = np.random.default_rng(self.seed)
        image_HWC = np.full((self.height_px, self.width_px, 3), random.integers(0, 90), np.uint8)
        x, y = (int(v) for v in random.integers(0, 30, 2))
        x, y = x + self.step_px[0] * frame, y + self.step_px[1] * frame
        rows = np.arange(y, y + 12) % self.height_px
        columns = np.arange(x, x + 12) % self.width_px
        image_HWC[np.ix_(rows, columns)] = (230, 200, 60)
        return image_HWC

    def people(self, frame: int) -> People:
        """Nobody in every third frame, otherwise one person somewhere."""
        if frame % 3 == 2:
            return People.nobody(frame)
        random = np.random.default_rng([self.seed, frame])
        points_K2 = random.uniform(2, (self.width_px - 3, self.height_px - 3), (17, 2))
        keypoints_PK3 = np.concatenate([points_K2, np.ones((17, 1))], axis=1)[None].astype(np.float32)
        boxes_P4 = np.concatenate([points_K2.min(axis=0), points_K2.max(axis=0)])[None].astype(np.float32)
        return People(frame, np.ones(1, np.float32), boxes_P4, keypoints_PK3)

    def records(self, store: str) -> Iterable[Record]:
        if store == "pose":
            return [self.people(frame) for frame in range(self.frames)]
        if store == "flow":
            planes = np.zeros((self.height_px, self.width_px, 2), np.float32) + np.float32(self.step_px)
            x, y = flow.encode(flow.quantise(planes, BOUND_PX), "png")
            return [FlowPair(frame, x, y) for frame in range(self.frames - 1)]
        drawn = [self.image(frame) for frame in range(self.frames)]
        if store != "frames":
            drawn = [cv2.line(image.copy(), (5, 5), (20, 30), (255, 0, 0), 2) for image in drawn]
        return [
            Frame(i, 40_000 * i, simplejpeg.encode_jpeg(image, quality=95)) for i, image in enumerate(drawn)
        ]


def squares(count: int, *, split: str, seed: int = 0, **shape: int) -> list[MovingSquare]:
    """`count` clips of each direction."""
    return [
        MovingSquare(f"{split}/{label}-{i:02d}", label, split, seed=1000 * seed + 100 * k + i, **shape)
        for k, label in enumerate(DIRECTIONS)
        for i in range(count)
    ]


def put_store(
    workspace: Path,
    name: str,
    clips: Iterable[MovingSquare],
    *,
    spec: Mapping[str, object] | None = None,
    follow: bool = False,
) -> None:
    """Commits a store of one shard that holds the clips.

    Args:
        follow: give the clips the keys that a stage would give them, which reads the frames that are there.
    """
    spec = {"stage": name.split("/")[0], "version": 1, "options": dict(spec or {})}
    store, encoding = Store(str(workspace), name), Encoding()
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    pairs = [(clip, keys.digest([spec, clip.clip_id, clip.seed])) for clip in clips]
    if follow:
        frames = StoreReader(str(workspace), "frames").clips
        pairs = [(clip, keys.clip_key(spec, [frames[clip.clip_id].key])) for clip in clips]
    held = keys.held_digest((clip.clip_id, key) for clip, key in pairs)
    shard_key = keys.shard_key(spec, [held])
    with ShardBuilder(store, 0, shard_key, encoding, spec) as shard:
        for clip, key in pairs:
            shard.compute(
                clip.clip_id, key, clip.records(name), width_px=clip.width_px, height_px=clip.height_px
            )
        data, sha256, size_bytes = shard.publish()
    entries = tuple(shard.entries)
    summary = ShardSummary(
        name, 0, shard_key, encoding, spec, data, sha256, size_bytes, entries, (), len(entries), 0, 1
    )
    reference = ShardReference.of(summary, store.put_summary(summary))
    store.put_snapshot(Snapshot(name, spec, encoding, (reference,)))


def put_clips(workspace: Path, clips: Iterable[MovingSquare]) -> None:
    rows = [{"clip_id": c.clip_id, "uri": "x.mp4", "label": c.label, "split": c.split} for c in clips]
    write_clips(str(workspace), make_clips(rows))


def put_workspace(workspace: Path, clips: Iterable[MovingSquare]) -> Path:
    """A workspace with the clips table and all the stores that networks read."""
    clips = list(clips)
    put_clips(workspace, clips)
    for name in ("frames", POSE_STORE, "flow"):
        put_store(workspace, name, clips, spec={"shorter_side_px": 32} if name == "frames" else None)
    return workspace


SMALL = ModelOptions(
    network=NetworkOptions(width=0.1, blocks=(1, 1, 1, 1), stem_kernel=(3, 5, 5)),
    data=DataOptions(window_frames=6, crop_height_px=32, crop_width_px=32, mirror=0.0, cache_mb=50),
    train=TrainOptions(
        epochs=2,
        batch_size=4,
        learning_rate=0.02,
        warmup_steps=2,
        norm_momentum=0.1,
        precision="32",
        threads=1,
    ),
    student=StudentOptions(weight=0.1),
    evaluate=EvaluateOptions(frames=8, crop_height_px=40, crop_width_px=40, batch_size=4),
    pose_store=POSE_STORE,
)


def with_train(options: ModelOptions, **changes: object) -> ModelOptions:
    """The options with other `train` values."""
    return replace(options, train=replace(options.train, **changes))
