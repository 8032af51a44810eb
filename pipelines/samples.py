"""Sample videos for the demo, made on the spot: one real person, six motions, many backgrounds.

The person is cut from the photograph of Eileen Collins that ships inside scikit-image (NASA, public domain), so a pose
network really finds somebody. A motion moves, grows or turns the cut-out; nothing else tells the classes apart: the
place, size, tilt, background, light and speed are drawn from the same ranges for all six. Each motion comes with
another that shows the same frames in another order (rise and sink, approach and recede) or with an oscillation, so a
single frame does not give the class away; and mirroring a clip left to right never changes its class.

Clips come in groups, named in the file (`rise/g03_c07.mp4` is clip 7, in group 3). A group is one scene: a background,
a person's size and a speed of its own. Odd groups are held out.

Shapes: T frames, H rows, W columns, C=3 colours (RGB).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import skimage.data

LABELS = ("approach", "recede", "rise", "rock", "sink", "sway")
GROUP_PATTERN = r"^(g\d+)_"
FPS = 25
MANIFEST = "samples.json"

RISE = 0.40  # shares of the picture's height per second, at speed 1
GROWTH = 1.8  # factor per second
SWAY = 0.16  # share of the picture's width, to either side
ROCK_DEG = 28  # to either side
WAVE_HZ = 1.2  # sways or rocks per second

_SUPERSAMPLING = (
    2  # frames are drawn this much larger and averaged down, so that edges move by fractions of a pixel
)
_CUTOUT_HEIGHT_PX = 256

# The outline of the person, in pixels (x, y) of the 512 x 512 photograph: good to about 8 px, refined by GrabCut.
_OUTLINE_XY = (
    *((152, 85), (160, 50), (190, 28), (225, 16), (265, 28), (295, 55), (302, 95), (288, 125), (272, 130)),
    *((258, 160), (262, 180), (300, 215), (306, 238), (335, 255), (352, 290), (362, 340), (362, 365)),
    *((300, 385), (275, 430), (272, 511), (20, 511), (22, 440), (18, 385), (40, 280), (95, 215), (112, 190)),
    *((130, 162), (155, 150), (186, 148), (182, 128), (160, 110)),
)


@dataclass(frozen=True)
class Scene:
    """What the clips of one group share."""

    background: str
    """A picture of `skimage.data` (CC0 or public domain, inside its wheel), or `gradient`, `clouds`, `checks`."""
    height: float
    """The person's middle height, as a share of the picture's height."""
    speed: float
    """1.0 is the pace that `motion` describes."""


# Even rows train, odd rows are held out: no background, size or speed is on both sides.
SCENES = (
    Scene("coffee", 0.72, 1.00),
    Scene("brick", 0.70, 1.06),
    Scene("gradient", 0.80, 0.88),
    Scene("rocket", 0.82, 0.97),
    Scene("grass", 0.71, 1.18),
    Scene("checks", 0.74, 0.85),
    Scene("moon", 0.76, 1.10),
    Scene("clouds", 0.75, 1.14),
    Scene("hubble_deep_field", 0.84, 0.94),
    Scene("gravel", 0.78, 1.22),
)


@dataclass(frozen=True)
class Placement:
    """Where the person is at one instant. Shares of the picture's width (x) and height (y, height); y points down."""

    x: float
    y: float
    height: float
    tilt_deg: float


@dataclass(frozen=True)
class Course:
    """One clip's draw: where the person is halfway through, how fast the motion runs and where it begins."""

    middle: Placement
    speed: float
    duration_s: float
    phase_rad: float


@dataclass(frozen=True)
class SampleVideo:
    """One written clip; `held_out` clips are for evaluation only."""

    path: Path
    label: str
    group: str
    held_out: bool


def motion(label: str, t_s: float, course: Course) -> Placement:
    """The person's placement `t_s` seconds into a clip of class `label`.

    Rising, sinking, approaching and receding go on evenly; swaying and rocking are sine waves. At the slowest scene's
    speed, sixteen frames (0.64 s) show a fifth of the picture's height, a growth of a third or more than half
    a wave, so any such window carries the class.

    Raises ValueError for an unknown label.
    """
    middle, elapsed = course.middle, course.speed * (t_s - course.duration_s / 2)
    wave = math.sin(2 * math.pi * WAVE_HZ * course.speed * t_s + course.phase_rad)
    x, y, height, tilt_deg = middle.x, middle.y, middle.height, middle.tilt_deg
    if label in ("rise", "sink"):
        y += RISE * elapsed * (-1 if label == "rise" else 1)
    elif label in ("approach", "recede"):
        height *= GROWTH ** (elapsed if label == "approach" else -elapsed)
    elif label == "sway":
        x += SWAY * wave
    elif label == "rock":
        tilt_deg += ROCK_DEG * wave
    else:
        raise ValueError(f"label: unknown motion {label!r}; the motions are {', '.join(LABELS)}")
    return Placement(x, y, height, tilt_deg)


