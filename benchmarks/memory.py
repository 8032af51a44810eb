"""Peak memory of the data stages: it must grow neither with the number of clips nor with the length of a clip.

    python benchmarks/memory.py [--stages frames pose render flow]

Runs the stages over 30 and over 120 short clips, and over a ten-second and a ten-minute clip, and prints the peak
resident memory of the largest process of each run. The peer of each run is its smaller twin, so that 1 means no
growth and less than 1 means growth.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIZE_PX = (128, 96)
FPS = 25
POLL_S = 0.05


def write_video(path: Path, seconds: float) -> None:
    """A moving bright square on noise; small, so that the ten minutes take minutes."""
    width, height = SIZE_PX
    noise_HW3 = np.random.default_rng(0).integers(0, 80, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(round(seconds * FPS)):
            image_HW3 = noise_HW3.copy()
            left = index * 2 % (width - 24)
            image_HW3[30:60, left : left + 24] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HW3, format="rgb24")))
        container.mux(stream.encode(None))


def peaks_of(process: subprocess.Popen[bytes]) -> dict[int, float]:
    """Peak resident memory in MB of each process of a run, looked at until it ends."""
    peaks: dict[int, float] = {}
    while process.poll() is None:
        for pid in descendants(process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
            if lines:
                peaks[pid] = int(lines[0].split()[1]) / 1024
        time.sleep(POLL_S)
    return peaks


def descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def peak_mb(videos: Path, stages: list[str], shards: int) -> float:
    """Peak of the largest process while the stages run over a folder of videos."""
    with tempfile.TemporaryDirectory() as workspace:
        command = [
            *(sys.executable, "-m", "pipelines.cli", "run", *stages, "--workspace", workspace),
            *("--clips.folder", str(videos), "--frames.shorter_side_px", str(min(SIZE_PX))),
            *("--store.num_shards", str(shards)),
        ]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ) as process:
            peaks = peaks_of(process)
        if process.returncode:
            raise SystemExit(f"perfnet run failed with {process.returncode}: {' '.join(command)}")
    return max(peaks.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", nargs="+", default=["frames", "pose", "render", "flow"])
    stages = parser.parse_args().stages
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            "30 clips": (30, 1.0),
            "120 clips": (120, 1.0),
            "ten seconds": (1, 10.0),
            "ten minutes": (1, 600.0),
        }
        found = {}
        for name, (clips, seconds) in cases.items():
            videos = Path(folder) / name.replace(" ", "_")
            for index in range(clips):
                write_video(videos / "square" / f"{index:03d}.mp4", seconds)
            found[name] = peak_mb(videos, stages, shards=8 if clips > 1 else 1)
            print(f"{name}: largest process {found[name]:.0f} MB", flush=True)
    print(f"RATIO memory_30_vs_120_clips {found['30 clips'] / found['120 clips']:.2f}")
    print(f"RATIO memory_ten_seconds_vs_ten_minutes {found['ten seconds'] / found['ten minutes']:.2f}")


if __name__ == "__main__":
    main()
