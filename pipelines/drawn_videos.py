"""Videos of a drawn figure with exactly known keypoints: what the animated look in the README is made from.

    python -m pipelines.drawn_videos FOLDER

writes FOLDER/videos/<motion>/g00_c00.mp4 and, for `pose.backend: file`, FOLDER/keypoints/<motion>/g00_c00.json in
COCO's format. Everything in the pictures is drawn here. A group is one scene: background, clothes, size and speed.

Shape legend: T frames, H rows, W columns, C colour channels (RGB), K = 17 COCO keypoints, S strokes.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from transforms.keypoints import INDEX, NAMES
from transforms.preview import write_mp4
from transforms.render import Strokes, paint

MOTIONS = ("jump", "squat", "star", "walk", "wave")
FPS = 25
DURATION_S = 4.0
HEIGHT_PX, WIDTH_PX = 192, 256
GROUPS = 6

# Shares of the figure's height.
_TORSO, _UPPER_ARM, _FOREARM, _THIGH, _SHIN, _HEAD = 0.30, 0.17, 0.16, 0.23, 0.23, 0.075
_SHOULDER, _HIP = 0.105, 0.065


@dataclass(frozen=True)
class Scene:
    """What the clips of one group share, and where a clip's motion begins.

    Attributes:
        height_px: of the standing figure.
        x_px: of the figure's middle; where it walks, of its way.
        speed: 1 is one repetition in 1.25 s.
        phase: share of a repetition that is over when the clip begins.
        facing: 1 or -1; mirrors the motion.
    """

    height_px: float
    x_px: float
    speed: float
    phase: float
    facing: int
    shirt_C: NDArray[np.uint8]
    trousers_C: NDArray[np.uint8]
    skin_C: NDArray[np.uint8]


def keypoints_at(motion: str, t_s: float, scene: Scene) -> NDArray[np.float64]:
    """The figure's 17 keypoints (x px, y px) `t_s` seconds into a clip; integers are pixel centres.

    Raises:
        ValueError: an unknown motion.
    """
    turn = 2 * np.pi * (scene.phase + 0.8 * scene.speed * t_s)
    beat, swing = (1 - np.cos(turn)) / 2, np.sin(turn)  # [0, 1] and [-1, 1]
    body = {
        # left and right upper arm and forearm, then left and right thigh and shin: degrees from hanging, outwards
        "jump": _body(
            (25, 20, 25, 20), _bent(34 * max(0.0, -np.cos(turn))), lift=0.16 * max(0.0, np.cos(turn))
        ),
        "squat": _body((15 + 75 * beat, 15 + 75 * beat) * 2, _bent(52 * beat)),
        "star": _body((12 + 140 * beat, 8 + 150 * beat) * 2, (4 + 26 * beat,) * 4),
        "wave": _body((130, 165 + 40 * swing, 12, 8), (4, 2, 4, 2)),
        "walk": _strider(swing),
    }
    if motion not in body:
        raise ValueError(f"motion: found {motion!r}, expected one of {', '.join(MOTIONS)}")
    points_K2 = body[motion] * [scene.facing, 1]
    points_K2[:, 1] -= points_K2[[INDEX["l_ankle"], INDEX["r_ankle"]], 1].max() * (motion != "jump")
    x_px, ground_px = scene.x_px, 0.93 * HEIGHT_PX
    if motion == "walk":
        x_px += scene.facing * 0.16 * WIDTH_PX * scene.speed * (t_s - DURATION_S / 2)
    return points_K2 * scene.height_px + [x_px, ground_px]


def _bent(angle: float) -> tuple[float, float, float, float]:
    """Legs with knees outwards, feet under the hips."""
    return (angle, -angle, angle, -angle)


def _body(arms: Sequence[float], legs: Sequence[float], lift: float = 0.0) -> NDArray[np.float64]:
    """A figure that faces us, in shares of its height: x to the right of the middle, y below the ground."""
    hip_y = -sum(
        length * np.cos(np.radians(angle)) for length, angle in zip((_THIGH, _SHIN), legs, strict=False)
    )
    shoulder_y = hip_y - _TORSO - lift
    points = _head(shoulder_y, 0.0)
    for side, sign, arm, leg in (("l", 1, arms[:2], legs[:2]), ("r", -1, arms[2:], legs[2:])):
        shoulder, hip = np.array([sign * _SHOULDER, shoulder_y]), np.array([sign * _HIP, hip_y - lift])
        points |= _limb(side, ("shoulder", "elbow", "wrist"), shoulder, (_UPPER_ARM, _FOREARM), arm, sign)
        points |= _limb(side, ("hip", "knee", "ankle"), hip, (_THIGH, _SHIN), leg, sign)
    return np.array([points[name] for name in NAMES])


def _strider(swing: float) -> NDArray[np.float64]:
    """A figure that walks to the right, seen from its side."""
    hip_y = -(_THIGH + _SHIN)
    points = _head(hip_y - _TORSO, 0.03)
    for side, sign in (("l", 1), ("r", -1)):
        shoulder, hip = np.array([0.015 * sign, hip_y - _TORSO]), np.array([0.01 * sign, hip_y])
        step, bend = 30 * swing * sign, 22 * max(0.0, -swing * sign)
        arm, leg = (-step, -step + 25), (step, step - 10 - bend)
        points |= _limb(side, ("shoulder", "elbow", "wrist"), shoulder, (_UPPER_ARM, _FOREARM), arm, 1)
        points |= _limb(side, ("hip", "knee", "ankle"), hip, (_THIGH, _SHIN), leg, 1)
    return np.array([points[name] for name in NAMES])


def _head(shoulder_y: float, lean: float) -> dict[str, NDArray[np.float64]]:
    centre = np.array([lean, shoulder_y - 0.12])
    offsets = {"nose": (0, 0.01), "l_eye": (0.025, -0.02), "r_eye": (-0.025, -0.02)}
    offsets |= {"l_ear": (0.065, 0.0), "r_ear": (-0.065, 0.0)}
    return {name: centre + np.array([x + lean * (name[2:] != "ear"), y]) for name, (x, y) in offsets.items()}


def _limb(
    side: str,
    joints: Sequence[str],
    start_2: NDArray[np.float64],
    lengths: Sequence[float],
    angles: Sequence[float],
    sign: int,
) -> dict[str, NDArray[np.float64]]:
    points = {f"{side}_{joints[0]}": start_2}
    for joint, length, angle in zip(joints[1:], lengths, np.radians(angles), strict=True):
        start_2 = start_2 + length * np.array([sign * np.sin(angle), np.cos(angle)])
        points[f"{side}_{joint}"] = start_2
    return points


def draw_figure(
    background_HWC: NDArray[np.uint8], points_K2: NDArray[np.float64], scene: Scene
) -> NDArray[np.uint8]:
    """The figure in front of a background, which is left alone."""
    at = {name: points_K2[index] for name, index in INDEX.items()}
    head = (at["l_ear"] + at["r_ear"]) / 2
    neck, waist = (at["l_shoulder"] + at["r_shoulder"]) / 2, (at["l_hip"] + at["r_hip"]) / 2
    dark_C = (scene.shirt_C * 0.7).astype(np.uint8)
    hair_C = np.array([60, 40, 30], np.uint8)
    parts: list[tuple[NDArray[np.float64], NDArray[np.float64], float, NDArray[np.uint8]]] = []
    for side in ("r", "l"):
        parts += [(at[f"{side}_hip"], at[f"{side}_knee"], 0.042, scene.trousers_C)]
        parts += [(at[f"{side}_knee"], at[f"{side}_ankle"], 0.034, scene.trousers_C)]
    parts += [(neck, head, 0.03, scene.skin_C), (neck, waist, 0.075, scene.shirt_C)]
    parts += [(at[f"{s}_shoulder"], at[f"{s}_hip"], 0.04, scene.shirt_C) for s in "rl"]
    for side in ("r", "l"):
        parts += [(at[f"{side}_shoulder"], at[f"{side}_elbow"], 0.032, dark_C)]
        parts += [(at[f"{side}_elbow"], at[f"{side}_wrist"], 0.026, scene.skin_C)]
    parts += [(head - [0, 0.02 * scene.height_px], head - [0, 0.02 * scene.height_px], 0.078, hair_C)]
    parts += [(head, head, 0.07, scene.skin_C)]
    parts += [(at[name], at[name], 0.011, hair_C) for name in ("l_eye", "r_eye", "nose")]
    ends_S4 = np.array([np.concatenate([start, stop]) for start, stop, _, _ in parts])
    radii_S = np.array([max(0.5, radius * scene.height_px) for _, _, radius, _ in parts])
    colours_S3 = np.array([colour for *_, colour in parts], np.uint8)
    return paint(background_HWC.copy(), Strokes(ends_S4, radii_S, colours_S3))


def draw_background(chance: np.random.Generator) -> NDArray[np.uint8]:
    """A wall with a pattern of soft blots and a few pictures on it, and a floor."""
    wall_HWC = np.full((HEIGHT_PX, WIDTH_PX, 3), chance.uniform(90, 190, 3), np.float32)
    for cells in (4, 9, 24, 60):
        grey, colour = chance.normal(0, 60, (cells, cells, 1)), chance.normal(0, 15, (cells, cells, 3))
        blots = ((grey + colour) / np.sqrt(cells)).astype(np.float32)
        wall_HWC += cv2.resize(blots, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(chance.integers(2, 5))):
        x, y = int(chance.integers(0, WIDTH_PX - 30)), int(chance.integers(0, HEIGHT_PX // 2))
        corner = (x + int(chance.integers(20, 60)), y + int(chance.integers(15, 45)))
        cv2.rectangle(wall_HWC, (x, y), corner, chance.uniform(30, 230, 3).tolist(), -1)
        cv2.rectangle(wall_HWC, (x, y), corner, (40, 30, 20), 2)
    floor_px = int(0.8 * HEIGHT_PX)
    planks_W = 12 * np.sin(np.arange(WIDTH_PX) * chance.uniform(0.15, 0.4)).astype(np.float32)
    wall_HWC[floor_px:] = wall_HWC[floor_px:] * 0.35 + chance.uniform(50, 120, 3) + planks_W[None, :, None]
    return np.clip(wall_HWC, 0, 255).astype(np.uint8)


def scene_of(motion: str, clip: int, *, seed: int = 0) -> tuple[Scene, NDArray[np.uint8]]:
    """A clip's scene and its background; what the group shares is a function of (seed, group) alone."""
    group = np.random.Generator(np.random.Philox(key=(seed, clip % GROUPS)))
    own = np.random.Generator(np.random.Philox(key=(seed, 1000 * (1 + MOTIONS.index(motion)) + clip)))
    background_HWC = draw_background(group)
    shirt_C, trousers_C = group.integers(30, 255, (2, 3)).astype(np.uint8)
    skin_C = (np.array([235, 190, 160]) * group.uniform(0.45, 1.0)).astype(np.uint8)
    height_px, speed = group.uniform(0.66, 0.78) * HEIGHT_PX, group.uniform(0.85, 1.2)
    x_px = WIDTH_PX * (0.5 + own.uniform(-0.15, 0.15))
    facing = int(own.choice((-1, 1)))
    scene = Scene(height_px, x_px, speed, own.uniform(), facing, shirt_C, trousers_C, skin_C)
    return scene, background_HWC


