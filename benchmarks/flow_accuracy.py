"""How far our flow is from OpenCV's and from the truth, and what each way of storing it costs.

    python benchmarks/flow_accuracy.py FOLDER [--number 31] [--pairs 9] [--truth FOLDER]

FOLDER holds real videos, searched with its subfolders; evenly chosen ones give `pairs` pairs of frames each, shorter
side 256 px, repeated frames left out. OpenCV's DualTVL1 takes about a second a pair, so that 279 pairs take five
minutes. --truth names a Middlebury folder with frame10.png, frame11.png and flow10.flo.
"""

import argparse
import os
import sys
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from flow import SHORTER_SIDE_PX, SUFFIXES, read_clip
from numpy.typing import NDArray

from transforms.flow import decode, dequantise, encode, quantise
from transforms.images import encode_rgb
from transforms.options import TVL1Parameters
from transforms.stderr import stderr_silenced
from transforms.tvl1 import TVL1Solver

START, BOUND_PX = 20, 20.0
FRAME_QUALITIES = (99, 97, 95, 92, 90, 85)
ENCODINGS = (("png", 95), ("jpeg", 95), ("jpeg", 80), ("jpeg3", 95))

Flow = NDArray[np.float32]


def end_point_error(found_HW2: Flow, expected_HW2: Flow) -> NDArray[np.float32]:
    return np.linalg.norm(found_HW2 - expected_HW2, axis=-1)


def moving_pairs(path: Path, pairs: int) -> list[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """(frame, grey image, next grey image) from frame 20 on, without repeated frames."""
    with stderr_silenced():
        clip = read_clip(path, START, pairs + 1)
    return [
        (START + i, first, second)
        for i, (first, second) in enumerate(pairwise(clip))
        if not np.array_equal(first, second)
    ]


class Against:
    """Differences to OpenCV of pair after pair."""

    def __init__(self) -> None:
        self._ours = TVL1Solver(TVL1Parameters())
        self._opencv = cv2.optflow.DualTVL1OpticalFlow_create()
        self._pooled: list[NDArray[np.float32]] = []
        self._motion: list[float] = []
        self._worst = (0.0, "none")

    def add(self, name: str, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Flow:
        found, expected = self._ours.flow(first, second), self._opencv.calc(first, second, None)
        error = end_point_error(found, expected)
        self._pooled.append(error.ravel())
        self._motion.append(float(np.linalg.norm(expected, axis=-1).mean()))
        said = f"{name}: mean {error.mean():.4f} px, 99th percentile {np.quantile(error, 0.99):.3f} px"
        self._worst = max(self._worst, (float(error.mean()), said))
        return found

    def show(self) -> None:
        pooled = np.concatenate(self._pooled)
        print(f"against OpenCV {cv2.__version__}: {len(self._pooled)} pairs, all pixels pooled")
        print(f"  mean {pooled.mean():.4f} px, median {np.median(pooled):.4f}, ", end="")
        print(f"99th percentile {np.quantile(pooled, 0.99):.3f}, over 1 px {100 * (pooled > 1).mean():.3f} %")
        print(f"  mean motion {np.mean(self._motion):.2f} px; worst pair: {self._worst[1]}")


class Stored:
    """Bytes and errors of one encoding."""

    def __init__(self, encoding: str, quality: int) -> None:
        self._encoding, self._quality = encoding, quality
        self._bytes: list[int] = []
        self._errors: list[NDArray[np.float32]] = []

    def add(self, flow_HW2: Flow) -> None:
        images = encode(quantise(flow_HW2, BOUND_PX), self._encoding, jpeg_quality=self._quality)
        self._bytes.append(sum(map(len, images)))
        self._errors.append(end_point_error(dequantise(decode(*images), BOUND_PX), flow_HW2).ravel())

    def show(self) -> None:
        errors = np.concatenate(self._errors)
        quality = "" if self._encoding == "png" else f", quality {self._quality}"
        print(f"  {self._encoding}{quality}: {np.mean(self._bytes):,.0f} bytes a frame, mean error ", end="")
        print(f"{errors.mean():.3f} px, 99th percentile {np.quantile(errors, 0.99):.2f} px")


def show_truth(folder: Path) -> None:
    """End-point error of both on a Middlebury pair, and of ours on the same frames as the frames store keeps them."""
    raw = (folder / "flow10.flo").read_bytes()
    columns, rows = np.frombuffer(raw[4:12], np.int32)
    truth = np.frombuffer(raw[12:], np.float32).reshape(rows, columns, 2)
    known = (np.abs(truth) < 1e3).all(axis=-1)  # unknown flow is marked by huge values
    files = [(folder / f"frame{i}.png").read_bytes() for i in (10, 11)]
    first, second = map(grey, files)
    solver = TVL1Solver(TVL1Parameters())
    ours = solver.flow(first, second)
    opencv = cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None)
    errors = [end_point_error(found, truth)[known].mean() for found in (ours, opencv)]
    print(f"{folder.name}: end-point error {errors[0]:.4f} px, OpenCV {errors[1]:.4f} px")
    for quality in FRAME_QUALITIES:
        stored = [grey(as_jpeg(file, quality)) for file in files]
        error = end_point_error(solver.flow(*stored), truth)[known].mean()
        print(f"  frames as JPEG, quality {quality}: {error:.4f} px")


def grey(image: bytes) -> NDArray[np.uint8]:
    return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)


def as_jpeg(image: bytes, quality: int) -> bytes:
    blue_green_red = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    return encode_rgb(cv2.cvtColor(blue_green_red, cv2.COLOR_BGR2RGB), jpeg_quality=quality)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="real videos")
    parser.add_argument("--number", type=int, default=31, help="videos to take, evenly")
    parser.add_argument("--pairs", type=int, default=9, help="pairs a video")
    parser.add_argument("--truth", type=Path, help="a Middlebury folder")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix in SUFFIXES)
    if not paths:
        raise SystemExit(f"{arguments.folder}: no video found")
    against, stored = Against(), [Stored(*encoding) for encoding in ENCODINGS]
    for index in np.unique(np.linspace(0, len(paths) - 1, arguments.number).astype(int)):
        for frame, first, second in moving_pairs(paths[index], arguments.pairs):
            flow_HW2 = against.add(f"{paths[index].name}, frames {frame} and {frame + 1}", first, second)
            for encoding in stored:
                encoding.add(flow_HW2)
    against.show()
    print(f"stored with a bound of {BOUND_PX:g} px at a shorter side of {SHORTER_SIDE_PX} px:")
    for encoding in stored:
        encoding.show()
    if arguments.truth:
        show_truth(arguments.truth)


if __name__ == "__main__":
    main()
