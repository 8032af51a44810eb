"""All sixteen variants in one picture, for the documentation.

    python -m transforms.variant_sheet docs/images/variants.png

Shape legend: H rows, W columns, C colour channels (RGB), P people, K = 17 COCO keypoints.
"""

import sys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stores.records import People
from transforms.options import VARIANTS
from transforms.preview import GAP_PX, contact_sheet, write_png
from transforms.render import draw_people

CAPTION_PX = 18

# A person waving, in COCO order: x and y as shares of the person's height, the middle of the feet at (0, 0).
WAVING_K2 = np.array(
    [
        *[(0.01, -0.92), (0.03, -0.945), (-0.01, -0.945), (0.055, -0.93), (-0.035, -0.93)],
        *[(0.11, -0.80), (-0.10, -0.81), (0.21, -0.92), (-0.15, -0.65), (0.17, -1.06), (-0.13, -0.50)],
        *[(0.065, -0.50), (-0.065, -0.50), (0.08, -0.26), (-0.085, -0.26), (0.09, -0.02), (-0.12, -0.02)],
    ]
)


def synthetic_scene(*, width_px: int, height_px: int) -> tuple[NDArray[np.uint8], People]:
    """A picture of soft colours, and three waving people: near, far behind the near one, and cut off at the right."""
    top_to_bottom_H1 = np.linspace(0, 1, height_px)[:, None]
    sky_H3 = np.array([150, 180, 200]) * (1 - top_to_bottom_H1) + np.array([190, 170, 140]) * top_to_bottom_H1
    image_HWC = np.repeat(sky_H3[:, None], width_px, axis=1)
    feet_P2 = np.array([(0.34, 0.97), (0.45, 0.88), (0.97, 0.93)]) * (width_px, height_px)
    heights_P = np.array([0.80, 0.55, 0.68]) * height_px
    points_PK2 = feet_P2[:, None] + WAVING_K2 * heights_P[:, None, None]
    keypoints_PK3 = np.concatenate([points_PK2, np.full((3, 17, 1), 0.9)], axis=2).astype(np.float32)
    low_P2 = np.clip(points_PK2.min(axis=1), 0, None)
    high_P2 = np.minimum(points_PK2.max(axis=1), (width_px - 1, height_px - 1))
    boxes_P4 = np.concatenate([low_P2, high_P2], axis=1).astype(np.float32)
    return image_HWC.astype(np.uint8), People(0, np.full(3, 0.9, np.float32), boxes_P4, keypoints_PK3)


def variant_sheet(
    image_HWC: NDArray[np.uint8], people: People, *, variants: Sequence[str] = VARIANTS, columns: int = 4
) -> NDArray[np.uint8]:
    """The people drawn in each variant, with its name above."""
    panels = []
    for variant in variants:
        drawn_HWC = draw_people(image_HWC, people, variant)
        caption_HWC = np.full((CAPTION_PX, image_HWC.shape[1], 3), 255, np.uint8)
        place, font = (GAP_PX, CAPTION_PX - 5), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(caption_HWC, variant, place, font, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        panels.append(np.concatenate([caption_HWC, drawn_HWC]))
    return contact_sheet(panels, columns=columns)


def main() -> None:
    """Writes the sheet to the path that is the only argument."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    write_png(sys.argv[1], variant_sheet(*synthetic_scene(width_px=200, height_px=150)))


if __name__ == "__main__":
    main()
