"""What training reads a second: 64-frame windows, cropped, half of them mirrored, through the trainer's own loader.

    python benchmarks/loader.py [--clips 8] [--flat 2000]

Each measurement stands beside its peers in the same rounds, in CPU time of one core, medians over the rounds:
bare decoding of the same JPEGs by the same decoder, OpenCV's decoder, bare decoding of all three streams' bytes, and
PyAV decoding the same windows from 10-second MP4 files with a key frame every 250 frames. Nothing is cached. Then
the process's memory after 500 and after 2000 windows.

Measured on two AMD EPYC cores that ten other programs used at the same time (456 × 256, 34 KB a JPEG, simplejpeg
1.9, OpenCV 5.0): a window 47 ms, bare decoding 33, OpenCV's 35, PyAV 135; three streams 199 ms, bare decoding 151.
Of the difference, reading the shard takes about 4 ms, its checksums a third of that, and mirroring half of the windows
2.5. In loader processes fresh shared memory comes on top, up to 15 ms a window on this virtual machine.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from models.data import AlignedWindows, EpochBatches, RandomWindows, loader
from models.options import DataOptions, ModelOptions
from models.selection import LabelledClip, Selection, select_clips
from models.windows import Window
from stores import keys
from stores.clips import make_clips, write_clips
from stores.records import FlowPair, Frame, Record
from stores.shards import ShardBuilder
from stores.store import Store
from stores.summaries import Encoding, ShardReference, ShardSummary, Snapshot
from transforms import flow
from transforms.images import decode_rgb, encode_rgb

WIDTH_PX, HEIGHT_PX, FRAMES, FPS = 456, 256, 250, 25
STORES = {"rgb": "frames", "pose": "render/rgb-bar-13-ratio", "flow": "flow"}
SEED = 0
FLAT_FROM = 500


def scene(seed: int) -> Iterator[NDArray[np.uint8]]:
    """A textured ground that drifts, and darker patches that move over it: as many bytes a JPEG as Kinetics has."""
    random = np.random.default_rng(seed)
    coarse = cv2.resize(random.uniform(0, 255, (24, 40, 3)).astype(np.float32), (2 * WIDTH_PX, 2 * HEIGHT_PX))
    ground = np.clip(coarse + 8 * random.standard_normal((*coarse.shape[:2], 1)), 0, 255).astype(np.uint8)
    ground = cv2.GaussianBlur(ground, (0, 0), 0.8)
    for t in range(FRAMES):
        y, x = (100 * (1 + np.sin(0.03 * t + k)) for k in range(2))
        shift = np.array([[1, 0, -x], [0, 1, -y]])  # by parts of a pixel, as cameras move
        image = cv2.warpAffine(ground, shift, (WIDTH_PX, HEIGHT_PX))
        for k in range(3):
            left, top = (int(v) % 210 for v in (40 * k + 3 * t, 60 * k + 2 * t))
            image[top : top + 40, left : left + 30] //= 2
        yield image


def write_video(path: Path, seed: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "250"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for image in scene(seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def frames(path: Path, *, with_line: bool) -> Iterator[Frame]:
    """The frames of a video as JPEG; with a line across them as a skeleton would be drawn."""
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            image = frame.to_ndarray(format="rgb24")
            if with_line:
                cv2.line(image, (100, 40), (180, 200), (255, 0, 0), 3)
            yield Frame(index, 40_000 * index, encode_rgb(image, jpeg_quality=95))


def flows(seed: int) -> Iterator[FlowPair]:
    """Flow of things that move over a ground that hardly does, as PNG."""
    random = np.random.default_rng(seed)
    for index in range(FRAMES - 1):
        field_HW2 = cv2.resize(random.normal(0, 0.3, (8, 10, 2)).astype(np.float32), (WIDTH_PX, HEIGHT_PX))
        left = 3 * index % 250
        field_HW2[60:160, left : left + 60] += 3
        yield FlowPair(index, *flow.encode(flow.quantise(field_HW2, 20.0), "png"))


def put_store(workspace: str, name: str, clips: dict[str, Callable[[], Iterable[Record]]]) -> None:
    """Commits a store of one shard."""
    spec = {"stage": name.split("/")[0], "version": 1, "options": {}}
    store, encoding = Store(workspace, name), Encoding()
    named = {clip_id: keys.digest([spec, clip_id]) for clip_id in clips}
    key = keys.shard_key(spec, [keys.held_digest(named.items())])
    with ShardBuilder(store, 0, key, encoding, spec) as shard:
        for clip_id, records in clips.items():
            shard.compute(clip_id, named[clip_id], records(), width_px=WIDTH_PX, height_px=HEIGHT_PX)
        data, sha256, size_bytes = shard.publish()
    entries = tuple(shard.entries)
    summary = ShardSummary(
        name, 0, key, encoding, spec, data, sha256, size_bytes, entries, (), len(entries), 0, 1
    )
    reference = ShardReference.of(summary, store.put_summary(summary))
    store.put_snapshot(Snapshot(name, spec, encoding, (reference,)))


def make_workspace(folder: Path, clips: int) -> Selection:
    """Stores of all streams made from as many videos."""
    paths = {f"clip{k:02d}": folder / f"clip{k:02d}.mp4" for k in range(clips)}
    for seed, path in enumerate(paths.values()):
        write_video(path, seed)
    rows = [
        {"clip_id": name, "uri": str(path), "label": "x", "split": "train"} for name, path in paths.items()
    ]
    write_clips(str(folder), make_clips(rows))
    for store, line in ((STORES["rgb"], False), (STORES["pose"], True)):
        put_store(
            str(folder), store, {n: lambda p=p, w=line: frames(p, with_line=w) for n, p in paths.items()}
        )
    put_store(str(folder), "flow", {n: lambda s=s: flows(s) for s, n in enumerate(paths)})
    return select_clips(str(folder), streams=STORES, options=ModelOptions())


class Measured:
    """CPU milliseconds by what was measured, one value a round."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, name: str, work: Callable[[], object], windows: int) -> None:
        began_s = time.process_time()
        work()
        self.values.setdefault(name, []).append(1000 * (time.process_time() - began_s) / windows)

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def ratio(self, peer: str, ours: str) -> float:
        """Median over the rounds of peer / ours: both saw the same load of the machine."""
        pairs = zip(self.values[peer], self.values[ours], strict=True)
        return statistics.median(p / o for p, o in pairs)


