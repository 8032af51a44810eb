"""The 17 COCO keypoints: names, limbs, colour groups, mirroring, and the way from BlazePose's 33.

Coordinates are pixels; an integer is the centre of a pixel, so the left edge of a picture lies at -0.5.

Shape legend: P people, K = 17 keypoints, B = 33 BlazePose landmarks.
"""

import numpy as np
from numpy.typing import NDArray

NAMES = (
    *("nose", "l_eye", "r_eye", "l_ear", "r_ear", "l_shoulder", "r_shoulder", "l_elbow", "r_elbow"),
    *("l_wrist", "r_wrist", "l_hip", "r_hip", "l_knee", "r_knee", "l_ankle", "r_ankle"),
)
INDEX = {name: index for index, name in enumerate(NAMES)}

MIRROR_K = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])
"""Where each keypoint comes from in a mirrored picture: left and right change places."""

BLAZEPOSE_K = np.array([0, 2, 5, 7, 8, *range(11, 17), *range(23, 29)])
"""Which of the 33 BlazePose landmarks is each COCO keypoint (MediaPipe's `PoseLandmark` order)."""

BLAZEPOSE_LANDMARKS = 33

LIMBS: dict[str, tuple[tuple[str, str], ...]] = {
    "head": (("nose", "l_eye"), ("nose", "r_eye"), ("l_eye", "l_ear"), ("r_eye", "r_ear")),
    "shoulders": (("l_shoulder", "r_shoulder"),),
    "hips": (("l_hip", "r_hip"),),
    "l_side": (("l_shoulder", "l_hip"),),
    "r_side": (("r_shoulder", "r_hip"),),
    "l_thigh": (("l_hip", "l_knee"),),
    "l_shin": (("l_knee", "l_ankle"),),
    "r_thigh": (("r_hip", "r_knee"),),
    "r_shin": (("r_knee", "r_ankle"),),
    "l_upper_arm": (("l_shoulder", "l_elbow"),),
    "l_forearm": (("l_elbow", "l_wrist"),),
    "r_upper_arm": (("r_shoulder", "r_elbow"),),
    "r_forearm": (("r_elbow", "r_wrist"),),
}
"""The 13 limbs, in drawing order: PoseNet's 12 links after the head, which is all links of the face."""

JOINTS: dict[str, tuple[str, ...]] = {"head": NAMES[:5], **{name: (name,) for name in NAMES[5:]}}
"""The 13 joints: the face as one and the 12 of the body."""

_PARTS_OF_LIMBS = {
    "left_arm": ("l_upper_arm", "l_forearm"),
    "right_arm": ("r_upper_arm", "r_forearm"),
    "body": ("shoulders", "hips", "l_side", "r_side"),
    "head": ("head",),
    "left_leg": ("l_thigh", "l_shin"),
    "right_leg": ("r_thigh", "r_shin"),
}
_PARTS_OF_JOINTS = {
    "left_arm": ("l_elbow", "l_wrist"),
    "right_arm": ("r_elbow", "r_wrist"),
    "body": ("l_shoulder", "r_shoulder", "l_hip", "r_hip"),
    "head": ("head",),
    "left_leg": ("l_knee", "l_ankle"),
    "right_leg": ("r_knee", "r_ankle"),
}

PART_OF_LIMB = {limb: part for part, limbs in _PARTS_OF_LIMBS.items() for limb in limbs}
"""Which of the six coarse parts a limb belongs to."""

PART_OF_JOINT = {joint: part for part, joints in _PARTS_OF_JOINTS.items() for joint in joints}
"""Which of the six coarse parts a joint belongs to; the corners of the torso are `body`, as its links are."""


def blazepose_to_coco(landmarks_BC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Picks the 17 COCO keypoints out of BlazePose's 33 landmarks; C is any number of columns.

    Raises:
        ValueError: there are not 33 landmarks.
    """
    if len(landmarks_BC) != BLAZEPOSE_LANDMARKS:
        raise ValueError(f"expected {BLAZEPOSE_LANDMARKS} BlazePose landmarks, found {len(landmarks_BC)}")
    return landmarks_BC[BLAZEPOSE_K]


def mirror_keypoints(keypoints_PK3: NDArray[np.float32], width_px: int) -> NDArray[np.float32]:
    """Keypoints in the picture flipped left to right: x becomes width - 1 - x, left and right swap names."""
    mirrored_PK3 = keypoints_PK3[:, MIRROR_K].copy()
    mirrored_PK3[..., 0] = (width_px - 1) - mirrored_PK3[..., 0]
    return mirrored_PK3


def mirror_boxes(boxes_P4: NDArray[np.float32], width_px: int) -> NDArray[np.float32]:
    """Boxes (x0, y0, x1, y1 px) of the picture flipped left to right."""
    mirrored_P4 = boxes_P4.copy()
    mirrored_P4[:, 0] = (width_px - 1) - boxes_P4[:, 2]
    mirrored_P4[:, 2] = (width_px - 1) - boxes_P4[:, 0]
    return mirrored_P4


def box_sizes(boxes_P4: NDArray[np.floating]) -> NDArray[np.floating]:
    """How large each person is: the longer side of the box (x0, y0, x1, y1 px)."""
    return (boxes_P4[:, 2:] - boxes_P4[:, :2]).max(axis=1, initial=0)


SIGMAS_K = np.array(
    [
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        *[0.107] * 2,
        *[0.087] * 2,
        *[0.089] * 2,
    ]
)
"""How far people place each keypoint from one another, as a share of the person's size (COCO)."""


def similarity(a_K3: NDArray[np.float32], b_K3: NDArray[np.float32], box_4: NDArray[np.float32]) -> float:
    """Object keypoint similarity (COCO's OKS) of two poses, over all keypoints: 1 the same, 0 nothing alike.

    Args:
        box_4: x0, y0, x1, y1 px; its area is the size that distances are measured against.
    """
    squared_K = ((a_K3[:, :2] - b_K3[:, :2]) ** 2).sum(axis=1)
    area_px2 = max(float((box_4[2] - box_4[0]) * (box_4[3] - box_4[1])), 1.0)
    return float(np.exp(-squared_K / (2 * area_px2 * (2 * SIGMAS_K) ** 2)).mean())
