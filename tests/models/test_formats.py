"""Training sees the same tensors whatever format the stores have."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_squares import POSE_STORE, SMALL, put_store, put_workspace, squares

from models.data import AlignedWindows, RandomWindows
from models.selection import select_clips
from stores.shards import ShardBuilder, open_shard
from stores.store import Store
from stores.summaries import Encoding, ShardReference, Snapshot
from transforms.options import RenderOptions

STREAMS = ("rgb", "pose", "flow")


def convert(workspace: Path, name: str) -> None:
    """Copies a store's one Parquet shard into a TFRecord shard and commits that."""
    store, encoding = Store(str(workspace), name), Encoding("tfrecord", 1)
    snapshot = store.require_snapshot()
    (reference,) = snapshot.shards
    summary = store.summary(reference.summary)
    assert summary is not None
    with ShardBuilder(store, 0, reference.key, encoding, snapshot.spec) as builder:
        for entry in summary.clips:
            builder.copy(entry, open_shard(store, str(reference.data)))
        data, sha256, size_bytes = builder.publish()
    changed = replace(
        summary,
        encoding=encoding,
        data=data,
        sha256=sha256,
        size_bytes=size_bytes,
        clips=tuple(builder.entries),
    )
    put = ShardReference.of(changed, store.put_summary(changed))
    store.put_snapshot(Snapshot(name, snapshot.spec, encoding, (put,)))


@pytest.mark.parametrize("drawn", [False, True])
def test_both_formats_give_the_same_tensors(tmp_path: Path, drawn: bool) -> None:
    clips = squares(2, split="train")
    workspaces = [put_workspace(tmp_path / name, clips) for name in ("parquet", "tfrecord")]
    for workspace in workspaces:
        put_store(workspace, "pose", clips)
    for name in ("frames", "pose", "flow", POSE_STORE):
        convert(workspaces[1], name)
    options = replace(SMALL, drawn=RenderOptions()) if drawn else SMALL
    datasets = []
    for workspace in workspaces:
        selection = select_clips(str(workspace), streams=STREAMS, options=options)
        choose = RandomWindows(replace(SMALL.data, mirror=0.5), seed=3)
        datasets.append(AlignedWindows(selection.readers, selection.by_split["train"], choose=choose))
    for place in [(0, i) for i in range(6)] + [(5, 2)]:
        one, other = (dataset[place] for dataset in datasets)
        assert all(torch.equal(one[stream], other[stream]) for stream in STREAMS)
