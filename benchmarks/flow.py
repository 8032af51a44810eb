"""Speed of optical flow against OpenCV's DualTVL1, and where the time goes.

    python benchmarks/flow.py --clips FOLDER        one CPU core, then two; real clips
    python benchmarks/flow.py                       the same on a synthetic clip
    python benchmarks/flow.py --device cuda         PyTorch on a GPU (needs torch, numpy, numba and any OpenCV)

Each RATIO line is paired: both sides alternate within one run, and the median over clips is printed. What runs on
one thread is measured in CPU time, which other work on the machine disturbs less; the rest by the clock.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from numpy.typing import NDArray

from transforms.options import TVL1Parameters

SUFFIXES = {".mp4", ".mkv", ".avi", ".webm", ".mov"}
SHORTER_SIDE_PX = 256

Clips = dict[str, list[NDArray[np.uint8]]]


def synthetic_clip(frames: int, width_px: int = 340, height_px: int = 256) -> list[NDArray[np.uint8]]:
    """Noise of many scales in which a disc moves, turns a little and grows over a slowly moving background."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height_px, :width_px].astype(np.float32)
    waves = [(*rng.normal(scale=0.3, size=2), rng.uniform(0, 6.28), rng.uniform(2, 12)) for _ in range(40)]

    def texture(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        return sum((a * np.sin(u * x + v * y + phase) for u, v, phase, a in waves), np.zeros_like(x))

    clip = []
    for t in range(frames):
        centre_x, centre_y, turn, grow = 90 + 3.0 * t, 128 + 1.5 * t, 0.03 * t, 1 + 0.01 * t
        across, down = (x - centre_x) / grow, (y - centre_y) / grow
        disc = np.hypot(across, down) < 60
        inner = texture(
            across * np.cos(turn) - down * np.sin(turn), across * np.sin(turn) + down * np.cos(turn)
        )
        image = np.where(disc, 140 + inner, 110 + texture(x - 0.4 * t, y + 0.2 * t))
        noise = np.random.default_rng(t + 1).normal(scale=1.5, size=image.shape)
        clip.append(np.clip(image + noise, 0, 255).astype(np.uint8))
    return clip


def read_clip(path: Path, start: int, frames: int) -> list[NDArray[np.uint8]]:
    """Grey frames [start, start + frames) of a video, shorter side 256 px; fewer where it ends."""
    import cv2

    video, clip = cv2.VideoCapture(str(path)), []
    for index in range(start + frames):
        found, image = video.read()
        if not found:
            break
        if index >= start:
            scale = SHORTER_SIDE_PX / min(image.shape[:2])
            size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
            clip.append(cv2.cvtColor(cv2.resize(image, size), cv2.COLOR_BGR2GRAY))
    video.release()
    return clip


def read_clips(folder: str | None, clips: int, frames: int) -> Clips:
    """Evenly chosen clips of a folder, without those that are too short or hold repeated frames."""
    if folder is None:
        return {"synthetic": synthetic_clip(frames)}
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix in SUFFIXES)
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, clips).astype(int))] if paths else []
    found: Clips = {}
    for path in chosen:
        clip = read_clip(path, 20, frames)
        still = any(np.array_equal(a, b) for a, b in pairwise(clip))
        if len(clip) == frames and not still:
            found[str(path.relative_to(folder))] = clip
    if not found:
        raise SystemExit(f"--clips {folder}: no video of at least {frames + 20} frames found")
    return found


