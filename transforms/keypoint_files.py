"""Keypoints that a user has already: COCO keypoints JSON and PoseC3D pickles, for one clip or for many.

Shape legend: T frames, M people of a PoseC3D array, P people, K = 17 COCO keypoints.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stores.records import NUM_KEYPOINTS
from transforms import safe_pickle

SUFFIXES = (".json", ".pkl")


class Poses(NamedTuple):
    """People of one frame: their scores, NaN where the file has none, and keypoints as in `pose.Found`."""

    scores_P: NDArray[np.float32]
    keypoints_PK3: NDArray[np.float32]


@dataclass(frozen=True)
class ClipKeypoints:
    """All people of one clip, as a file has them.

    Attributes:
        frames: number of frames that the file speaks of; none where it does not say.
        width_px, height_px: size of the pictures that the coordinates belong to; none where it does not say.
        found: people by frame; a frame without people may be missing.
    """

    frames: int | None
    width_px: int | None
    height_px: int | None
    found: Mapping[int, Poses]

    def __post_init__(self) -> None:
        for frame, poses in self.found.items():
            if not np.isfinite(poses.keypoints_PK3).all():
                raise ValueError(f"keypoints of frame {frame} hold NaN or infinite values")

    def digest(self) -> str:
        """What determines the pose made from these keypoints, in hex."""
        hashed = hashlib.sha256(repr((self.frames, self.width_px, self.height_px)).encode())
        for frame in sorted(self.found):
            hashed.update(f"{frame} {len(self.found[frame].scores_P)}\n".encode())
            for values in self.found[frame]:
                hashed.update(np.ascontiguousarray(values, "<f4").tobytes())
        return hashed.hexdigest()


def read_clips(content: bytes, suffix: str) -> dict[str, ClipKeypoints]:
    """Keypoints by the name that the file has for a clip; "" where it speaks of one clip without naming it.

    Args:
        suffix: .json or .pkl.

    Raises:
        ValueError: the content is neither COCO keypoints nor a PoseC3D annotation.
    """
    try:
        return _read_coco(content) if suffix == ".json" else _read_posec3d(content)
    except (KeyError, TypeError, IndexError, AttributeError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"not the expected structure: {error!r}") from error


def _read_coco(content: bytes) -> dict[str, ClipKeypoints]:
    loaded = json.loads(content)
    if isinstance(loaded, list):  # results: frames are numbered from 0 by image_id, and nothing says how many
        people = defaultdict(list)
        for person in loaded:
            people[int(person["image_id"])].append(person)
        return {"": ClipKeypoints(None, None, None, {frame: _coco_people(people[frame]) for frame in people})}
    people_by_image = defaultdict(list)
    for person in loaded["annotations"]:
        people_by_image[person["image_id"]].append(person)
    clips = defaultdict(list)
    for image in loaded["images"]:
        clips[str(image.get("file_name", "")).rpartition("/")[0]].append(image)
    return {name: _coco_clip(images, people_by_image) for name, images in clips.items()}


def _coco_clip(images: list[dict[str, Any]], people: Mapping[Any, list[dict[str, Any]]]) -> ClipKeypoints:
    """A clip whose frames are the images in the order of the numbers in their names (of their ids, unnamed)."""
    ordered = sorted(images, key=_image_order)
    sizes = {(image.get("width"), image.get("height")) for image in images}
    if len(sizes) > 1:
        raise ValueError(f"pictures of one clip have sizes {sorted(map(str, sizes))}")
    ((width_px, height_px),) = sizes
    found = {frame: _coco_people(people.get(image["id"], [])) for frame, image in enumerate(ordered)}
    return ClipKeypoints(len(images), width_px and int(width_px), height_px and int(height_px), found)


def _image_order(image: Mapping[str, Any]) -> tuple[int, str]:
    numbers = re.findall(r"\d+", str(image.get("file_name", "")).rpartition("/")[2])
    return int(numbers[-1] if numbers else image["id"]), str(image.get("file_name", ""))


def _coco_people(people: list[dict[str, Any]]) -> Poses:
    keypoints_PK3 = np.array([person["keypoints"] for person in people], np.float32)
    keypoints_PK3 = keypoints_PK3.reshape(len(people), NUM_KEYPOINTS, 3)
    keypoints_PK3[..., :2] -= 0.5  # COCO counts from the corner of a pixel
    keypoints_PK3[..., 2] = np.clip(keypoints_PK3[..., 2], 0, 1)  # also of COCO's flags 0, 1, 2
    return Poses(np.array([person.get("score", np.nan) for person in people], np.float32), keypoints_PK3)


def _read_posec3d(content: bytes) -> dict[str, ClipKeypoints]:
    loaded = safe_pickle.loads(content)
    if isinstance(loaded, dict) and "keypoint" in loaded:
        return {"": _posec3d_clip(loaded)}
    annotations = loaded["annotations"] if isinstance(loaded, dict) else loaded
    return {str(annotation["frame_dir"]): _posec3d_clip(annotation) for annotation in annotations}


def _posec3d_clip(annotation: Mapping[str, Any]) -> ClipKeypoints:
    points_MTK2 = np.asarray(annotation["keypoint"], np.float32)
    if points_MTK2.ndim != 4 or points_MTK2.shape[2:] != (NUM_KEYPOINTS, 2):
        raise ValueError(f"keypoint has shape {points_MTK2.shape}, expected people × frames × 17 × 2")
    seen_MTK = (points_MTK2 != 0).any(axis=3)
    scores_MTK = np.asarray(annotation.get("keypoint_score", seen_MTK), np.float32)
    if scores_MTK.shape != points_MTK2.shape[:3]:
        raise ValueError(f"keypoint_score has shape {scores_MTK.shape}, keypoint {points_MTK2.shape}")
    scores_MTK = np.clip(scores_MTK * seen_MTK, 0, 1)  # absent people are zeros
    keypoints_MTK3 = np.concatenate([points_MTK2, scores_MTK[..., None]], axis=3)
    frames = points_MTK2.shape[1]
    if int(annotation.get("total_frames", frames)) != frames:
        raise ValueError(f"total_frames is {annotation['total_frames']}, keypoint has {frames} frames")
    unknown_M = np.full(len(points_MTK2), np.nan, np.float32)
    found = {t: Poses(unknown_M, keypoints_MTK3[:, t]) for t in range(frames)}
    height_px, width_px = annotation.get("img_shape") or (None, None)
    return ClipKeypoints(frames, width_px and int(width_px), height_px and int(height_px), found)
