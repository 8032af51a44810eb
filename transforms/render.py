"""Drawing people onto frames in sixteen variants (background, marker, colours, thickness), and the stage.

The variants are those of the PERF-Net paper, section 3.1. A bar is all points within half a thickness of the
line between two keypoints, a dot all within one thickness of a joint.

Shape legend: H rows, W columns, C colour channels (RGB), P people, K = 17 COCO keypoints, S strokes.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from stores.records import Frame, People
from transforms.images import decode_rgb, encode_rgb
from transforms.keypoints import INDEX, JOINTS, LIMBS, PART_OF_JOINT, PART_OF_LIMB, box_sizes
from transforms.options import RenderOptions
from transforms.stage import ClipOutput, StoredClip

DEFAULT = RenderOptions()

PART_COLOURS = {
    "left_arm": (255, 0, 0),
    "right_arm": (0, 0, 255),
    "body": (0, 255, 0),
    "head": (255, 255, 0),
    "left_leg": (255, 0, 255),
    "right_leg": (0, 255, 255),
}
"""Six colours, RGB."""

LIMB_COLOURS = {
    "head": (255, 255, 0),
    "shoulders": (255, 255, 255),
    "hips": (128, 0, 255),
    "l_side": (150, 75, 0),
    "r_side": (0, 110, 70),
    "l_thigh": (255, 0, 255),
    "l_shin": (255, 150, 200),
    "r_thigh": (0, 255, 0),
    "r_shin": (0, 255, 255),
    "l_upper_arm": (255, 0, 0),
    "l_forearm": (255, 128, 0),
    "r_upper_arm": (0, 0, 255),
    "r_forearm": (0, 150, 255),
}
"""Thirteen colours, RGB: warm ones on the person's left, cold ones on the right."""

JOINT_COLOURS = {
    "head": LIMB_COLOURS["head"],
    "l_shoulder": LIMB_COLOURS["l_side"],
    "r_shoulder": LIMB_COLOURS["r_side"],
    "l_elbow": LIMB_COLOURS["l_upper_arm"],
    "r_elbow": LIMB_COLOURS["r_upper_arm"],
    "l_wrist": LIMB_COLOURS["l_forearm"],
    "r_wrist": LIMB_COLOURS["r_forearm"],
    "l_hip": LIMB_COLOURS["shoulders"],
    "r_hip": LIMB_COLOURS["hips"],
    "l_knee": LIMB_COLOURS["l_thigh"],
    "r_knee": LIMB_COLOURS["r_thigh"],
    "l_ankle": LIMB_COLOURS["l_shin"],
    "r_ankle": LIMB_COLOURS["r_shin"],
}
"""The same thirteen colours for the joints."""


class Strokes(NamedTuple):
    """What is drawn, in order: each stroke is all points within a radius of a line (for a dot: of a point).

    Attributes:
        ends_S4: x0, y0, x1, y1 of the line in pixels; integers are pixel centres.
        radii_S: pixels.
        colours_S3: RGB, uint8.
    """

    ends_S4: NDArray[np.float64]
    radii_S: NDArray[np.float64]
    colours_S3: NDArray[np.uint8]


def draw_people(
    image_HWC: NDArray[np.uint8],
    people: People,
    variant: str,
    *,
    min_keypoint_score: float = DEFAULT.min_keypoint_score,
    thickness_px: float = DEFAULT.thickness_px,
    thickness_ratio: float = DEFAULT.thickness_ratio,
) -> NDArray[np.uint8]:
    """The frame, or a black picture of its size, with everybody drawn on it; the frame itself is left alone.

    Args:
        image_HWC: RGB.
        variant: one of `transforms.options.VARIANTS`.
        min_keypoint_score, thickness_px, thickness_ratio: as in `RenderOptions`.
    """
    strokes = make_strokes(
        people,
        variant,
        shorter_side_px=min(image_HWC.shape[:2]),
        min_keypoint_score=min_keypoint_score,
        thickness_px=thickness_px,
        thickness_ratio=thickness_ratio,
    )
    canvas_HWC = np.zeros_like(image_HWC) if variant.startswith("black-") else image_HWC.copy()
    return paint(canvas_HWC, strokes)


