"""Finding people: what an estimator is, which of its people are kept, and the stage `pose`.

Shape legend: T frames, H rows, W columns, C colour channels (RGB), P people, K = 17 COCO keypoints.
"""

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from stores.model_files import local_model
from stores.records import NUM_KEYPOINTS, Frame, People
from stores.rejections import ClipRejected
from transforms.images import decode_rgb
from transforms.keypoints import box_sizes
from transforms.options import PoseOptions
from transforms.stage import ClipOutput, StoredClip

BATCH_FRAMES = 16


class Found(NamedTuple):
    """Everybody an estimator sees in one picture, in any order.

    Attributes:
        scores_P: person scores in [0, 1].
        boxes_P4: x0, y0, x1, y1 in pixels.
        keypoints_PK3: x px, y px, score in [0, 1], COCO order. Integers are pixel centres.
    """

    scores_P: NDArray[np.float32]
    boxes_P4: NDArray[np.float32]
    keypoints_PK3: NDArray[np.float32]


class PoseEstimator(Protocol):
    """Finds people. The same pictures give the same people; calls may come from several threads at once."""

    def estimate(self, frames_THWC: NDArray[np.uint8]) -> Sequence[Found]:
        """People of each of the RGB pictures, in the pictures' own pixels."""


def people_from_keypoints(
    keypoints_PK3: NDArray[np.float32], scores_P: NDArray[np.float32], *, min_keypoint_score: float
) -> Found:
    """People with the box of their keypoints; who has no keypoint of `min_keypoint_score` is left out.

    Args:
        scores_P: person scores; NaN where the estimator gives none: the mean over those keypoints then.
    """
    seen_PK1 = keypoints_PK3[..., 2:] >= min_keypoint_score
    kept_P = seen_PK1.any(axis=(1, 2))
    keypoints_PK3, scores_P, seen_PK1 = keypoints_PK3[kept_P], scores_P[kept_P], seen_PK1[kept_P]
    points_PK2, point_scores_PK1 = keypoints_PK3[..., :2], keypoints_PK3[..., 2:]
    low_P2 = np.where(seen_PK1, points_PK2, np.inf).min(axis=1)
    high_P2 = np.where(seen_PK1, points_PK2, -np.inf).max(axis=1)
    means_P = (point_scores_PK1 * seen_PK1).sum(axis=(1, 2)) / seen_PK1.sum(axis=(1, 2))
    boxes_P4 = np.concatenate([low_P2, high_P2], axis=1).astype(np.float32)
    return Found(np.where(np.isnan(scores_P), means_P, scores_P).astype(np.float32), boxes_P4, keypoints_PK3)


def keep_people(found: Found, *, frame: int, width_px: int, height_px: int, options: PoseOptions) -> People:
    """The people of one frame that are stored, by falling size × score.

    Size is the longer side of the person's box inside the picture; who has none is dropped, as is who scores
    below `options.least_person_score` or comes after the first `options.max_people`.

    Raises:
        ClipRejected: the estimator's arrays do not fit together or hold NaN or infinite values.
    """
    _check_found(found, frame)
    edges = np.array([width_px - 0.5, height_px - 0.5] * 2, np.float32)
    boxes_P4 = np.clip(found.boxes_P4, -0.5, edges).astype(np.float32)
    sizes_P = box_sizes(boxes_P4)
    inside_P = (found.boxes_P4[:, :2] < edges[:2]).all(axis=1) & (found.boxes_P4[:, 2:] > -0.5).all(axis=1)
    wanted_P = inside_P & (sizes_P > 0) & (found.scores_P >= options.least_person_score)
    order = np.argsort(-sizes_P * found.scores_P, kind="stable")
    kept = order[wanted_P[order]][: options.max_people]
    keypoints_PK3 = found.keypoints_PK3[kept].astype(np.float32)
    keypoints_PK3[..., 2] = np.clip(keypoints_PK3[..., 2], 0, 1)
    return People(
        frame, np.clip(found.scores_P[kept], 0, 1).astype(np.float32), boxes_P4[kept], keypoints_PK3
    )


