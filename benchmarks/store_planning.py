"""Planning at scale: `perfnet status` of a workspace with 500,000 clips and 31,250 shards a store.

    python benchmarks/store_planning.py [--clips 500000] [--shards 31250] [--folder FOLDER]

Makes a workspace with the stores frames, pose and flow whose keys, summaries and snapshots are real and whose data
files are empty, then measures the command in fresh processes: wall seconds and peak resident memory with nothing stale,
and with one clip stale. The clips are segments of a thousand small videos; how long the file system needs to say
that half a million videos are unchanged is measured apart. The peer is the naive check that a file exists for each clip
of each store, which is what other tools do and which notices no changed option.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import load_config
from pipelines.prepare import spec_of
from pipelines.stages import make_stage
from stores import keys
from stores.clips import ClipsTable, write_clips
from stores.identities import identify_all
from stores.store import Store, data_name, summary_name
from stores.summaries import ClipEntry, Encoding, ShardReference, ShardSummary, Snapshot, library_versions

ROOT = Path(__file__).resolve().parents[1]
VIDEOS = 1_000
STAT_VIDEOS = 50_000
FRAMES = 250
STAGES = ("frames", "pose", "flow")
TARGET_S, TARGET_MIB = 20, 1024


def make_clips_table(folder: Path, clips: int) -> ClipsTable:
    """Clips as segments of small files that stand for videos."""
    (folder / "videos").mkdir(parents=True)
    paths = [folder / "videos" / f"{i:04d}.mp4" for i in range(VIDEOS)]
    for path in paths:
        path.write_text(path.name)
    names = [f"class{i % 600:03d}/video_{i:06d}_of_a_collection" for i in range(clips)]
    order = sorted(range(clips), key=names.__getitem__)
    return ClipsTable(
        clip_ids=[names[i] for i in order],
        uris=[str(paths[i % VIDEOS]) for i in order],
        starts_s=[float(i // VIDEOS) for i in order],
        stops_s=[i // VIDEOS + 10.0 for i in order],
        labels=[names[i][:8] for i in order],
        groups=[""] * clips,
        splits={"split": ["train"] * clips},
    )


def entries_of(
    clips: ClipsTable, identities: dict[str, Any], spec: dict[str, Any], shards: int
) -> dict[int, list[ClipEntry]]:
    """What the frames store holds, by shard."""
    found: dict[int, list[ClipEntry]] = {shard: [] for shard in range(shards)}
    for clip_id, uri, start, stop in zip(
        clips.clip_ids, clips.uris, clips.starts_s, clips.stops_s, strict=True
    ):
        key = keys.frames_clip_key(spec, identities[uri].digest, start, stop)
        place = found[keys.shard_of(clip_id, shards)]
        first = 16 * len(place)
        place.append(ClipEntry(clip_id, key, FRAMES, 3, FRAMES, 340, 256, first, 16, milliseconds=FRAMES * 4))
    return found


def derived(entries: list[ClipEntry], spec: dict[str, Any], frames: int) -> list[ClipEntry]:
    """The same clips in a store that is computed from frames."""
    return [
        ClipEntry(
            e.clip_id,
            keys.clip_key(spec, [e.key]),
            frames,
            0,
            frames,
            340,
            256,
            e.first_row_group,
            16,
            milliseconds=frames * 40,
        )
        for e in entries
    ]


def put_store(
    store: Store,
    spec: dict[str, Any],
    held: dict[int, list[ClipEntry]],
    key_of: Callable[[int], str],
    shards: int,
) -> Snapshot:
    """Writes empty data files, summaries and the snapshot of a store."""
    folder = Path(store.folder) / "shards"
    folder.mkdir(parents=True)
    encoding, versions, references = Encoding("parquet", shards), library_versions(), []
    for shard, entries in held.items():
        key, content = key_of(shard), keys.digest([store.name, shard])
        data = data_name(shard, key, encoding, content)
        summary = ShardSummary(
            *(store.name, shard, key, encoding, spec, data, content, 9_000_000),
            *(tuple(entries), (), len(entries), 0, 1, versions),
        )
        name = summary_name(summary)
        (folder / name).write_bytes(summary.to_json())
        (folder / data).touch()
        references.append(ShardReference.of(summary, name))
    snapshot = Snapshot(store.name, spec, encoding, tuple(references))
    store.put_snapshot(snapshot)
    return snapshot


def build(folder: Path, clips: int, shards: int) -> Path:
    """Makes the whole workspace; returns the configuration file."""
    path = folder / "config.yaml"
    path.write_text(
        json.dumps(
            {
                "workspace": str(folder / "ws"),
                "store": {"num_shards": shards},
                "pose": {"source": "drawn"},
            }
        )
    )
    config = load_config(str(path))
    table = make_clips_table(folder, clips)
    write_clips(config.workspace, table)
    identities = identify_all(config.workspace, table.uris)
    specs = {stage: spec_of(make_stage(stage, config)) for stage in STAGES}
    held = entries_of(table, identities, specs["frames"], shards)

    def frames_key(shard: int) -> str:
        return keys.shard_key(specs["frames"], [keys.held_digest((e.clip_id, e.key) for e in held[shard])])

    frames = put_store(Store(config.workspace, "frames"), specs["frames"], held, frames_key, shards)
    for stage, length in (("pose", FRAMES), ("flow", FRAMES - 1)):
        spec = specs[stage]
        put_store(
            Store(config.workspace, stage),
            spec,
            {shard: derived(entries, spec, length) for shard, entries in held.items()},
            lambda shard, spec=spec: keys.shard_key(spec, [frames.shards[shard].held]),  # type: ignore[misc]
            shards,
        )
    return path


class Run(NamedTuple):
    """A command in a fresh process: on a busy machine its CPU seconds tell more than its wall seconds."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    output: str


