"""Options of the stages. Imports nothing heavy: the command line and the configuration load at once."""

from dataclasses import dataclass
from typing import Literal

from stores.checks import require

BACKGROUNDS = ("rgb", "black")
MARKERS = ("bar", "dot")
COLOURS = ("6", "13")
THICKNESSES = ("uniform", "ratio")
VARIANTS = tuple(
    f"{background}-{marker}-{colours}-{thickness}"
    for background in BACKGROUNDS
    for marker in MARKERS
    for colours in COLOURS
    for thickness in THICKNESSES
)


@dataclass(frozen=True)
class FramesOptions:
    """How videos become frames.

    Attributes:
        fps: frames a second after resampling by timestamps.
        shorter_side_px: length of the shorter side after resizing.
        jpeg_quality: 1 to 100; lower ones cost flow accuracy, see docs/flow.md.
        keep_damaged: keep what decodes of a damaged video instead of rejecting it.
        timeout_s: seconds without a new frame after which the decoder is killed.
        max_frames: clips with more frames are rejected.
        max_pixels: videos with more pixels a frame are rejected.
    """

    fps: float = 25.0
    shorter_side_px: int = 256
    jpeg_quality: int = 95
    keep_damaged: bool = False
    timeout_s: float = 60.0
    max_frames: int = 30_000
    max_pixels: int = 8192 * 8192

    def __post_init__(self) -> None:
        require("frames.fps", self.fps, 0.1 <= self.fps <= 1000, "between 0.1 and 1000")
        require("frames.shorter_side_px", self.shorter_side_px, self.shorter_side_px >= 16, "at least 16")
        require("frames.jpeg_quality", self.jpeg_quality, 1 <= self.jpeg_quality <= 100, "between 1 and 100")
        require("frames.timeout_s", self.timeout_s, self.timeout_s > 0, "more than 0")
        require("frames.max_frames", self.max_frames, self.max_frames >= 2, "at least 2")
        require("frames.max_pixels", self.max_pixels, self.max_pixels >= 256, "at least 256")


_PERSON_SCORES = {"mediapipe": 0.3, "movenet": 0.2, "file": 0.0}


@dataclass(frozen=True)
class PoseOptions:
    """How people are found.

    Attributes:
        backend: mediapipe finds one or two prominent people, movenet up to six (TensorFlow); file reads keypoints
            that are there already.
        source: whether networks read the rendered store, or people are drawn onto the frames as training reads them,
            which needs no rendered store. No part of what the pose store holds.
        model: path of the model file (of the folder, for a SavedModel); none means the back end's own out of the
            cache.
        keypoints: for the back end file, a folder with one file a clip, or one file of all: COCO keypoints JSON or
            a PoseC3D pickle.
        keypoints_fps: frames a second of those keypoints; none means that they have the frames of the store.
        input_side_px: longer side of the picture as movenet sees it, a multiple of 32. Larger finds smaller people
            and costs by the square.
        max_people: most people kept in a frame, by size × score.
        min_person_score: people below are dropped; none means 0.3 for mediapipe, 0.2 for movenet, 0 for file.
        min_keypoint_score: keypoints below are not drawn and do not count for the box.
    """

    backend: Literal["mediapipe", "movenet", "file"] = "mediapipe"
    source: Literal["rendered", "drawn"] = "rendered"
    model: str | None = None
    keypoints: str | None = None
    keypoints_fps: float | None = None
    input_side_px: int = 256
    max_people: int = 6
    min_person_score: float | None = None
    min_keypoint_score: float = 0.3

    def __post_init__(self) -> None:
        require(
            "pose.backend",
            self.backend,
            self.backend in _PERSON_SCORES,
            "one of " + ", ".join(_PERSON_SCORES),
        )
        file, given = self.backend == "file", self.keypoints
        require(
            "pose.keypoints", given, file == (given is not None), "a path if and only if pose.backend is file"
        )
        fps = self.keypoints_fps
        require("pose.keypoints_fps", fps, fps is None or 0.1 <= fps <= 1000, "between 0.1 and 1000")
        side = self.input_side_px
        require(
            "pose.input_side_px", side, side % 32 == 0 and 64 <= side <= 2048, "a multiple of 32, 64 to 2048"
        )
        require("pose.max_people", self.max_people, 1 <= self.max_people <= 100, "between 1 and 100")
        for name in ("min_person_score", "min_keypoint_score"):
            score = getattr(self, name)
            require(f"pose.{name}", score, score is None or 0 <= score <= 1, "between 0 and 1")

    @property
    def least_person_score(self) -> float:
        """The person score in force: each back end's numbers mean something else."""
        return _PERSON_SCORES[self.backend] if self.min_person_score is None else self.min_person_score


