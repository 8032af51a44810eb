"""What one row of each store holds. A stage yields one record a frame; the store packs them into row groups.

Shape legend: P people, K = 17 COCO keypoints.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_KEYPOINTS = 17
KEYPOINT_NAMES = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
"""COCO's names in COCO's order."""

Y_IN_X = b"in x"
"""What stands in `FlowPair.y` when the image in `FlowPair.x` holds both components (flow.encoding png3, jpeg3)."""


@dataclass(frozen=True)
class Frame:
    """One RGB frame of a clip (stores `frames` and `render/*`).

    Attributes:
        frame: index in the clip, from 0.
        time_us: microseconds since the clip's first frame, on the regular grid of the target rate.
        image: the JPEG bytes.
    """

    frame: int
    time_us: int
    image: bytes

    def __post_init__(self) -> None:
        if self.frame < 0 or self.time_us < 0:
            raise ValueError(f"frame and time_us must be >= 0, found {self.frame} and {self.time_us}")
        if not self.image:
            raise ValueError(f"frame {self.frame} has an empty image")


@dataclass(frozen=True)
class People:
    """Everybody found in one frame (store `pose`); nobody is an answer too.

    Attributes:
        frame: index in the clip, from 0.
        scores_P: person scores in [0, 1], float32.
        boxes_P4: x0, y0, x1, y1 in pixels, float32.
        keypoints_PK3: x px, y px, score in [0, 1], COCO order, float32.
    """

    frame: int
    scores_P: NDArray[np.float32]
    boxes_P4: NDArray[np.float32]
    keypoints_PK3: NDArray[np.float32]

    def __post_init__(self) -> None:
        people = len(self.scores_P)
        found = (self.scores_P.shape, self.boxes_P4.shape, self.keypoints_PK3.shape)
        expected = ((people,), (people, 4), (people, NUM_KEYPOINTS, 3))
        if found != expected:
            raise ValueError(f"people of frame {self.frame}: expected shapes {expected}, found {found}")
        if not all(np.isfinite(a).all() for a in (self.scores_P, self.boxes_P4, self.keypoints_PK3)):
            raise ValueError(f"people of frame {self.frame} hold NaN or infinite values")

    @classmethod
    def nobody(cls, frame: int) -> "People":
        return cls(
            frame,
            np.zeros(0, np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros((0, NUM_KEYPOINTS, 3), np.float32),
        )


@dataclass(frozen=True)
class FlowPair:
    """Optical flow from `frame` to `frame + 1` as two encoded 8-bit planes (store `flow`).

    Attributes:
        frame: index of the first frame of the pair, from 0.
        x: encoded plane of the horizontal component.
        y: encoded plane of the vertical component.
    """

    frame: int
    x: bytes
    y: bytes

    def __post_init__(self) -> None:
        if self.frame < 0:
            raise ValueError(f"frame must be >= 0, found {self.frame}")
        if not self.x or not self.y:
            raise ValueError(f"flow of frame {self.frame} has an empty plane")


Record = Frame | People | FlowPair


def kind_of(store: str) -> type:
    """The record type of a store, by its name."""
    name = store.split("/", 1)[0]
    kinds: dict[str, type] = {"frames": Frame, "render": Frame, "pose": People, "flow": FlowPair}
    if name not in kinds:
        raise ValueError(f"unknown store {store!r}; known: {', '.join(kinds)}")
    return kinds[name]