def write_drawn_videos(
    folder: Path, *, clips_per_motion: int = 12, duration_s: float = DURATION_S, seed: int = 0
) -> int:
    """Writes the videos and their keypoints and returns how many; chance depends on (seed, motion, clip) alone."""
    written = 0
    for motion in MOTIONS:
        for clip in range(clips_per_motion):
            scene, background_HWC = scene_of(motion, clip, seed=seed)
            points_TK2 = [keypoints_at(motion, t / FPS, scene) for t in range(round(duration_s * FPS))]
            name = f"{motion}/g{clip % GROUPS:02d}_c{clip:02d}"
            video, keypoints = folder / "videos" / f"{name}.mp4", folder / "keypoints" / f"{name}.json"
            for path in (video, keypoints):
                path.parent.mkdir(parents=True, exist_ok=True)
            keypoints.write_text(json.dumps(coco(points_TK2, name)), encoding="utf-8")
            write_mp4(video, (draw_figure(background_HWC, p, scene) for p in points_TK2), fps=FPS)
            written += 1
    return written


def coco(points_TK2: Sequence[NDArray[np.float64]], name: str) -> dict[str, list[dict[str, object]]]:
    """One clip's keypoints in COCO's format, which counts from the corner of the first pixel."""
    size = {"width": WIDTH_PX, "height": HEIGHT_PX}
    images = [{"id": t, "file_name": f"{name}/{t:06d}.jpg", **size} for t in range(len(points_TK2))]
    flat = [[v for x, y in points_K2 + 0.5 for v in (x, y, 2)] for points_K2 in points_TK2]
    people = [{"image_id": t, "keypoints": keypoints, "score": 1.0} for t, keypoints in enumerate(flat)]
    return {"images": images, "annotations": people}


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        sys.exit("usage: python -m pipelines.drawn_videos FOLDER")
    print(f"{write_drawn_videos(Path(arguments[0]))} videos in {arguments[0]}/videos")


if __name__ == "__main__":
    main(sys.argv[1:])