def write_sample_videos(
    folder: Path, *, clips_per_class: int = 20, seed: int = 0, height_px: int = 128, width_px: int = 160
) -> list[SampleVideo]:
    """Write the sample videos as `folder/<label>/g<group>_c<clip>.mp4` (H.264, 25 fps, 1.2 to 1.6 s each).

    Half of the clips of every class are held out. A folder that already holds exactly these videos, by their sha256,
    is left as it is; the manifest that says so is written last.

    Raises ValueError for an odd number of clips or sides that H.264 cannot take.
    """
    _check_arguments(clips_per_class, height_px, width_px)
    asked: dict[str, int | str] = {
        "code": _sha256(Path(__file__)),
        "clips_per_class": clips_per_class,
        "seed": seed,
        "height_px": height_px,
        "width_px": width_px,
    }
    videos = [_video(folder, label, clip) for label in LABELS for clip in range(clips_per_class)]
    if not _is_written(folder, asked):
        for index, video in enumerate(videos):
            video.path.parent.mkdir(parents=True, exist_ok=True)
            frames_THWC = _draw_clip(
                video.label, index % clips_per_class, seed=seed, size_px=(height_px, width_px)
            )
            _encode(frames_THWC, video.path, size_px=(height_px, width_px))
        digests = {video.path.relative_to(folder).as_posix(): _sha256(video.path) for video in videos}
        _replace(
            folder / MANIFEST, json.dumps({**asked, "sha256": digests}, indent=1, sort_keys=True).encode()
        )
    return videos


def mean_frame_accuracy(videos: Sequence[SampleVideo], *, side_px: int = 24, ridge: float = 1.0) -> float:
    """Held-out top-1 of a linear classifier that sees only each clip's mean frame: how much a still picture tells.

    Ridge regression onto one-hot labels, in its dual form, on the mean frame shrunk to `side_px` x `side_px` x 3 and
    standardised with the training clips' mean and deviation. Chance is 1/6.
    """
    features_ND = np.stack([_mean_frame(video.path, side_px=side_px).ravel() for video in videos])
    labels_N = np.array([LABELS.index(video.label) for video in videos])
    held_N = np.array([video.held_out for video in videos])
    train_ND = features_ND[~held_N]
    centre_D, spread_D = train_ND.mean(axis=0), train_ND.std(axis=0) + 1e-6
    features_ND = (features_ND - centre_D) / spread_D / math.sqrt(features_ND.shape[1])
    train_ND = features_ND[~held_N]
    targets_NK = np.eye(len(LABELS))[labels_N[~held_N]]
    gram_NN = train_ND @ train_ND.T + ridge * np.eye(len(train_ND))
    scores_NK = features_ND[held_N] @ (train_ND.T @ np.linalg.solve(gram_NN, targets_NK - 1 / len(LABELS)))
    return float((scores_NK.argmax(axis=1) == labels_N[held_N]).mean())


def _check_arguments(clips_per_class: int, height_px: int, width_px: int) -> None:
    if clips_per_class < 2 or clips_per_class % 2:
        raise ValueError(f"clips_per_class: needs an even number, at least 2, found {clips_per_class}")
    if min(height_px, width_px) < 32 or height_px % 2 or width_px % 2:
        raise ValueError(f"height_px, width_px: need even numbers >= 32, found {height_px} and {width_px}")


def _video(folder: Path, label: str, clip: int) -> SampleVideo:
    group = clip % len(SCENES)
    return SampleVideo(
        folder / label / f"g{group:02d}_c{clip:02d}.mp4", label, f"g{group:02d}", group % 2 == 1
    )


def _is_written(folder: Path, asked: dict[str, int | str]) -> bool:
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return False
    try:
        found = json.loads(manifest.read_bytes())
    except ValueError:
        return False
    digests = found.pop("sha256", {}) if isinstance(found, dict) else {}
    if found != asked:
        return False
    return all(
        (folder / name).is_file() and _sha256(folder / name) == digest for name, digest in digests.items()
    )