def _check_found(found: Found, frame: int) -> None:
    people = len(found.scores_P)
    shapes = tuple(np.shape(values) for values in found)
    if shapes != ((people,), (people, 4), (people, NUM_KEYPOINTS, 3)):
        raise ClipRejected(
            "internal_error", f"frame {frame}: the pose model returned arrays of shapes {shapes}"
        )
    if not all(np.isfinite(values).all() for values in found):
        raise ClipRejected("internal_error", f"frame {frame}: the pose model returned NaN or infinite values")


class PoseStage:
    """frames → pose.

    Args:
        options: which estimator, which people are kept.
        model_sha256: digest of the model file; part of the spec.
        model_path: path or gs:// address of that file; none of the spec's business.
    """

    name = "pose"
    version = 1
    inputs: tuple[str, ...] = ("frames",)

    def __init__(self, options: PoseOptions, *, model_sha256: str, model_path: str) -> None:
        self.options = options
        self.model_sha256 = model_sha256
        self.model_path = model_path

    def spec(self) -> Mapping[str, Any]:
        return {
            "backend": self.options.backend,
            "model_sha256": self.model_sha256,
            "max_people": self.options.max_people,
            "min_person_score": self.options.least_person_score,
            "min_keypoint_score": self.options.min_keypoint_score,
            **({"input_side_px": self.options.input_side_px} if self.options.backend == "movenet" else {}),
        }

    def setup(self) -> None:
        """Loads the model into this process, once for all its threads."""
        cv2.setNumThreads(1)
        make_estimator(self.options, self.model_path)

    def process(self, *clips: StoredClip) -> ClipOutput:
        """One `People` record for each frame of the clip, also where nobody is.

        Raises:
            ClipRejected: the model returned something that is no pose; also while records are consumed.
        """
        (frames,) = clips
        return ClipOutput(frames.width_px, frames.height_px, self._people(frames))

    def _people(self, clip: StoredClip) -> Iterator[People]:
        estimator = make_estimator(self.options, self.model_path)
        records: Iterator[Frame] = iter(clip.records())
        while batch := list(itertools.islice(records, BATCH_FRAMES)):
            images_THWC = np.stack([decode_rgb(record.image) for record in batch])
            for record, found in zip(batch, _estimate(estimator, images_THWC, batch), strict=True):
                yield keep_people(
                    found,
                    frame=record.frame,
                    width_px=images_THWC.shape[2],
                    height_px=images_THWC.shape[1],
                    options=self.options,
                )


def _estimate(
    estimator: PoseEstimator, images_THWC: NDArray[np.uint8], batch: Sequence[Frame]
) -> Sequence[Found]:
    try:
        return estimator.estimate(images_THWC)
    except (RuntimeError, ValueError) as error:
        span = f"[{batch[0].frame}, {batch[-1].frame + 1})"
        raise RuntimeError(f"the pose model failed in frames {span}: {error}") from error


def model_file(options: PoseOptions) -> str:
    """Path of the one file that holds the model the options ask for; fetched, packed or found in the cache.

    Raises:
        ValueError: it is not there, in one line that says what to do.
    """
    assert options.backend != "file", "keypoints have no model"
    if options.backend == "movenet":
        from transforms.movenet_model import movenet_path, pack_model

        return str(movenet_path() if options.model is None else pack_model(options.model))
    from transforms.pose_model import default_model_path

    return str(default_model_path()) if options.model is None else options.model


_estimators: dict[tuple[PoseOptions, str], PoseEstimator] = {}
_estimators_lock = threading.Lock()


def make_estimator(options: PoseOptions, model_path: str) -> PoseEstimator:
    """The estimator that the options name; made once a process, shared by its threads.

    Raises:
        ValueError: the model file is missing or is none of this back end's.
    """
    with _estimators_lock:
        key = (options, model_path)
        if key not in _estimators:
            _estimators[key] = _load(options, local_model(model_path))
        return _estimators[key]


def _load(options: PoseOptions, model_path: str) -> PoseEstimator:
    if options.backend == "movenet":
        from transforms.pose_movenet import MovenetEstimator

        return MovenetEstimator(model_path, input_side_px=options.input_side_px)
    from transforms.pose_mediapipe import MediapipeEstimator

    return MediapipeEstimator(
        model_path,
        max_people=options.max_people,
        min_person_score=options.least_person_score,
        min_keypoint_score=options.min_keypoint_score,
    )
