"""The pose stream drawn while training reads it, from frames and keypoints: no rendered store is needed.

Pixels are those of the render stage before its JPEG encoding, because the same function draws them. Mirroring differs:
here the keypoints are mirrored and left and right change places before drawing, so colours keep to their side.

Shape legend: H rows, W columns, C colour channels (RGB).
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores import keys
from stores.reader import StoreReader
from stores.records import People
from stores.store import Store
from stores.summaries import ClipEntry
from transforms.images import decode_rgb
from transforms.keypoints import mirror_boxes, mirror_keypoints
from transforms.options import RenderOptions
from transforms.render import draw_people


class DrawnPose:
    """Stands in for the reader of a store `render/<variant>`.

    Args:
        workspace: holds the stores frames and pose.
        options: how people are drawn; its JPEG quality plays no part.

    Raises:
        ValueError: one of the two stores is not committed.
    """

    def __init__(self, workspace: str, options: RenderOptions) -> None:
        self._frames, self._pose = StoreReader(workspace, "frames"), StoreReader(workspace, "pose")
        self._options = options
        self.store = Store(workspace, f"drawn/{options.variant}")

    @property
    def spec(self) -> dict[str, Any]:
        """What, apart from the clips, determines the pictures."""
        how = {
            "variant": self._options.variant,
            "min_keypoint_score": self._options.min_keypoint_score,
            "thickness_px": self._options.thickness_px,
            "thickness_ratio": self._options.thickness_ratio,
        }
        return {"frames": self._frames.spec, "pose": self._pose.spec, "drawn": how}

    @property
    def pins(self) -> dict[str, list[str]]:
        return self._frames.pins | self._pose.pins

    @cached_property
    def clips(self) -> dict[str, ClipEntry]:
        """The clips that both stores hold, with the size of their frames."""
        return {
            clip_id: _entry(entry, self._pose.clips[clip_id])
            for clip_id, entry in self._frames.clips.items()
            if clip_id in self._pose.clips
        }

    def pictures(
        self, clip_id: str, wanted: NDArray[np.int64], *, mirrored: bool
    ) -> Iterator[NDArray[np.uint8]]:
        """The frames of these indices (sorted, distinct) with everybody drawn, [H, W, C]."""
        span, chosen = (int(wanted[0]), int(wanted[-1]) + 1), set(wanted.tolist())
        records = zip(self._frames.records(clip_id, *span), self._pose.records(clip_id, *span), strict=True)
        for frame, people in records:
            if frame.frame in chosen:
                yield self._draw(decode_rgb(frame.image), people, mirrored=mirrored)

    def _draw(self, image_HWC: NDArray[np.uint8], people: People, *, mirrored: bool) -> NDArray[np.uint8]:
        if mirrored:
            width_px = image_HWC.shape[1]
            image_HWC = np.ascontiguousarray(image_HWC[:, ::-1])
            people = People(
                people.frame,
                people.scores_P,
                mirror_boxes(people.boxes_P4, width_px),
                mirror_keypoints(people.keypoints_PK3, width_px),
            )
        return draw_people(
            image_HWC,
            people,
            self._options.variant,
            min_keypoint_score=self._options.min_keypoint_score,
            thickness_px=self._options.thickness_px,
            thickness_ratio=self._options.thickness_ratio,
        )


def _entry(frames: ClipEntry, pose: ClipEntry) -> ClipEntry:
    key = keys.digest([frames.key, pose.key])
    return ClipEntry(frames.clip_id, key, frames.frames, 0, 0, frames.width_px, frames.height_px, 0, 0)
