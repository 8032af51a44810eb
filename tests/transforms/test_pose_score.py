import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transforms.images import encode_rgb
from transforms.options import PoseOptions
from transforms.pose import Found, make_estimator
from transforms.pose_score import match, pose_score

OPTIONS = PoseOptions(backend="movenet")


class Scripted:
    def __init__(self, *answers: Found) -> None:
        self.answers = list(answers)

    def estimate(self, frames_THWC: np.ndarray) -> list[Found]:
        return [self.answers.pop(0)]


def poses(*people: tuple[float, np.ndarray]) -> Found:
    keypoints_PK3 = np.array([np.c_[points, np.full(17, 0.9)] for _, points in people], np.float32)
    keypoints_PK3 = keypoints_PK3.reshape(-1, 17, 3)
    boxes_P4 = np.concatenate(
        [keypoints_PK3[..., :2].min(axis=1), keypoints_PK3[..., :2].max(axis=1)], axis=1
    )
    return Found(np.array([score for score, _ in people], np.float32), boxes_P4, keypoints_PK3)


FIRST = np.stack([np.linspace(10, 40, 17), np.linspace(20, 90, 17)], axis=1)
SECOND = FIRST + np.array([60, 0])


def annotated(folder: Path, *people: np.ndarray, keypoints: bool = True) -> Path:
    """A picture with these people, by COCO's corner convention."""
    (folder / "one.jpg").write_bytes(encode_rgb(np.zeros((120, 160, 3), np.uint8), jpeg_quality=90))
    annotations: list[dict[str, Any]] = []
    for index, points in enumerate(people):
        flat = np.c_[points + 0.5, np.full(17, 2 if keypoints else 0)].ravel().tolist()
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        area = float((x1 - x0) * (y1 - y0))
        annotations.append(
            {"id": index + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": area, "keypoints": flat,
             "num_keypoints": 17 * keypoints, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        )  # fmt: skip
    path = folder / "truth.json"
    images = [{"id": 1, "file_name": "one.jpg", "width": 160, "height": 120}]
    path.write_text(
        json.dumps(
            {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        )
    )
    return path


def test_people_exactly_there_have_a_similarity_of_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = annotated(tmp_path, FIRST, SECOND)
    score = pose_score(tmp_path, truth, Scripted(poses((0.9, SECOND), (0.8, FIRST))), options=OPTIONS)
    assert score == pytest.approx(
        {"images": 1, "people": 2, "found": 2, "mean_oks": 1.0, "extra": 0, "ap": 1.0}, abs=1e-3
    )
    assert capsys.readouterr().out == ""


def test_missed_and_extra_people_are_counted(tmp_path: Path) -> None:
    truth = annotated(tmp_path, FIRST, SECOND)
    elsewhere = FIRST + np.array([110, 0])
    score = pose_score(tmp_path, truth, Scripted(poses((0.9, FIRST), (0.5, elsewhere))), options=OPTIONS)
    assert (score["people"], score["found"], score["extra"]) == (2, 1, 1)
    assert score["mean_oks"] == pytest.approx(0.5, abs=1e-3)


def test_nobody_found_is_a_result(tmp_path: Path) -> None:
    score = pose_score(tmp_path, annotated(tmp_path, FIRST), Scripted(poses()), options=OPTIONS)
    assert (score["people"], score["found"], score["mean_oks"], score["extra"]) == (1, 0, 0.0, 0)


def test_a_match_is_taken_once() -> None:
    oks_DG = np.array([[0.9, 0.2], [0.8, 0.3], [0.05, 0.05]])
    best_G, unmatched = match(oks_DG, np.array([True, True]))
    assert best_G.tolist() == [0.9, 0.3]
    assert unmatched == 1
    best_G, unmatched = match(oks_DG[:2], np.array([True, False]))
    assert best_G.tolist() == [0.9, 0]
    assert unmatched == 0, "it may be the person without keypoints"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no.json: no annotation has keypoints|no COCO annotations"):
        pose_score(tmp_path, tmp_path / "no.json", Scripted(), options=OPTIONS)
    with pytest.raises(ValueError, match="no COCO annotations"):
        pose_score(tmp_path, tmp_path / "missing.json", Scripted(), options=OPTIONS)
    truth = annotated(tmp_path, FIRST)
    (tmp_path / "one.jpg").unlink()
    with pytest.raises(ValueError, match=r"one.jpg: cannot be read as JPEG"):
        pose_score(tmp_path, truth, Scripted(poses()), options=OPTIONS)


@pytest.mark.real_data
class TestRealPeople:
    def score(self, real_data: Path, model: str, options: PoseOptions) -> dict[str, Any]:
        folder = real_data / "pose_truth"
        return pose_score(folder, folder / "test_coco.json", make_estimator(options, model), options=options)

    @pytest.mark.parametrize(("side_px", "found", "oks"), [(256, 10, 0.68), (384, 11, 0.78), (512, 11, 0.8)])
    def test_movenet(self, real_data: Path, movenet: str, side_px: int, found: int, oks: float) -> None:
        score = self.score(real_data, movenet, PoseOptions(backend="movenet", input_side_px=side_px))
        assert score["people"] == 12
        assert score["found"] >= found
        assert score["mean_oks"] >= oks
        assert score["extra"] == 0

    def test_mediapipe_finds_the_prominent_ones(self, real_data: Path, pose_bundle: Path) -> None:
        score = self.score(real_data, str(pose_bundle), PoseOptions())
        assert score["found"] >= 4
        assert score["mean_oks"] >= 0.23
        assert score["extra"] == 0