def make_strokes(
    people: People,
    variant: str,
    *,
    shorter_side_px: int,
    min_keypoint_score: float,
    thickness_px: float,
    thickness_ratio: float,
) -> Strokes:
    """What is drawn of these people, by the size of the box: smallest first, as the nearer cover the farther.

    Size is the longer side: seen from the side a person is as near as from the front.

    A bar needs both its keypoints at `min_keypoint_score` or above, a dot its one. A bar is as wide as the
    thickness and a dot twice; nothing is thinner than one pixel.
    """
    _, marker, colours, thickness = variant.split("-")
    order = np.argsort(box_sizes(people.boxes_P4), kind="stable")
    keypoints_PK3, boxes_P4 = people.keypoints_PK3[order], people.boxes_P4[order].astype(np.float64)
    links_L2, colours_L3 = _links(marker, colours)
    if thickness == "ratio":
        widths_P = thickness_ratio * box_sizes(boxes_P4)
    else:
        widths_P = np.full(len(boxes_P4), thickness_px * shorter_side_px / 256)
    radii_P = np.maximum(widths_P, 1) * (1 if marker == "dot" else 0.5)
    drawn_PL = (keypoints_PK3[:, links_L2, 2] >= min_keypoint_score).all(axis=2)
    person_S, link_S = np.nonzero(drawn_PL)
    ends_PL4 = keypoints_PK3[:, links_L2, :2].reshape(len(order), len(links_L2), 4)
    return Strokes(ends_PL4[drawn_PL].astype(np.float64), radii_P[person_S], colours_L3[link_S])


@functools.cache
def _links(marker: str, colours: str) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Pairs of keypoints (the same one twice for a dot) in drawing order, and the colour of each."""
    groups: Mapping[str, tuple[Any, ...]] = LIMBS if marker == "bar" else JOINTS
    part_of, own = (PART_OF_LIMB, LIMB_COLOURS) if marker == "bar" else (PART_OF_JOINT, JOINT_COLOURS)
    links, link_colours = [], []
    for name, members in groups.items():
        for member in members:
            first, last = member if marker == "bar" else (member, member)
            links.append((INDEX[first], INDEX[last]))
            link_colours.append(own[name] if colours == "13" else PART_COLOURS[part_of[name]])
    return np.array(links), np.array(link_colours, np.uint8)


def paint(canvas_HWC: NDArray[np.uint8], strokes: Strokes) -> NDArray[np.uint8]:
    """Draws onto the canvas itself and returns it. The first call on a machine compiles, for about a second."""
    from transforms.painter import paint_strokes

    if len(strokes.radii_S):
        paint_strokes(canvas_HWC, *strokes)
    return canvas_HWC


class RenderStage:
    """frames + pose → render/<variant>.

    A frame without anything to draw keeps its JPEG to the byte (on a black background: is a black picture).
    """

    version = 1
    inputs: tuple[str, ...] = ("frames", "pose")

    def __init__(self, options: RenderOptions) -> None:
        self.options = options
        self.name = f"render/{options.variant}"

    def spec(self) -> Mapping[str, Any]:
        uniform = self.options.variant.endswith("-uniform")
        thickness = "thickness_px" if uniform else "thickness_ratio"
        names = ("variant", "min_keypoint_score", thickness, "jpeg_quality")
        return {name: getattr(self.options, name) for name in names}

    def setup(self) -> None:
        """Compiles the painter, or loads it compiled, before the first clip."""
        cv2.setNumThreads(1)
        paint(
            np.zeros((1, 1, 3), np.uint8), Strokes(np.zeros((1, 4)), np.ones(1), np.zeros((1, 3), np.uint8))
        )

    def process(self, *clips: StoredClip) -> ClipOutput:
        """One picture for each frame.

        Raises:
            ValueError: the pose belongs to other frames; while records are consumed.
        """
        frames, pose = clips
        return ClipOutput(frames.width_px, frames.height_px, self._drawn(frames, pose))

    def _drawn(self, frames: StoredClip, pose: StoredClip) -> Iterator[Frame]:
        for record, people in itertools.zip_longest(frames.records(), pose.records()):
            if record is None or people is None or record.frame != people.frame:
                raise ValueError(f"clip {frames.clip_id}: frames and pose differ: {record} beside {people}")
            yield Frame(record.frame, record.time_us, self._render(record.image, people, frames))

    def _render(self, image: bytes, people: People, clip: StoredClip) -> bytes:
        strokes = make_strokes(
            people,
            self.options.variant,
            shorter_side_px=min(clip.width_px, clip.height_px),
            min_keypoint_score=self.options.min_keypoint_score,
            thickness_px=self.options.thickness_px,
            thickness_ratio=self.options.thickness_ratio,
        )
        if self.options.variant.startswith("black-"):
            canvas_HWC = np.zeros((clip.height_px, clip.width_px, 3), np.uint8)
        elif len(strokes.radii_S):
            canvas_HWC = decode_rgb(image)
        else:
            return image
        return encode_rgb(paint(canvas_HWC, strokes), jpeg_quality=self.options.jpeg_quality)
