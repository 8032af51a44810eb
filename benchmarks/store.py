"""Random 64-frame windows of clips: our stores against seeking into the videos with PyAV and decord.

    pip install decord2            the second peer; no part of the project's own requirements
    python benchmarks/store.py [--videos FOLDER] [--workspace FOLDER] [--jpeg_quality 95]

Every side reads the same windows and ends with the same array, uint8 [64, H, W, 3] RGB at the store's size, on one
core and one thread, with its files open and in the page cache. Times are CPU time, which other work on the machine
disturbs less than the clock; sides alternate window by window, and medians over rounds are printed.

The clips are ten seconds of 340 x 256 at 25 frames a second, H.264 (x264, preset medium, CRF 23) with a key frame every
250 frames: a hand-held camera over photographs, with others that move and bend in front of them. Their size and their
decoding times are near those of a real clip of Kinetics, encoded the same way: 1.5 kB a frame of H.264 at 0.45 ms,
28 kB of JPEG at 0.43 ms. With --videos real clips are measured beside them, each at its own size with the shorter side
at 256 px; with --workspace the bytes a frame of its stores are printed too.

Skipping is a trick beyond what loaders do: frames before the window that no other frame needs are not decoded. It is
printed and has a ratio of its own.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from stores.clips import make_clips
from stores.commit import commit
from stores.identities import identify_all
from stores.plan import VideoClips, build_tasks, expected_from_videos, plan_stage
from stores.reader import StoreReader
from stores.store import Store
from stores.summaries import Encoding
from transforms.frames import FramesStage
from transforms.images import decode_rgb
from transforms.options import FramesOptions
from transforms.update import ShardUpdate

SIZE_PX = (340, 256)
FPS, FRAMES, WINDOW, SHARDS = 25, 250, 64, 4
SUFFIXES = {".mp4", ".mkv", ".avi", ".webm", ".mov"}
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")

Read = Callable[[str, int], NDArray[np.uint8]]
"""(clip, first frame) → 64 frames."""


def moving_pictures(seed: int) -> Iterator[NDArray[np.uint8]]:
    """Ten seconds of a hand-held camera over one photograph, with people cut from others that move in front of it.

    They sway and bend rather than slide, light changes, and the sensor is a little noisy, as in videos of people.
    """
    from skimage import data

    chance = np.random.default_rng(seed)
    back, *others = (
        getattr(data, PHOTOGRAPHS[i])() for i in chance.choice(len(PHOTOGRAPHS), 3, replace=False)
    )
    fronts = [cv2.resize(photo[:300, 100:320], (100, 140), interpolation=cv2.INTER_AREA) for photo in others]
    y_HW, x_HW = np.mgrid[: SIZE_PX[1], : SIZE_PX[0]].astype(np.float32)
    room = (back.shape[1] - 240, back.shape[0] - 180)
    phase = chance.uniform(0, 6, 4)
    for t in range(FRAMES):
        shake = chance.normal(scale=0.7, size=2)
        left = room[0] * (0.5 + 0.4 * np.sin(t / 35 + phase[0])) + shake[0]
        top = room[1] * (0.5 + 0.4 * np.cos(t / 45 + phase[1])) + shake[1]
        scale = 0.6 + 0.15 * np.sin(t / 40)
        image = _warped(back, left + scale * x_HW, top + scale * y_HW)
        for front, pace in zip(fronts, (9, 13), strict=True):
            across, down = 120 + 100 * np.sin(t / pace + phase[2]), 58 + 40 * np.sin(t / 7 + pace)
            bend = 8 * np.sin(y_HW / 17 + t / 4) + 5 * np.sin(x_HW / 13 - t / 5)
            columns, rows = x_HW - across + bend, y_HW - down + bend / 2
            inside = (columns >= 0) & (columns < 99) & (rows >= 0) & (rows < 139)
            image = np.where(inside[..., None], _warped(front, columns, rows), image)
        light = 1 + 0.06 * np.sin(t / 5 + phase[3])
        noise = chance.normal(scale=1.5, size=image.shape)
        yield np.clip(image * light + noise, 0, 255).astype(np.uint8)


def _warped(
    photo: NDArray[np.uint8], x_HW: NDArray[np.float32], y_HW: NDArray[np.float32]
) -> NDArray[np.uint8]:
    maps = (x_HW.astype(np.float32), y_HW.astype(np.float32))
    return np.asarray(cv2.remap(photo, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.uint8)


def write_video(path: Path, seed: int) -> None:
    """H.264 as it is found in data sets, but for a key frame only every 250 frames."""
    options = {
        "preset": "medium",
        "crf": "23",
        "g": str(FRAMES),
        "keyint_min": str(FRAMES),
        "sc_threshold": "0",
    }
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE_PX, "yuv420p"
        for image_HW3 in moving_pictures(seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HW3, format="rgb24")))
        container.mux(stream.encode(None))


def put_frames(workspace: str, videos: Sequence[str], shard_format: str, jpeg_quality: int) -> StoreReader:
    """The frames store of these videos, made by the stage as in a run; clips are named by their paths."""
    clips = make_clips([{"clip_id": v, "uri": v, "label": "any"} for v in sorted(videos)])
    stage = FramesStage(FramesOptions(jpeg_quality=jpeg_quality))
    spec = {"stage": stage.name, "version": stage.version, "options": dict(stage.spec())}
    shards = VideoClips(clips, identify_all(workspace, clips.uris, lambda done, total: None), spec, SHARDS)
    store, encoding = Store(workspace, "frames"), Encoding(shard_format, SHARDS)
    planned = plan_stage(store, spec=spec, encoding=encoding, expected=expected_from_videos(spec, shards))
    for task in build_tasks(planned, videos=shards):
        ShardUpdate(stage, store, encoding, spec).run(task)
    commit(planned, max_rejected=1)
    return StoreReader(workspace, "frames")


@dataclass(frozen=True)
class FromStore:
    """What the trainer does: the store's reader, then libjpeg-turbo."""

    reader: StoreReader

    def __call__(self, clip: str, start: int) -> NDArray[np.uint8]:
        entry = self.reader.clips[clip]
        out_THWC = np.empty((WINDOW, entry.height_px, entry.width_px, 3), np.uint8)
        for index, record in enumerate(self.reader.records(clip, start, start + WINDOW)):
            decode_rgb(record.image, out_THWC[index])
        return out_THWC


