"""Speed of finding people, JPEG in and rows out, beside the bare model call; and of drawing beside JPEG encoding.

    python benchmarks/pose.py                                   the astronaut of scikit-image, MediaPipe only
    python benchmarks/pose.py --pictures FOLDER --movenet FILE  JPEG pictures; a tfjs .json or SavedModel folder too
    python benchmarks/pose.py --movenet FILE --settings         MoveNet under oneDNN off and on

Each RATIO line is paired: both sides alternate within one run, and the median of their ratios is printed. Frames per
second per core are frames by CPU seconds of the whole process, so that a second busy thread does not count as speed.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from stores.records import Frame, People
from transforms.images import decode_rgb, encode_rgb
from transforms.options import PoseOptions
from transforms.pose import PoseStage, make_estimator, model_file
from transforms.render import draw_people

SHORTER_SIDE_PX = 256
FRAMES = 16


class Clip:
    """JPEG frames as a store gives them."""

    def __init__(self, images: list[bytes]) -> None:
        self.clip_id, self.frames, self._images = "clip", len(images), images
        self.height_px, self.width_px = decode_rgb(images[0]).shape[:2]

    def records(self) -> Iterator[Frame]:
        return (Frame(index, index * 40_000, image) for index, image in enumerate(self._images))


def pictures(folder: Path | None) -> list[NDArray[np.uint8]]:
    """RGB pictures with a shorter side of 256 px."""
    if folder is None:
        from skimage.data import astronaut

        found = [astronaut()]
    else:
        found = [decode_rgb(path.read_bytes()) for path in sorted(folder.glob("*.jpg"))]
    if not found:
        raise SystemExit(f"--pictures: no .jpg in {folder}")
    return [_resized(picture_HWC) for picture_HWC in found]


def _resized(picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = SHORTER_SIDE_PX / min(picture_HWC.shape[:2])
    return cv2.resize(picture_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def alternate(repeats: int, *sides: Callable[[], Any]) -> NDArray[np.float64]:
    """Wall and CPU seconds, repeats × sides × 2; the sides take turns."""
    times = np.zeros((repeats, len(sides), 2))
    for turn in range(repeats):
        for index, side in enumerate(sides):
            wall, cpu = perf_counter(), process_time()
            side()
            times[turn, index] = perf_counter() - wall, process_time() - cpu
    return times


def bare_mediapipe(options: PoseOptions, frames: list[NDArray[np.uint8]]) -> Callable[[], Any]:
    """MediaPipe's own call on decoded frames."""
    estimator: Any = make_estimator(options, model_file(options))
    landmarker = estimator._make_landmarker()
    from mediapipe.tasks.python.vision.core.image import Image, ImageFormat

    return lambda: [landmarker.detect(Image(ImageFormat.SRGB, frame_HWC)) for frame_HWC in frames]


def bare_movenet(options: PoseOptions, frames: list[NDArray[np.uint8]]) -> Callable[[], Any]:
    """TensorFlow's call on inputs that are ready."""
    from transforms.pose_movenet import letterbox

    estimator: Any = make_estimator(options, model_file(options))
    inputs = [letterbox(frame, options.input_side_px)[0][None].astype(np.int32) for frame in frames]
    return lambda: [estimator._run(input_1HWC) for input_1HWC in inputs]


def compare_stage(options: PoseOptions, frames: list[NDArray[np.uint8]], repeats: int) -> float:
    """Prints one back end's speed; returns model time ÷ stage time."""
    clip = Clip([encode_rgb(frame_HWC, jpeg_quality=95) for frame_HWC in frames])
    stage = PoseStage(options, model_sha256="", model_path=model_file(options))
    stage.setup()
    bare = (bare_movenet if options.backend == "movenet" else bare_mediapipe)(options, frames)
    bare()
    records: list[Any] = list(stage.process(clip).records)
    people = [len(record.scores_P) for record in records]
    times = alternate(repeats, bare, lambda: list(stage.process(clip).records))
    model, whole = np.median(times, axis=0)
    side = f" {options.input_side_px} px" if options.backend == "movenet" else ""
    print(
        f"{options.backend}{side}: {len(frames) / whole[0]:.1f} frames/s, {len(frames) / whole[1]:.1f} a core; bare "
        f"model {len(frames) / model[0]:.1f} and {len(frames) / model[1]:.1f}; {np.mean(people):.1f} people a frame"
    )
    return float(np.median(times[:, 0, 1] / times[:, 1, 1]))


