"""Exports the pose store as COCO keypoints, which pycocotools loads.

Shape legend: K = 17 keypoints.
"""

import json
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from pipelines.export_progress import Progress
from pipelines.progress import Screen
from stores import files
from stores.reader import StoreReader
from stores.records import KEYPOINT_NAMES, People

PERSON = 1
# COCO's own 19 links, counted from 1.
SKELETON = (
    *([16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9]),
    *([8, 10], [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7]),
)
_TO_CORNER = 0.5  # COCO counts from the corner of the first pixel, the store from its centre


def export_coco(
    workspace: str, out: str, *, min_keypoint_score: float, overwrite: bool, screen: Screen
) -> tuple[int, int]:
    """Writes one JSON file; returns (images, people). An image is a frame, named <clip_id>/<frame>.jpg.

    Args:
        min_keypoint_score: keypoints with at least this score are marked visible (2), those below as not (1).

    Raises:
        ValueError: the pose store is missing, or `out` is there already.
    """
    if files.exists(out) and not overwrite:
        raise ValueError(f"{files.printable(out)} exists; name another file, or give --overwrite")
    pose = StoreReader(workspace, "pose")
    progress = Progress(screen, "export", len(pose.clips))
    images = people = 0
    # Images come first in the file and people second: people wait in a file of their own.
    with files.staged(out) as path, open(path, "w", encoding="utf-8") as file, _spool() as waiting:
        file.write(json.dumps(_head(), ensure_ascii=False)[:-1] + ', "images": [')
        for clip_id, entry in pose.clips.items():
            for record in pose.records(clip_id):
                images += 1
                _add(file, _image(images, clip_id, record.frame, entry.width_px, entry.height_px), images)
                for person in _annotations(record, images, min_keypoint_score):
                    people += 1
                    _add(waiting, {"id": people, **person}, people)
            progress.one_more()
        file.write('\n], "annotations": [')
        waiting.seek(0)
        while chunk := waiting.read(1 << 20):
            file.write(chunk)
        file.write("\n]}\n")
    return images, people


def _spool() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8")


def _add(file: IO[str], item: dict[str, Any], number: int) -> None:
    file.write((",\n" if number > 1 else "\n") + json.dumps(item, ensure_ascii=False))


def _head() -> dict[str, Any]:
    category = {"id": PERSON, "name": "person", "supercategory": "person"}
    category |= {"keypoints": list(KEYPOINT_NAMES), "skeleton": list(SKELETON)}
    return {"info": {"description": "people found by perfnet"}, "licenses": [], "categories": [category]}


def _image(image_id: int, clip_id: str, frame: int, width_px: int, height_px: int) -> dict[str, Any]:
    name = f"{clip_id}/{frame:06d}.jpg"
    return {"id": image_id, "file_name": name, "width": width_px, "height": height_px, "frame": frame}


def _annotations(record: People, image_id: int, min_keypoint_score: float) -> Iterator[dict[str, Any]]:
    """Numbers are rounded to a thousandth of a pixel, and scores to four digits."""
    columns = zip(record.scores_P, record.boxes_P4, record.keypoints_PK3, strict=True)
    for score, box_4, keypoints_K3 in columns:
        x0, y0, x1, y1 = (float(v) + _TO_CORNER for v in box_4)
        scores_K = keypoints_K3[:, 2]
        seen_K = np.where(scores_K >= min_keypoint_score, 2, np.where(scores_K > 0, 1, 0))
        points_K2 = np.where(seen_K[:, None] > 0, keypoints_K3[:, :2].astype(np.float64) + _TO_CORNER, 0)
        triples = zip(points_K2.round(3).tolist(), seen_K.tolist(), strict=True)
        yield {
            "image_id": image_id,
            "category_id": PERSON,
            "bbox": [round(v, 3) for v in (x0, y0, x1 - x0, y1 - y0)],
            "area": round((x1 - x0) * (y1 - y0), 3),
            "iscrowd": 0,
            "num_keypoints": int((seen_K > 0).sum()),
            "keypoints": [value for (x, y), v in triples for value in (x, y, v)],
            "keypoint_scores": [round(float(v), 4) for v in scores_K],
            "score": round(float(score), 4),
        }