@dataclass(frozen=True)
class RenderOptions:
    """How pose is drawn onto the frames.

    Attributes:
        variant: background-marker-colours-thickness, e.g. rgb-bar-13-ratio.
        min_keypoint_score: limbs and joints with a lower keypoint score are not drawn.
        thickness_px: line width of the uniform variants, for a shorter side of 256 px.
        thickness_ratio: line width of the ratio variants, as a share of the person's box (its longer side).
        jpeg_quality: 1 to 100.
    """

    variant: str = "rgb-bar-13-ratio"
    min_keypoint_score: float = 0.3
    thickness_px: float = 4.0
    thickness_ratio: float = 0.025
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        require("render.variant", self.variant, self.variant in VARIANTS, "one of " + ", ".join(VARIANTS))
        require("render.jpeg_quality", self.jpeg_quality, 1 <= self.jpeg_quality <= 100, "between 1 and 100")
        require("render.thickness_px", self.thickness_px, 0 < self.thickness_px <= 100, "between 0 and 100")
        ratio = self.thickness_ratio
        require("render.thickness_ratio", ratio, 0 < ratio <= 0.5, "between 0 and 0.5")
        score = self.min_keypoint_score
        require("render.min_keypoint_score", score, 0 <= score <= 1, "between 0 and 1")


@dataclass(frozen=True)
class TVL1Parameters:
    """Parameters of TV-L1 optical flow with the defaults of OpenCV's DualTVL1; docs/flow.md explains them.

    Attributes:
        tau: time step of the dual update.
        lambda_: weight of the data term; smaller is smoother.
        theta: tightness of the coupling between the two flow fields.
        scales: most levels of the pyramid.
        warps: warps a level.
        epsilon: mean change of a pixel, in px, at which iterating stops.
        inner_iterations: most iterations between two median filters.
        outer_iterations: most median filters a warp.
        scale_step: size of a level as a share of the next finer one.
        gamma: weight of the illumination term; 0 leaves it out.
        median_size: side of the median filter in px: 1 (none), 3 or 5.
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    scales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8
    gamma: float = 0.0
    median_size: int = 5

    def __post_init__(self) -> None:
        for name in ("tau", "lambda_", "theta"):
            value = getattr(self, name)
            require(f"flow.{name}", value, 0 < value <= 100, "more than 0, at most 100")
        for name in ("scales", "warps", "inner_iterations", "outer_iterations"):
            value = getattr(self, name)
            require(f"flow.{name}", value, 1 <= value <= 1000, "between 1 and 1000")
        require("flow.epsilon", self.epsilon, 0 <= self.epsilon <= 10, "between 0 and 10")
        step = self.scale_step
        require("flow.scale_step", step, 0.1 <= step <= 0.95, "between 0.1 and 0.95")
        require("flow.gamma", self.gamma, 0 <= self.gamma <= 100, "between 0 and 100")
        require("flow.median_size", self.median_size, self.median_size in (1, 3, 5), "1, 3 or 5")


@dataclass(frozen=True)
class FlowOptions(TVL1Parameters):
    """How optical flow is computed and stored; the TV-L1 parameters are inherited.

    Attributes:
        backend: the TV-L1 implementation: numba (CPU), torch (a GPU if there is one) or opencv.
        bound_px: flow is clipped to [-bound_px, bound_px] px a frame; none scales 20 px at a shorter side
            of 256 px with the frames' shorter side.
        encoding: how the two 8-bit planes are stored: png (two grey images, lossless), jpeg (two grey images), png3 or
            jpeg3 (one three-channel image, where readers of MediaSequence such as DMVR look for it).
        jpeg_quality: 1 to 100, for the encodings jpeg and jpeg3.
    """

    backend: Literal["numba", "torch", "opencv"] = "numba"
    bound_px: float | None = None
    encoding: Literal["png", "jpeg", "png3", "jpeg3"] = "png"
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        super().__post_init__()
        bound = self.bound_px
        require("flow.bound_px", bound, bound is None or 0 < bound <= 1000, "more than 0, at most 1000")
        require("flow.jpeg_quality", self.jpeg_quality, 1 <= self.jpeg_quality <= 100, "between 1 and 100")
