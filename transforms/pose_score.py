"""How well an estimator finds people, measured as COCO does: object keypoint similarity (OKS) through pycocotools."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.images import decode_rgb
from transforms.options import PoseOptions
from transforms.pose import PoseEstimator, keep_people

FOUND_OKS = 0.5  # COCO's loosest threshold
PERSON = 1  # COCO's category


def pose_score(
    images: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    estimator: PoseEstimator,
    *,
    options: PoseOptions,
) -> dict[str, Any]:
    """Compares the people that would be stored with the annotated ones.

    Each person found, the highest score first, takes the annotated person whom it resembles most of those that are
    left. People annotated without keypoints, and crowds, count neither way, as in COCO.

    Args:
        images: folder with the pictures.
        annotations: a COCO keypoints JSON file.
        options: which of the estimator's people are kept.

    Returns:
        people: annotated people with keypoints; found: those with an OKS of 1/2 or more; mean_oks: over all
        annotated people, 0 for who was missed altogether; extra: people found who are nobody; ap: COCO's average
        precision; images: number of pictures.

    Raises:
        ValueError: the annotations are none, or a picture is missing.
    """
    truth = _read_truth(annotations)
    results = [
        person
        for image in truth.loadImgs(sorted(truth.getImgIds()))
        for person in _find(Path(images) / image["file_name"], image["id"], estimator, options)
    ]
    evaluation = _evaluate(truth, results) if results else None
    matched: list[float] = []
    extra = 0
    for image_id in sorted(truth.getImgIds()):
        oks_DG, counts_G = _similarities(truth, evaluation, image_id)
        best_G, unmatched = match(oks_DG, counts_G)
        matched.extend(best_G[counts_G])
        extra += unmatched
    return {
        "images": len(truth.getImgIds()),
        "people": len(matched),
        "found": int(sum(oks >= FOUND_OKS for oks in matched)),
        "mean_oks": float(np.mean(matched)) if matched else 0.0,
        "extra": extra,
        "ap": float(evaluation.stats[0]) if evaluation else 0.0,
    }


def match(oks_DG: NDArray[np.float64], counts_G: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    """OKS of each annotated person's match (0: none), and how many detections match nobody.

    Args:
        oks_DG: similarity of each detection, the highest score first, to each annotated person.
        counts_G: whose keypoints are annotated; a detection that resembles nobody of them is no mistake where
            somebody is annotated without keypoints.
    """
    best_G = np.zeros(len(counts_G))
    unmatched = 0
    for oks_G in oks_DG:
        left_G = np.where(counts_G & (best_G == 0), oks_G, 0)
        if left_G.size and left_G.max() > 0.1:
            best_G[left_G.argmax()] = left_G.max()
        else:
            unmatched += not (oks_G[~counts_G] > 0.1).any()
    return best_G, unmatched


def _read_truth(annotations: str | os.PathLike[str]) -> Any:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        try:
            truth = COCO(os.fspath(annotations))
        except (OSError, ValueError, AssertionError, KeyError, TypeError) as error:
            raise ValueError(f"{annotations}: no COCO annotations ({error!r})") from error
    if not any("keypoints" in annotation for annotation in truth.anns.values()):
        raise ValueError(f"{annotations}: no annotation has keypoints")
    return truth


def _find(
    path: Path, image_id: int, estimator: PoseEstimator, options: PoseOptions
) -> Iterator[dict[str, Any]]:
    try:
        picture_HWC = decode_rgb(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JPEG ({error})") from error
    height_px, width_px = picture_HWC.shape[:2]
    (found,) = estimator.estimate(picture_HWC[None])
    people = keep_people(found, frame=0, width_px=width_px, height_px=height_px, options=options)
    for score, keypoints_K3 in zip(people.scores_P, people.keypoints_PK3, strict=True):
        # COCO's annotators counted from the pixel's corner
        shifted_K3 = keypoints_K3 + np.array([0.5, 0.5, 0])
        yield {
            "image_id": image_id,
            "category_id": PERSON,
            "keypoints": shifted_K3.ravel().tolist(),
            "score": float(score),
        }


def _evaluate(truth: Any, results: list[dict[str, Any]]) -> Any:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.params.catIds = [PERSON]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _similarities(
    truth: Any, evaluation: Any, image_id: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """OKS of detections × annotated people, and which of the latter have keypoints and are no crowd."""
    people = truth.loadAnns(truth.getAnnIds(imgIds=[image_id], catIds=[PERSON]))
    counts_G = np.array([bool(p.get("num_keypoints")) and not p.get("iscrowd") for p in people], bool)
    oks_DG = np.asarray(evaluation.ious[image_id, PERSON] if evaluation else [], np.float64)
    return oks_DG.reshape(-1, len(people)) if people else np.zeros((0, 0)), counts_G