def seconds(work: Callable[[], Any], clock: Callable[[], float] = perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def bench_kernel(clips: Clips) -> None:
    """One pair at a time on one thread, nothing shared between pairs; also the difference in px."""
    import cv2

    from transforms.tvl1 import TVL1Solver

    solver, reference = TVL1Solver(TVL1Parameters()), cv2.optflow.DualTVL1OpticalFlow_create()
    ratios, ours_s, differences = [], [], []
    for name, clip in clips.items():
        opencv_s, clip_s, clip_differences = 0.0, 0.0, []
        solver.flow(clip[0], clip[1])
        for first, second in pairwise(clip):
            start = process_time()
            expected = reference.calc(first, second, None)
            middle = process_time()
            found = solver.flow(first, second)
            clip_s += process_time() - middle
            opencv_s += middle - start
            clip_differences.append(np.linalg.norm(found - expected, axis=-1).ravel())
        pairs = len(clip) - 1
        ratios.append(opencv_s / clip_s)
        ours_s.append(clip_s / pairs)
        differences.append(np.concatenate(clip_differences))
        print(
            f"  {name}: {clip[0].shape[1]}x{clip[0].shape[0]}, OpenCV {1e3 * opencv_s / pairs:.0f} ms a pair, "
            f"ours {1e3 * clip_s / pairs:.1f}, ratio {ratios[-1]:.1f}, "
            f"mean difference {differences[-1].mean():.4f} px",
            flush=True,
        )
    pooled = np.concatenate(differences)
    print(f"difference, all pixels: mean {pooled.mean():.4f} px, p99 {np.quantile(pooled, 0.99):.3f} px")
    print(f"ours: median {1e3 * np.median(ours_s):.1f} ms a pair")
    print(f"RATIO kernel_vs_opencv {np.median(ratios):.2f}")


class StoredJpegs:
    """A clip of the frames store, in memory."""

    def __init__(self, clip: list[NDArray[np.uint8]]) -> None:
        import cv2

        self.clip_id = "clip"
        self.frames = len(clip)
        self.height_px, self.width_px = clip[0].shape
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
        self.images = [cv2.imencode(".jpg", cv2.merge([f] * 3), quality)[1].tobytes() for f in clip]

    def records(self) -> Iterator[Any]:
        from stores.records import Frame

        for index, image in enumerate(self.images):
            yield Frame(index, index * 40_000, image)


def run_stage(stage: Any, clip: StoredJpegs, folder: str) -> None:
    """The stage as a worker runs it: frames in, a Parquet shard out."""
    from stores.parquet import SCHEMAS, ParquetShardWriter, row_groups
    from stores.records import FlowPair

    writer = ParquetShardWriter(os.path.join(folder, "shard.parquet"), FlowPair, {})
    for table in row_groups(clip.clip_id, stage.process(clip).records, SCHEMAS[FlowPair]):
        writer.write(table)
    writer.close()


def run_opencv_loop(clip: StoredJpegs, folder: str) -> None:
    """What people write: decode, DualTVL1, scale to bytes, one PNG a plane."""
    import cv2

    tvl1, previous = cv2.optflow.DualTVL1OpticalFlow_create(), None
    for index, image in enumerate(clip.images):
        grey = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
        if previous is not None:
            flow = tvl1.calc(previous, grey, None)
            planes = np.clip(np.rint(flow * (127 / 20.0)) + 128, 0, 255).astype(np.uint8)
            for plane, axis in ((0, "x"), (1, "y")):
                cv2.imwrite(os.path.join(folder, f"{index:05}_{axis}.png"), planes[..., plane])
        previous = grey


def new_stage() -> Any:
    from transforms.flow import FlowStage
    from transforms.options import FlowOptions

    stage = FlowStage(FlowOptions())
    stage.setup()
    return stage


def bench_stage(clips: Clips) -> None:
    """The whole stage against a plain loop, both on one thread, both writing to a local folder."""
    import tempfile

    stage, ratios = new_stage(), []
    with tempfile.TemporaryDirectory() as folder:
        for frames in clips.values():
            clip = StoredJpegs(frames)
            run_stage(stage, StoredJpegs(frames[:2]), folder)
            loop_s = seconds(lambda clip=clip: run_opencv_loop(clip, folder), process_time)
            stage_s = seconds(lambda clip=clip: run_stage(stage, clip, folder), process_time)
            ratios.append(loop_s / stage_s)
    print(f"RATIO stage_vs_opencv_loop {np.median(ratios):.2f}")


_worker: dict[str, Any] = {}
"""The stage and the clip of a worker process, made once by `start_worker`."""


def start_worker(frames: list[NDArray[np.uint8]]) -> None:
    _worker.update(stage=new_stage(), clip=StoredJpegs(frames))
    work_once(0)


def work_once(_: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run_stage(_worker["stage"], _worker["clip"], folder)


def work_alone(frames: list[NDArray[np.uint8]], repeats: int, barrier: Any, results: Any) -> None:
    """Entry point of an independent process; start-up is not counted."""
    start_worker(frames)
    barrier.wait()
    results.put(seconds(lambda: [work_once(i) for i in range(repeats)]))


def two_processes_s(frames: list[NDArray[np.uint8]], repeats: int) -> float:
    """Time of two processes that know nothing of each other, `repeats` clips each."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    results, barrier = context.SimpleQueue(), context.Barrier(2)
    work = [context.Process(target=work_alone, args=(frames, repeats, barrier, results)) for _ in range(2)]
    for process in work:
        process.start()
    found_s = [results.get() for _ in work]
    for process in work:
        process.join()
    return max(found_s)


def two_workers_s(frames: list[NDArray[np.uint8]], repeats: int) -> float:
    """Time of one pool of two workers for the same clips."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(2, start_worker, (frames,)) as pool:
        pool.map(work_once, range(4), chunksize=1)
        return seconds(lambda: pool.map(work_once, range(2 * repeats), chunksize=1))


def two_threads_s(frames: list[NDArray[np.uint8]], repeats: int) -> float:
    """Time of two threads that share one process and one stage, for the same clips."""
    from concurrent.futures import ThreadPoolExecutor

    start_worker(frames)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work_once, range(4)))
        return seconds(lambda: list(pool.map(work_once, range(2 * repeats))))