def _draw_clip(
    label: str, clip: int, *, seed: int, size_px: tuple[int, int]
) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames of one clip. Chance depends on (seed, label, clip) alone, so any clip can be made by itself."""
    chance = np.random.Generator(np.random.Philox(key=(seed, 1000 * LABELS.index(label) + clip)))
    scene = SCENES[clip % len(SCENES)]
    course = draw_course(label, scene, chance)
    large_px = (size_px[0] * _SUPERSAMPLING, size_px[1] * _SUPERSAMPLING)
    background_HWC = _background(scene.background, large_px, chance)
    gain_C = chance.uniform(0.8, 1.1) * chance.uniform(0.95, 1.05, size=3)
    noise_level = chance.uniform(1.0, 3.0)
    for frame in range(round(course.duration_s * FPS)):
        large_HWC = compose(background_HWC, motion(label, frame / FPS, course))
        frame_HWC = cv2.resize(large_HWC, size_px[::-1], interpolation=cv2.INTER_AREA)
        noise_HWC = noise_level * chance.standard_normal(frame_HWC.shape, dtype=np.float32)
        yield np.clip(frame_HWC * gain_C + noise_HWC, 0, 255).astype(np.uint8)


def draw_course(label: str, scene: Scene, chance: np.random.Generator) -> Course:
    """A clip's course.

    What the class's motion sweeps starts from a nearly fixed middle; everything else is drawn from about the range
    that the sweep covers. Seen over all frames, a place, size or tilt is then as frequent in one class as in another.
    """
    middle = Placement(
        x=0.5 + chance.uniform(-1, 1) * (0.03 if label == "sway" else 0.12),
        y=0.62 + chance.uniform(-1, 1) * (0.03 if label in ("rise", "sink") else 0.2),
        height=scene.height
        * GROWTH ** (chance.uniform(-1, 1) * (0.1 if label in ("approach", "recede") else 0.5)),
        tilt_deg=chance.uniform(-1, 1) * (3 if label == "rock" else 18),
    )
    return Course(middle, scene.speed, chance.integers(30, 41) / FPS, chance.uniform(0, 2 * math.pi))


def compose(background_HWC: npt.NDArray[np.float32], place: Placement) -> npt.NDArray[np.float32]:
    """The person at `place` in front of the background (H, W, 3), both in values of 0 to 255."""
    rows, columns = background_HWC.shape[:2]
    person_HW4 = _person()
    scale = place.height * rows / person_HW4.shape[0]
    pivot_xy = (person_HW4.shape[1] / 2, person_HW4.shape[0] / 2)
    matrix_23 = cv2.getRotationMatrix2D(pivot_xy, place.tilt_deg, scale)
    matrix_23[:, 2] += np.array([place.x * columns, place.y * rows]) - pivot_xy
    drawn_HW4 = cv2.warpAffine(person_HW4, matrix_23, (columns, rows), flags=cv2.INTER_LINEAR)
    return drawn_HW4[..., :3] + background_HWC * (1 - drawn_HW4[..., 3:])


@functools.cache
def _person() -> npt.NDArray[np.float32]:
    """The cut-out: RGB already multiplied by the mask (0 to 255), and the mask (0 to 1), with a soft edge."""
    photograph_HWC = skimage.data.astronaut()
    mask_HW = _person_mask(photograph_HWC)
    top, bottom, left, right = _bounds(mask_HW > 0.5)
    cut_HW4 = np.dstack([photograph_HWC * mask_HW[..., None], mask_HW])[top:bottom, left:right]
    margin_HW4 = cv2.copyMakeBorder(cut_HW4, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    shrink = _CUTOUT_HEIGHT_PX / margin_HW4.shape[0]
    return cv2.resize(margin_HW4, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA).astype(np.float32)


def _person_mask(photograph_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """GrabCut between the drawn outline shrunk by 10 px (surely the person) and grown by 8 px (surely not beyond)."""
    outline_HW = np.zeros(photograph_HWC.shape[:2], np.uint8)
    cv2.fillPoly(outline_HW, [np.array(_OUTLINE_XY, np.int32)], 1)
    trimap_HW = np.full_like(outline_HW, cv2.GC_BGD)
    trimap_HW[cv2.dilate(outline_HW, _disc(8)) == 1] = cv2.GC_PR_BGD
    trimap_HW[outline_HW == 1] = cv2.GC_PR_FGD
    trimap_HW[cv2.erode(outline_HW, _disc(10)) == 1] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # GrabCut starts from a random clustering of the colours
    cv2.grabCut(
        photograph_HWC, trimap_HW, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK
    )
    mask_HW = np.isin(trimap_HW, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    mask_HW = cv2.morphologyEx(mask_HW, cv2.MORPH_OPEN, _disc(2))
    _, parts_HW, statistics, _ = cv2.connectedComponentsWithStats(mask_HW)
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    person_HW = (parts_HW == largest).astype(np.float32)
    return cv2.GaussianBlur(cv2.erode(person_HW, _disc(1)), (0, 0), 1.2)


def _disc(radius_px: int) -> npt.NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))


def _bounds(mask_HW: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _background(name: str, size_px: tuple[int, int], chance: np.random.Generator) -> npt.NDArray[np.float32]:
    """A still background (H, W, 3) of 0 to 255: a random crop of the named picture.

    Half of the crops are mirrored, and in half of them red and blue change places: more variety from few pictures.
    """
    drawn = {"gradient": _gradient, "clouds": _clouds, "checks": _checks}
    if name in drawn:
        return drawn[name](size_px, chance)
    picture_HWC = _picture(name)
    zoom = chance.uniform(0.6, 1.0) * min(
        picture_HWC.shape[0] / size_px[0], picture_HWC.shape[1] / size_px[1]
    )
    rows, columns = int(size_px[0] * zoom), int(size_px[1] * zoom)
    top = int(chance.integers(0, picture_HWC.shape[0] - rows + 1))
    left = int(chance.integers(0, picture_HWC.shape[1] - columns + 1))
    mirror, swap = chance.choice((-1, 1), size=2)
    crop_HWC = np.ascontiguousarray(picture_HWC[top : top + rows, left : left + columns][:, ::mirror, ::swap])
    return cv2.resize(crop_HWC, size_px[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)


@functools.cache
def _picture(name: str) -> npt.NDArray[np.uint8]:
    picture = getattr(skimage.data, name)()
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def _gradient(size_px: tuple[int, int], chance: np.random.Generator) -> npt.NDArray[np.float32]:
    corners_22C = chance.uniform(30, 220, size=(2, 2, 3)).astype(np.float32)
    return cv2.resize(corners_22C, size_px[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255)


def _clouds(size_px: tuple[int, int], chance: np.random.Generator) -> npt.NDArray[np.float32]:
    clouds_HWC = np.full((*size_px, 3), chance.uniform(80, 160, size=3), np.float32)
    for cells in (3, 6, 12, 24):
        grid = chance.normal(0, 90 / math.sqrt(cells), size=(cells, cells, 3)).astype(np.float32)
        clouds_HWC += cv2.resize(grid, size_px[::-1], interpolation=cv2.INTER_CUBIC)
    return clouds_HWC.clip(0, 255)


def _checks(size_px: tuple[int, int], chance: np.random.Generator) -> npt.NDArray[np.float32]:
    side_px = int(chance.integers(size_px[0] // 12, size_px[0] // 5))
    rows_H1 = (np.arange(size_px[0])[:, None] + chance.integers(side_px)) // side_px
    columns_1W = (np.arange(size_px[1])[None, :] + chance.integers(side_px)) // side_px
    colours_2C = chance.uniform(40, 220, size=(2, 3)).astype(np.float32)
    return cv2.GaussianBlur(colours_2C[(rows_H1 + columns_1W) % 2], (0, 0), 1.5)


def _encode(frames: Iterator[npt.NDArray[np.uint8]], path: Path, *, size_px: tuple[int, int]) -> None:
    """H.264 in MP4, the same bytes every time.

    One thread, since x264 splits its decisions by thread. No macroblock tree: the vectorised code of x264 (core 165)
    reads memory there that it has not written, and for pictures as small as these the file then depends on it.
    """
    partial = path.with_name(path.name + ".partial")
    with av.open(str(partial), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        options = {"crf": "18", "preset": "fast", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = size_px
        stream.pix_fmt = "yuv420p"
        for frame_HWC in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    os.replace(partial, path)


def _mean_frame(path: Path, *, side_px: int) -> npt.NDArray[np.float32]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    mean_HWC = np.mean(frames, axis=0, dtype=np.float32)
    return cv2.resize(mean_HWC, (side_px, side_px), interpolation=cv2.INTER_AREA)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
