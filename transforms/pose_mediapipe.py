"""BlazePose through MediaPipe's `PoseLandmarker`: comes with pip alone, finds one or two prominent people.

Shape legend: T frames, H rows, W columns, C colour channels (RGB), P people, K = 17 COCO keypoints.
"""

import atexit
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.records import NUM_KEYPOINTS
from transforms.keypoints import blazepose_to_coco, similarity
from transforms.pose import Found
from transforms.pose_model import tensorflow_kept_out

DUPLICATE_SIMILARITY = 0.5

_live: "weakref.WeakSet[Any]" = weakref.WeakSet()
_silence = threading.Lock()


class MediapipeEstimator:
    """A pool of landmarkers in image mode, one for each call under way.

    A landmarker is not known to be thread-safe, hence the pool. Image mode keeps no state between
    pictures, so it does not matter which landmarker sees which picture.

    Args:
        model_path: a `.task` bundle.
        max_people: most people looked for.
        min_person_score: confidence asked of the detector (is it a person?) and of the landmark model (is it
            one on closer look?). MediaPipe's own default, 0.5, more often loses the second of two people.
        min_keypoint_score: keypoints below count neither for the person's box nor for their score.

    Raises:
        ValueError: the file is no pose model.
    """

    def __init__(
        self, model_path: str, *, max_people: int, min_person_score: float, min_keypoint_score: float
    ) -> None:
        self._model_path = model_path
        self._max_people = max_people
        self._min_person_score = min_person_score
        self._min_keypoint_score = min_keypoint_score
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._idle.put(self._make_landmarker())

    def estimate(self, frames_THWC: NDArray[np.uint8]) -> list[Found]:
        """People of each picture; a person's score is the mean over the keypoints that reach the minimum.

        Raises:
            RuntimeError: MediaPipe failed.
        """
        try:
            landmarker = self._idle.get_nowait()
        except queue.Empty:
            landmarker = self._make_landmarker()
        try:
            return [self._find(landmarker, frame_HWC) for frame_HWC in frames_THWC]
        finally:
            self._idle.put(landmarker)

    def _find(self, landmarker: Any, frame_HWC: NDArray[np.uint8]) -> Found:
        from mediapipe.tasks.python.vision.core.image import Image, ImageFormat

        result = landmarker.detect(Image(ImageFormat.SRGB, np.ascontiguousarray(frame_HWC)))
        people = [
            np.array([(mark.x, mark.y, mark.visibility) for mark in marks], np.float32)
            for marks in result.pose_landmarks
        ]
        height_px, width_px = frame_HWC.shape[:2]
        return people_from_landmarks(
            people, width_px=width_px, height_px=height_px, min_keypoint_score=self._min_keypoint_score
        )

    def _make_landmarker(self) -> Any:
        with stderr_silenced():
            try:
                if not _live:
                    # Some lines are printed with the first picture and one with the first person: a
                    # landmarker that believes everything sees one in a black picture.
                    _warm_up(_landmarker(self._model_path, max_people=1, confidence=0.0)).close()
                landmarker = _landmarker(
                    self._model_path, max_people=self._max_people, confidence=self._min_person_score
                )
                _live.add(_warm_up(landmarker))
            except (RuntimeError, ValueError, OSError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(
                    f"pose.model: MediaPipe cannot use {self._model_path!r}: {reason}"
                ) from error
        return landmarker


def _landmarker(model_path: str, *, max_people: int, confidence: float) -> Any:
    with tensorflow_kept_out():
        from mediapipe.tasks.python import BaseOptions, vision
    options = vision.PoseLandmarkerOptions(
        BaseOptions(model_asset_path=model_path),
        num_poses=max_people,
        min_pose_detection_confidence=confidence,
        min_pose_presence_confidence=confidence,
    )
    return vision.PoseLandmarker.create_from_options(options)


def _warm_up(landmarker: Any) -> Any:
    from mediapipe.tasks.python.vision.core.image import Image, ImageFormat

    landmarker.detect(Image(ImageFormat.SRGB, np.zeros((64, 64, 3), np.uint8)))
    return landmarker


def people_from_landmarks(
    people_B3: list[NDArray[np.float32]], *, width_px: int, height_px: int, min_keypoint_score: float
) -> Found:
    """From BlazePose landmarks (x and y as shares of the picture, visibility) to COCO people in pixels.

    The box is the keypoints' that reach `min_keypoint_score`; a person without any is left out. The detector
    at times reports one person twice; of such a pair the first is kept.
    """
    scores: list[float] = []
    boxes: list[NDArray[np.float32]] = []
    kept: list[NDArray[np.float32]] = []
    for landmarks_B3 in people_B3:
        keypoints_K3 = blazepose_to_coco(landmarks_B3) * np.array([width_px, height_px, 1], np.float32)
        keypoints_K3[:, :2] -= 0.5  # shares are measured from the picture's edge, pixels from their centres
        seen_N3 = keypoints_K3[keypoints_K3[:, 2] >= min_keypoint_score]
        if not len(seen_N3):
            continue
        if any(
            similarity(keypoints_K3, other, box) > DUPLICATE_SIMILARITY
            for other, box in zip(kept, boxes, strict=True)
        ):
            continue
        scores.append(seen_N3[:, 2].mean())
        boxes.append(np.concatenate([seen_N3[:, :2].min(axis=0), seen_N3[:, :2].max(axis=0)]))
        kept.append(keypoints_K3)
    return Found(
        np.array(scores, np.float32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(kept, np.float32).reshape(-1, NUM_KEYPOINTS, 3),
    )


@contextlib.contextmanager
def stderr_silenced() -> Iterator[None]:
    """Keeps what native code prints off the screen, which no setting of MediaPipe's does.

    The whole process is silent meanwhile: for making models, and one thread at a time.
    """
    with _silence:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


@atexit.register
def _leave_to_the_system() -> None:
    # At exit the landmarker's own destructor finds its modules gone and prints a traceback.
    for landmarker in _live:
        landmarker._handle = None
