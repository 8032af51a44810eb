"""The pose stage for keypoints that are there already: no model, each clip has the digest of its own keypoints."""

import functools
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stores import files
from stores.records import Frame, People
from stores.rejections import ClipRejected
from transforms.keypoint_files import SUFFIXES, ClipKeypoints, Poses, read_clips
from transforms.options import PoseOptions
from transforms.pose import Found, keep_people, people_from_keypoints
from transforms.stage import ClipOutput, StoredClip

SHAPE_TOLERANCE = 0.03  # relative difference of width ÷ height: sides are rounded to whole pixels
LENGTH_TOLERANCE_FRAMES = 2


class KeypointsStage:
    """frames + the user's keypoints → pose. The frames give the number, the times and the size of the pictures.

    `options.keypoints` is a folder with `<clip_id>.json` or `<clip_id>.pkl`, or one file of all clips.

    Raises:
        ValueError: the path is neither a folder nor a .json or .pkl file that can be read.
    """

    name = "pose"
    version = 1
    inputs: tuple[str, ...] = ("frames",)

    def __init__(self, options: PoseOptions) -> None:
        assert options.keypoints is not None
        self.options = options
        self._is_one_file = options.keypoints.endswith(SUFFIXES)
        if self._is_one_file:
            _read_all(options.keypoints)

    def spec(self) -> Mapping[str, Any]:
        fps = self.options.keypoints_fps
        return {
            "backend": "file",
            "max_people": self.options.max_people,
            "min_person_score": self.options.least_person_score,
            "min_keypoint_score": self.options.min_keypoint_score,
            **({} if fps is None else {"keypoints_fps": fps}),
        }

    def clip_spec(self, clip_id: str) -> Mapping[str, Any]:
        """What else determines this clip's pose: the digest of its keypoints, none where there are none."""
        if self._is_one_file:
            keypoints = self._from_one_file(clip_id)
            return {"keypoints_sha256": keypoints.digest() if keypoints else None}
        uri = self._clip_file(clip_id)
        return {"keypoints_sha256": files.digest(uri).hexdigest() if uri else None}

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, *clips: StoredClip) -> ClipOutput:
        """One `People` record for each frame of the clip.

        Raises:
            ClipRejected: no_keypoints, or wrong_keypoints: unreadable, or of another length or shape.
        """
        (frames,) = clips
        keypoints = self._keypoints(frames.clip_id)
        self._check_fits(keypoints, frames)
        return ClipOutput(frames.width_px, frames.height_px, self._people(frames, keypoints))

    def _keypoints(self, clip_id: str) -> ClipKeypoints:
        if self._is_one_file:
            found = self._from_one_file(clip_id)
        else:
            uri = self._clip_file(clip_id)
            found = _read_one(uri, clip_id) if uri else None
        if found is None:
            raise ClipRejected("no_keypoints", f"{self.options.keypoints} has none for {clip_id}")
        return found

    def _from_one_file(self, clip_id: str) -> ClipKeypoints | None:
        assert self.options.keypoints is not None
        clips = _read_all(self.options.keypoints)
        return clips.get(clip_id) or clips.get(posixpath.basename(clip_id))

    def _clip_file(self, clip_id: str) -> str | None:
        assert self.options.keypoints is not None
        candidates = [files.join(self.options.keypoints, clip_id + suffix) for suffix in SUFFIXES]
        return next((uri for uri in candidates if files.exists(uri)), None)

    def _check_fits(self, keypoints: ClipKeypoints, clip: StoredClip) -> None:
        if keypoints.width_px and keypoints.height_px:
            shape = keypoints.width_px / keypoints.height_px
            if abs(shape / (clip.width_px / clip.height_px) - 1) > SHAPE_TOLERANCE:
                size = f"{keypoints.width_px} x {keypoints.height_px}"
                raise ClipRejected(
                    "wrong_keypoints",
                    f"they are of pictures of {size} px, the clip has {clip.width_px} x {clip.height_px}",
                )
        if self.options.keypoints_fps is not None:
            return
        last = max(keypoints.found, default=-1)
        if (keypoints.frames or clip.frames) != clip.frames or last >= clip.frames:
            found = keypoints.frames or f"at least {last + 1}"
            raise ClipRejected(
                "wrong_keypoints",
                f"they have {found} frames, the clip has {clip.frames}; "
                "pose.keypoints_fps says so where they have another rate",
            )

    def _people(self, clip: StoredClip, keypoints: ClipKeypoints) -> Iterator[People]:
        scale_x = clip.width_px / (keypoints.width_px or clip.width_px)
        scale_y = clip.height_px / (keypoints.height_px or clip.height_px)
        last_source = -1
        for record in clip.records():
            last_source = self._source_frame(record)
            found = keypoints.found.get(last_source)
            if found is None:
                yield People.nobody(record.frame)
            else:
                yield keep_people(
                    _scaled(found, scale_x, scale_y, self.options.min_keypoint_score),
                    frame=record.frame,
                    width_px=clip.width_px,
                    height_px=clip.height_px,
                    options=self.options,
                )
        if keypoints.frames and abs(last_source + 1 - keypoints.frames) > LENGTH_TOLERANCE_FRAMES:
            raise ClipRejected(
                "wrong_keypoints",
                f"they have {keypoints.frames} frames, the clip's length makes {last_source + 1} "
                f"at pose.keypoints_fps {self.options.keypoints_fps}",
            )

    def _source_frame(self, record: Frame) -> int:
        if self.options.keypoints_fps is None:
            return record.frame
        return int(record.time_us * self.options.keypoints_fps / 1e6 + 0.5)


def _scaled(poses: Poses, scale_x: float, scale_y: float, min_keypoint_score: float) -> Found:
    """People in pixels of a picture of another size; integers are pixel centres in both."""
    keypoints_PK3 = poses.keypoints_PK3.copy()
    keypoints_PK3[..., :2] = (keypoints_PK3[..., :2] + 0.5) * np.array([scale_x, scale_y], np.float32) - 0.5
    return people_from_keypoints(
        keypoints_PK3, poses.scores_P, min_keypoint_score=max(min_keypoint_score, 1e-6)
    )


@functools.lru_cache(maxsize=2)
def _read_all(uri: str) -> Mapping[str, ClipKeypoints]:
    """One file of many clips; kept, as every clip of a worker asks for it."""
    try:
        return read_clips(files.read_bytes(uri), posixpath.splitext(uri)[1])
    except (OSError, ValueError) as error:
        raise ValueError(f"pose.keypoints: {uri} cannot be read: {error}") from error


def _read_one(uri: str, clip_id: str) -> ClipKeypoints | None:
    try:
        clips = read_clips(files.read_bytes(uri), posixpath.splitext(uri)[1])
    except ValueError as error:
        raise ClipRejected("wrong_keypoints", f"{uri}: {error}") from error
    except OSError as error:
        raise ClipRejected("io_error", f"{uri}: {error}") from error
    if len(clips) == 1:
        return next(iter(clips.values()))
    return clips.get(clip_id) or clips.get(posixpath.basename(clip_id))