def measure(*arguments: str) -> Run:
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - started
        output.seek(0)
        text = output.read()
    assert os.waitstatus_to_exitcode(status) == 0, text
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def status(config: Path) -> Run:
    return measure("-m", "pipelines.cli", "status", "--config", str(config))


def change_one_clip(config: Path) -> None:
    """Moves the end of one segment."""
    path = Path(load_config(str(config)).workspace) / "clips.parquet"
    table = pq.read_table(path)
    stops = table["stop_s"].to_pylist()
    stops[len(stops) // 2] += 1
    position = table.column_names.index("stop_s")
    pq.write_table(table.set_column(position, "stop_s", pa.array(stops)), path)


def naive_seconds(folder: Path, clips: int) -> float:
    """CPU seconds of the peer, which asks whether one output file of each clip and store exists."""
    outputs = folder / "naive"
    outputs.mkdir(exist_ok=True)
    for index in range(0, clips, 100):
        (outputs / f"{index}.npy").touch()
    started = time.process_time()
    for _ in STAGES:
        for index in range(clips):
            os.path.exists(f"{outputs}/{index}.npy")
    return time.process_time() - started


def stat_rate(folder: Path) -> tuple[float, float]:
    """Unchanged videos that `identify_all` goes through, a second and a CPU second."""
    (folder / "many").mkdir(exist_ok=True)
    uris = [str(folder / "many" / f"{index}.mp4") for index in range(STAT_VIDEOS)]
    for uri in uris:
        Path(uri).write_bytes(b"v")
    identify_all(str(folder / "cache"), uris)
    started, started_cpu = time.monotonic(), time.process_time()
    identify_all(str(folder / "cache"), uris)
    return STAT_VIDEOS / (time.monotonic() - started), STAT_VIDEOS / (time.process_time() - started_cpu)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=500_000)
    parser.add_argument("--shards", type=int, default=31_250)
    parser.add_argument("--folder", help="keeps the workspace here, and uses the one that is here")
    arguments = parser.parse_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="perfnet-planning-"))
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    if not config.exists():
        started = time.monotonic()
        build(folder, arguments.clips, arguments.shards)
        print(f"workspace built in {time.monotonic() - started:.0f} s: {folder}", flush=True)
    try:
        report(folder, config, arguments.clips)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)


def report(folder: Path, config: Path, clips: int) -> None:
    runs = sorted((status(config) for _ in range(3)), key=lambda run: run.cpu_s)
    for line in runs[0].output.splitlines():
        assert "stale" not in line or line.split()[0] not in STAGES, line
    _, usual, _ = runs
    print(
        f"nothing stale: {usual.wall_s:.1f} s, {usual.cpu_s:.1f} CPU s (target {TARGET_S} s), "
        f"peak {usual.peak_mib:.0f} MiB (target {TARGET_MIB})",
        flush=True,
    )
    table = Path(load_config(str(config)).workspace) / "clips.parquet"
    before = table.read_bytes()
    try:
        change_one_clip(config)
        one = status(config)
    finally:
        table.write_bytes(before)
    costs = [line for line in one.output.splitlines() if line.startswith("cost: ")]
    assert len(costs) == len(STAGES), one.output
    assert all("computes 1 clips" in line for line in costs), one.output
    print(
        f"one clip of {clips} stale: {one.wall_s:.1f} s, {one.cpu_s:.1f} CPU s, peak {one.peak_mib:.0f} MiB",
        flush=True,
    )
    rate, rate_cpu = stat_rate(folder)
    print(
        f"unchanged videos looked at: {rate:.0f} a second, {rate_cpu:.0f} a CPU second; "
        f"{clips} in {clips / rate_cpu:.1f} CPU s",
        flush=True,
    )
    naive_s = naive_seconds(folder, clips)
    print(f"a file's existence asked for each clip and store: {naive_s:.1f} CPU s")
    print(f"RATIO planning_vs_asking_for_each_file {naive_s / usual.cpu_s:.2f}")


if __name__ == "__main__":
    main()