def crowd(width_px: int, height_px: int, people: int = 6) -> People:
    """Six standing people of 60 to 95 % of the picture's height, side by side."""
    stand = [(50, 10), (53, 7), (47, 7), (57, 9), (43, 9), (65, 30), (35, 30), (75, 55), (25, 55), (80, 80)]
    stand += [(20, 80), (60, 85), (40, 85), (62, 120), (38, 120), (63, 155), (37, 155)]
    keypoints_PK3 = np.full((people, 17, 3), 0.9, np.float32)
    for index in range(people):
        scale = height_px * (0.6 + 0.07 * index) / 160
        keypoints_PK3[index, :, :2] = np.array(stand) * scale
        keypoints_PK3[index, :, 0] += (width_px - 100 * scale) * index / (people - 1)
    points_PK2 = keypoints_PK3[..., :2]
    boxes_P4 = np.concatenate([points_PK2.min(axis=1), points_PK2.max(axis=1)], axis=1)
    return People(0, np.full(people, 0.9, np.float32), boxes_P4, keypoints_PK3)


def compare_drawing(frame_HWC: NDArray[np.uint8], repeats: int) -> float:
    """Prints the time of drawing six people and of encoding the frame's JPEG; returns the latter ÷ the former."""
    people = crowd(frame_HWC.shape[1], frame_HWC.shape[0])
    drawn_HWC = draw_people(frame_HWC, people, "rgb-bar-13-ratio")
    times = alternate(
        repeats,
        lambda: encode_rgb(drawn_HWC, jpeg_quality=95),
        lambda: draw_people(frame_HWC, people, "rgb-bar-13-ratio"),
    )
    (encode, _), (draw, _) = np.median(times, axis=0) * 1e3
    height_px, width_px = frame_HWC.shape[:2]
    print(f"{width_px} x {height_px}: encode {encode:.3f} ms, draw six people {draw:.3f} ms")
    return float(np.median(times[:, 0, 0] / times[:, 1, 0]))


def try_settings(arguments: list[str]) -> None:
    """Runs MoveNet once for each setting, in its own process: they are read when TensorFlow is imported."""
    for onednn in "01":
        environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn}
        done = subprocess.run(
            [sys.executable, __file__, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        for line in done.stdout.splitlines():
            if line.startswith("movenet"):
                print(f"oneDNN {'on' if onednn == '1' else 'off'}: {line}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, help="folder of JPEG pictures")
    parser.add_argument("--movenet", help="a tfjs .json file or a SavedModel folder")
    parser.add_argument("--settings", action="store_true", help="compare oneDNN off and on")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    if arguments.settings:
        return try_settings([word for word in sys.argv[1:] if word != "--settings"])
    frames = pictures(arguments.pictures)
    frames = [frames[index % len(frames)] for index in range(FRAMES)]
    frames = [frame_HWC for frame_HWC in frames if frame_HWC.shape == frames[0].shape]
    choices = [PoseOptions()]
    if arguments.movenet:
        sides = (256, 384, 512)
        choices += [PoseOptions(backend="movenet", model=arguments.movenet, input_side_px=s) for s in sides]
    ratios = [compare_stage(options, frames, arguments.repeats) for options in choices]
    print(f"RATIO stage_vs_model {min(ratios):.3f}")
    print(f"RATIO jpeg_encode_vs_draw {compare_drawing(frames[0], 50 * arguments.repeats):.2f}")


if __name__ == "__main__":
    main()