@dataclass(frozen=True)
class FromPyAV:
    """Seeks to the key frame before, decodes on, converts only what is wanted; one thread.

    Attributes:
        sizes: (width, height) of each clip in the store.
        skip: do not decode those frames before the window that no other frame needs.
    """

    sizes: dict[str, tuple[int, int]]
    skip: bool = False
    _open: dict[str, av.container.InputContainer] = field(default_factory=dict)

    def __call__(self, clip: str, start: int) -> NDArray[np.uint8]:
        container = self._open.get(clip)
        if container is None:
            container = self._open[clip] = av.open(clip)
            container.streams.video[0].codec_context.thread_count = 1
        stream = container.streams.video[0]
        ticks = 1 / (stream.average_rate * stream.time_base)
        first = (stream.start_time or 0) + round(start * ticks)
        container.seek(first, stream=stream)
        width_px, height_px = self.sizes[clip]
        out_THWC = np.empty((WINDOW, height_px, width_px, 3), np.uint8)
        found = 0
        for packet in container.demux(stream):
            needed = packet.pts is None or packet.pts >= first
            stream.codec_context.skip_frame = "NONREF" if self.skip and not needed else "DEFAULT"
            for frame in packet.decode():
                if frame.pts < first:
                    continue
                out_THWC[found] = frame.to_ndarray(format="rgb24", width=width_px, height=height_px)
                found += 1
                if found == WINDOW:
                    return out_THWC
        raise ValueError(f"{clip} ends within the window")


@dataclass(frozen=True)
class FromDecord:
    """decord with one decoding thread."""

    sizes: dict[str, tuple[int, int]]
    _open: dict[str, object] = field(default_factory=dict)

    def __call__(self, clip: str, start: int) -> NDArray[np.uint8]:
        import decord

        if clip not in self._open:
            width_px, height_px = self.sizes[clip]
            self._open[clip] = decord.VideoReader(clip, width=width_px, height=height_px, num_threads=1)
        return self._open[clip].get_batch(range(start, start + WINDOW)).asnumpy()  # type: ignore[attr-defined]


def sides(parquet: StoreReader, tfrecord: StoreReader) -> dict[str, Read]:
    sizes = {clip: (entry.width_px, entry.height_px) for clip, entry in parquet.clips.items()}
    found: dict[str, Read] = {
        "Parquet store": FromStore(parquet),
        "TFRecord store": FromStore(tfrecord),
        "PyAV": FromPyAV(sizes),
        "PyAV, skipping": FromPyAV(sizes, skip=True),
    }
    try:
        import decord  # noqa: F401
    except ModuleNotFoundError:
        print("decord is not installed and not measured: pip install decord2")
    else:
        found["decord"] = FromDecord(sizes)
    return found


def check_alike(reads: dict[str, Read], places: Sequence[tuple[str, int]]) -> None:
    """Every side shows the same frames: JPEG and colour conversion change pixels by little, another frame by more."""
    for clip, start in places:
        expected = reads["PyAV"](clip, start).astype(np.int16)
        for name, read in reads.items():
            error = np.abs(read(clip, start) - expected).mean()
            assert error < 4, f"{name} reads something else: {clip}, {start}: mean difference {error:.1f}"


