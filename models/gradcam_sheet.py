"""Responses of several networks to one clip as a picture: frames, and below them where each network looks.

Shape legend: T frames, H rows, W columns, C colour channels (RGB).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from models.gradcam import Responses
from stores import files
from transforms.flow import dequantise
from transforms.preview import GAP_PX, flow_colours

TITLE_PX = 22
_TEXT_SCALE = 0.45
_BEHIND = 0.45  # share of the frame that stays visible behind its response


def gradcam_sheet(responses: Sequence[Responses], *, columns: int = 8) -> NDArray[np.uint8]:
    """One block a network: a title with its prediction, `columns` frames from first to last, their responses."""
    blocks = [_block(found, columns) for found in responses]
    width_px = max(block.shape[1] for block in blocks)
    return np.concatenate([_widened(block, width_px) for block in blocks])


def _block(found: Responses, columns: int) -> NDArray[np.uint8]:
    frames = np.unique(np.linspace(0, len(found.clip_THWC) - 1, columns).round().astype(int))
    pictures = [_picture(found.clip_THWC[i].numpy(), found.stream) for i in frames]
    answers = [
        overlay(picture, found.maps_THW[i].numpy()) for picture, i in zip(pictures, frames, strict=True)
    ]
    rows = [_row(pictures), _row(answers)]
    return np.concatenate([_title(title(found), rows[0].shape[1]), *rows])


def title(found: Responses) -> str:
    """`rgb: hug 0.83 (right)`; where another class is explained than the predicted one, both."""
    verdict = "right" if found.predicted == found.truth else f"truth {found.truth}"
    other = "" if found.label == found.predicted else f", predicted {found.predicted}"
    return files.printable(f"{found.run}: {found.label} {found.probability:.2f}{other} ({verdict})")


def overlay(picture_HWC: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The frame in grey with its response as heat: blue is none, red the clip's largest."""
    heat_HWC = cv2.applyColorMap(np.round(255 * map_HW).astype(np.uint8), cv2.COLORMAP_JET)
    grey_HW = cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2GRAY)
    blended = _BEHIND * grey_HW[..., None] + (1 - _BEHIND) * cv2.cvtColor(heat_HWC, cv2.COLOR_BGR2RGB)
    return blended.astype(np.uint8)


def _picture(image_HWC: NDArray[np.uint8], stream: str) -> NDArray[np.uint8]:
    if stream != "flow":
        return image_HWC
    return flow_colours(dequantise(image_HWC, 1.0), bound_px=1.0)


def _row(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    gap = np.full((pictures[0].shape[0], GAP_PX, 3), 255, np.uint8)
    row = np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)
    return np.concatenate([row, np.full((GAP_PX, row.shape[1], 3), 255, np.uint8)])


def _title(text: str, width_px: int) -> NDArray[np.uint8]:
    bar_HWC = np.full((TITLE_PX, width_px, 3), 255, np.uint8)
    place = (2, TITLE_PX - 7)
    cv2.putText(bar_HWC, text, place, cv2.FONT_HERSHEY_SIMPLEX, _TEXT_SCALE, (0, 0, 0), 1, cv2.LINE_AA)
    return bar_HWC


def _widened(block_HWC: NDArray[np.uint8], width_px: int) -> NDArray[np.uint8]:
    missing = width_px - block_HWC.shape[1]
    return np.pad(block_HWC, ((0, 0), (0, missing), (0, 0)), constant_values=255)