def encoded(selection: Selection, clip: LabelledClip, window: Window, stream: str) -> list[Record]:
    records = clip.frames - (stream == "flow")
    wanted = np.unique(window.indices(records))
    return selection.readers[stream].window(clip.clip_id, int(wanted[0]), int(wanted[-1]) + 1)


def decode_bare(records: list[Record]) -> None:
    for record in records:
        if isinstance(record, FlowPair):
            flow.decode_plane(record.x)
            flow.decode_plane(record.y)
        else:
            decode_rgb(record.image)


def decode_opencv(records: list[Record]) -> None:
    for record in records:
        cv2.imdecode(np.frombuffer(record.image, np.uint8), cv2.IMREAD_COLOR_RGB)


def decode_video(path: str, window: Window) -> NDArray[np.uint8]:
    """The window from the MP4 itself: seek to the key frame before it, decode on, cut."""
    rows = slice(window.top_px, window.top_px + window.height_px)
    columns = slice(window.left_px, window.left_px + window.width_px)
    out = np.empty((window.frames, window.height_px, window.width_px, 3), np.uint8)
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(round(window.start / FPS / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            at = round(float(frame.pts * stream.time_base) * FPS) - window.start
            if 0 <= at < window.frames:
                out[at] = frame.to_ndarray(format="rgb24")[rows, columns]
            if at >= window.frames - 1:
                return out
    raise ValueError(f"{path} ended before frame {window.start + window.frames}")


def measure(selection: Selection, folder: Path, rounds: int) -> Measured:
    """In each round one batch of every clip through each way of reading it."""
    clips = selection.by_split["train"]
    options = DataOptions(cache_mb=0)  # as in training, half of the windows are mirrored
    choose = RandomWindows(options, SEED)
    alone = {"rgb": selection.readers["rgb"]}
    rgb, three = (AlignedWindows(r, clips, choose=choose) for r in (alone, selection.readers))
    measured = Measured()
    for epoch in range(rounds):
        batches = EpochBatches(len(clips), batch_size=2, seed=SEED)
        batches.set_epoch(epoch)
        windows = [(clip, choose(clip, (epoch, i))) for i, clip in enumerate(clips)]
        jpegs = [encoded(selection, clip, window, "rgb") for clip, window in windows]
        streams = [encoded(selection, c, w, s) for c, w in windows for s in STORES]
        n = len(clips)
        measured.add("bare", lambda j=jpegs: [decode_bare(r) for r in j], n)
        measured.add("window", lambda b=batches: [None for _ in loader(rgb, b)], n)
        measured.add("opencv", lambda j=jpegs: [decode_opencv(r) for r in j], n)
        measured.add("bare three", lambda s=streams: [decode_bare(r) for r in s], n)
        measured.add("three", lambda b=batches: [None for _ in loader(three, b)], n)
        measured.add(
            "pyav", lambda w=windows: [decode_video(str(folder / f"{c.clip_id}.mp4"), x) for c, x in w], n
        )
    return measured


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def memory(selection: Selection, windows: int) -> tuple[float, float]:
    """Megabytes after FLAT_FROM and after all windows of all three streams, of 16 frames to save time."""
    clips = selection.by_split["train"]
    options = DataOptions(cache_mb=0, window_frames=16)
    dataset = AlignedWindows(selection.readers, clips, choose=RandomWindows(options, SEED))
    batches, seen, early = EpochBatches(len(clips), batch_size=2, seed=SEED), 0, 0.0
    for epoch in range(-(-windows // len(clips))):
        batches.set_epoch(epoch)
        for batch in loader(dataset, batches):
            seen += len(batch["class"])
            early = early if seen > FLAT_FROM else resident_mb()
    return early, resident_mb()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=8, help="an even number of clips")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--flat", type=int, default=2000, help="windows of the memory test; 0 leaves it out")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        selection = make_workspace(Path(folder), arguments.clips)
        sizes = [len(r.image) for r in selection.readers["rgb"].window("clip00", 0, 50)]
        print(f"{WIDTH_PX} × {HEIGHT_PX}, {statistics.mean(sizes) / 1000:.1f} KB a JPEG", flush=True)
        measured = measure(selection, Path(folder), arguments.rounds)
        for name in measured.values:
            ms = measured.median(name)
            print(f"{name:<11} {ms:7.1f} ms a window of 64 frames, {1000 / ms:6.1f} windows/s a core")
        print(f"RATIO window_vs_jpeg_decode {measured.ratio('bare', 'window'):.2f}")
        print(f"RATIO window_vs_opencv_decode {measured.ratio('opencv', 'window'):.2f}")
        print(f"RATIO three_streams_vs_decode {measured.ratio('bare three', 'three'):.2f}")
        print(f"RATIO window_vs_pyav {measured.ratio('pyav', 'window'):.2f}")
        if arguments.flat:
            early, late = memory(selection, arguments.flat)
            print(f"memory: {early:.0f} MB after {FLAT_FROM} windows, {late:.0f} MB after {arguments.flat}")
            print(f"RATIO memory_early_vs_late {early / late:.2f}")


if __name__ == "__main__":
    main()