def measure(
    parquet: StoreReader, tfrecord: StoreReader, *, windows: int, rounds: int, check: bool
) -> dict[str, float]:
    """Windows a second of each side, on one core."""
    reads, chance = sides(parquet, tfrecord), np.random.default_rng(0)
    clips = [(clip, entry.frames) for clip, entry in parquet.clips.items() if entry.frames > WINDOW]
    chosen = [clips[i] for i in chance.integers(len(clips), size=windows)]
    places = [(clip, int(chance.integers(0, frames - WINDOW + 1))) for clip, frames in chosen]
    for clip, _ in clips:  # opens every file
        for name, read in reads.items():
            if name != "decord":
                read(clip, 0)
    # decord decodes on in its own thread after it has answered, on the others' bill: it is measured alone, last.
    alone = {name: reads.pop(name) for name in ("decord",) if name in reads}
    spent_s = _spent(reads, places, rounds) | (_spent(alone, places, rounds) if alone else {})
    if check:
        check_alike(reads | alone, places[:6])
    return {name: windows / seconds for name, seconds in spent_s.items()}


def _spent(reads: dict[str, Read], places: Sequence[tuple[str, int]], rounds: int) -> dict[str, float]:
    """CPU seconds that each side needs for all places, the sides in turn; medians over rounds."""
    if "decord" in reads:
        for clip in {clip for clip, _ in places}:
            reads["decord"](clip, 0)
    seconds = np.zeros((rounds, len(reads)))
    for spent_s in seconds:
        for clip, start in places:
            for index, read in enumerate(reads.values()):
                start_s = process_time()
                read(clip, start)
                spent_s[index] += process_time() - start_s
    return dict(zip(reads, np.median(seconds, axis=0).tolist(), strict=True))


def compare(
    name: str, videos: Sequence[str], *, windows: int, rounds: int, check: bool, jpeg_quality: int
) -> tuple[float, float]:
    """Builds both stores, prints rates and sizes.

    Returns:
        Our Parquet rate over that of the better peer, and over PyAV's with skipping.
    """
    with tempfile.TemporaryDirectory() as folder:
        parquet = put_frames(f"{folder}/parquet", videos, "parquet", jpeg_quality)
        shutil.copytree(f"{folder}/parquet", f"{folder}/tfrecord")
        tfrecord = put_frames(f"{folder}/tfrecord", videos, "tfrecord", jpeg_quality)
        rates = measure(parquet, tfrecord, windows=windows, rounds=rounds, check=check)
        frames = parquet.snapshot.totals["frames"]
        print(f"{name}: {len(parquet.clips)} clips, {frames} frames, JPEG quality {jpeg_quality}")
        for side, rate in rates.items():
            print(f"  {side:<15} {rate:6.1f} windows/s  {1000 / rate:6.1f} ms a window")
        sizes = {"Parquet": parquet.snapshot.totals["size_bytes"]}
        sizes |= {"TFRecord": tfrecord.snapshot.totals["size_bytes"]}
        sizes |= {"the videos": sum(os.path.getsize(video) for video in parquet.clips)}
    print("  bytes a frame: " + ", ".join(f"{k} {v / frames:.0f}" for k, v in sizes.items()), flush=True)
    best = max(rates[side] for side in ("PyAV", "decord") if side in rates)
    return rates["Parquet store"] / best, rates["Parquet store"] / rates["PyAV, skipping"]


def show_sizes(workspace: str) -> None:
    """Bytes a frame of every store that a workspace holds."""
    root = Path(workspace)
    for path in sorted(root.glob("*/snapshot.json")) + sorted(root.glob("render/*/snapshot.json")):
        name = path.parent.relative_to(root).as_posix()
        snapshot = Store(workspace, name).require_snapshot()
        per_frame = snapshot.totals["size_bytes"] / snapshot.totals["frames"]
        print(f"  {name:<24} {snapshot.encoding.format:<8} {per_frame:8.0f} bytes a frame")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", help="folder of real clips, measured beside")
    parser.add_argument("--workspace", help="print the bytes a frame of its stores")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--windows", type=int, default=24, help="random windows a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jpeg_quality", type=int, default=FramesOptions.jpeg_quality)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    shape = {name: getattr(options, name) for name in ("windows", "rounds", "jpeg_quality")}
    if options.workspace:
        print(f"stores of {options.workspace}:")
        show_sizes(options.workspace)
    if options.videos:
        paths = sorted(str(p) for p in Path(options.videos).rglob("*") if p.suffix in SUFFIXES)
        chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, options.clips).astype(int))]
        ratios = compare(options.videos, chosen, **shape, check=False)  # of another frame rate than the store
        print(
            "  Parquet over the best peer: {:.2f}, over PyAV with skipping {:.2f}".format(*ratios), flush=True
        )
    with tempfile.TemporaryDirectory() as folder:
        made = [f"{folder}/{index}.mp4" for index in range(options.clips)]
        for seed, path in enumerate(made):
            write_video(Path(path), seed)
        ratios = compare("ten-second clips, key frame every 250", made, **shape, check=True)
    print(f"RATIO window_reads_vs_pyav_skipping {ratios[1]:.2f}")
    print(f"RATIO window_reads_vs_best_peer {ratios[0]:.2f}")


if __name__ == "__main__":
    main()