def bench_scaling(clips: Clips, repeats: int) -> None:
    """Two workers of one job, and two threads, against two independent processes; alternating."""
    frames = next(iter(clips.values()))
    times_s = np.array(
        [[f(frames, repeats) for f in (two_processes_s, two_workers_s, two_threads_s)] for _ in range(3)]
    )
    workers, threads = np.median(times_s[:, :1] / times_s[:, 1:], axis=0)
    print(f"RATIO two_workers_vs_two_processes {workers:.2f}")
    print(f"RATIO two_threads_vs_two_processes {threads:.2f}")


def bench_device(device: str, clips: Clips) -> None:
    """PyTorch on a device: frames a second, plain and fused, and the difference to the Numba result."""
    import torch

    from transforms.tvl1 import TVL1Solver
    from transforms.tvl1_torch import TorchSolver

    clip = next(iter(clips.values()))
    gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if gpu else "CPU"
    expected = np.stack(list(TVL1Solver(TVL1Parameters()).flows(iter(clip))))
    numba_s = seconds(lambda: list(TVL1Solver(TVL1Parameters()).flows(iter(clip))))
    size = f"{clip[0].shape[1]}x{clip[0].shape[0]}"
    print(f"numba, one core: {(len(clip) - 1) / numba_s:.1f} frames/s at {size}")
    for fuse in (False, True) if gpu else (False,):
        solver = TorchSolver(TVL1Parameters(), device=device, fuse=fuse)
        found = np.stack(list(solver.flows(iter(clip))))
        best_s = min(seconds(lambda solver=solver: list(solver.flows(iter(clip)))) for _ in range(2))
        difference = np.linalg.norm(found - expected, axis=-1)
        print(
            f"torch {torch.__version__}, {name}, {'fused' if fuse else 'plain'}: "
            f"{len(found) / best_s:.1f} frames/s at {size}; difference to numba: "
            f"mean {difference.mean():.4f} px, max {difference.max():.2f} px",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--clips", help="folder of videos, searched with its subfolders; none: a synthetic clip"
    )
    parser.add_argument("--number", type=int, default=9, help="clips to take from the folder, evenly")
    parser.add_argument("--frames", type=int, help="frames a clip (default: 5 on the CPU, 129 on a device)")
    parser.add_argument("--device", help="measure PyTorch on this device (cuda, cpu) instead")
    arguments = parser.parse_args()
    frames = arguments.frames or (129 if arguments.device else 5)
    clips = read_clips(arguments.clips, arguments.number, frames)
    if arguments.device:
        bench_device(arguments.device, clips)
        return
    import cv2
    from flow_limits import bench_breakdown, bench_roofline

    cv2.setNumThreads(1)
    bench_kernel(clips)
    bench_stage(clips)
    bench_breakdown(clips)
    bench_roofline()
    bench_scaling(clips, repeats=20)


if __name__ == "__main__":
    main()
