"""BlazePose through MediaPipe's `PoseLandmarker`: comes with pip alone, finds one or two prominent people.

Shape legend: T frames, H rows, W columns, C colour channels (RGB), P people, K = 17 COCO keypoints.
"""

import atexit
import os
import queue
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.records import NUM_KEYPOINTS
from transforms.keypoints import blazepose_to_coco, similarity
from transforms.pose import Found, people_from_keypoints
from transforms.pose_model import tensorflow_kept_out
from transforms.stderr import stderr_silenced

DUPLICATE_SIMILARITY = 0.5

_live: "weakref.WeakSet[Any]" = weakref.WeakSet()


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
    # MediaPipe's library starts a profiler with a timer for each of its threads, whose signal (SIGPROF) ends the
    # process wherever nobody handles it; read when the first landmarker is made.
    os.environ.setdefault("CPUPROFILE_FREQUENCY", "0")
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
    keypoints_PK3 = np.zeros((len(people_B3), NUM_KEYPOINTS, 3), np.float32)
    for index, landmarks_B3 in enumerate(people_B3):
        keypoints_PK3[index] = blazepose_to_coco(landmarks_B3) * np.array(
            [width_px, height_px, 1], np.float32
        )
    keypoints_PK3[..., :2] -= 0.5  # shares are measured from the picture's edge, pixels from their centres
    unknown_P = np.full(len(people_B3), np.nan, np.float32)
    return _once_each(people_from_keypoints(keypoints_PK3, unknown_P, min_keypoint_score=min_keypoint_score))


def _once_each(found: Found) -> Found:
    kept: list[int] = []
    for index, keypoints_K3 in enumerate(found.keypoints_PK3):
        others = [similarity(keypoints_K3, found.keypoints_PK3[one], found.boxes_P4[one]) for one in kept]
        if max(others, default=0.0) <= DUPLICATE_SIMILARITY:
            kept.append(index)
    return Found(*(values[kept] for values in found))


@atexit.register
def _leave_to_the_system() -> None:
    # At exit the landmarker's own destructor finds its modules gone and prints a traceback.
    for landmarker in _live:
        landmarker._handle = None
