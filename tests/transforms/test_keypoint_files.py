import json
import pickle
from typing import Any

import numpy as np
import pytest

from transforms.keypoint_files import ClipKeypoints, Poses, read_clips


def coco_person(image_id: int, x: float, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "keypoints": [x, 2.5, 2] * 17, **more}


def coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, ClipKeypoints]:
    return read_clips(json.dumps({"images": images, "annotations": annotations}).encode(), ".json")


def posec3d(**changes: Any) -> dict[str, Any]:
    keypoint = np.zeros((2, 3, 17, 2), np.float16)
    keypoint[0] = (10, 20)
    keypoint[1, 2] = (30, 40)
    annotation = {
        "frame_dir": "v_7",
        "total_frames": 3,
        "img_shape": (240, 320),
        "keypoint": keypoint,
        "keypoint_score": np.full((2, 3, 17), 0.75, np.float16),
    }
    return {**annotation, **changes}


def test_coco_frames_are_in_the_order_of_their_numbers_and_counted_from_0() -> None:
    images = [
        {"id": 5, "file_name": "img_10.jpg", "width": 64, "height": 48},
        {"id": 9, "file_name": "img_2.jpg", "width": 64, "height": 48},
        {"id": 1, "file_name": "img_1.jpg", "width": 64, "height": 48},
    ]
    clip = coco(images, [coco_person(5, 30.5, score=0.6), coco_person(9, 20.5), coco_person(5, 31.5)])[""]
    assert (clip.frames, clip.width_px, clip.height_px) == (3, 64, 48)
    assert [len(clip.found[frame].scores_P) for frame in range(3)] == [0, 1, 2]
    assert clip.found[1].keypoints_PK3[0, 0].tolist() == [20, 2, 1], "COCO counts from the pixel's corner"
    assert clip.found[2].scores_P[0] == np.float32(0.6)
    assert np.isnan(clip.found[2].scores_P[1])


def test_coco_of_many_clips_names_them_by_folder() -> None:
    images = [{"id": i, "file_name": f"boxing/clip_{i // 2}/{i % 2:06}.jpg"} for i in range(4)]
    clips = coco(images, [coco_person(3, 8.5)])
    assert sorted(clips) == ["boxing/clip_0", "boxing/clip_1"]
    assert clips["boxing/clip_1"].found[1].keypoints_PK3[0, 5].tolist() == [8, 2, 1]
    assert clips["boxing/clip_0"].width_px is None


def test_coco_results_are_numbered_by_image_id() -> None:
    results = [coco_person(4, 1.5, score=0.9), coco_person(4, 2.5, score=0.8), coco_person(0, 3.5, score=0.7)]
    clip = read_clips(json.dumps(results).encode(), ".json")[""]
    assert clip.frames is None
    assert sorted(clip.found) == [0, 4]
    assert len(clip.found[4].scores_P) == 2


@pytest.mark.parametrize("wrap", ["alone", "list", "dict"])
def test_posec3d_alone_and_of_a_data_set(wrap: str) -> None:
    annotation = posec3d()
    content = {"alone": annotation, "list": [annotation], "dict": {"split": {}, "annotations": [annotation]}}[
        wrap
    ]
    clip = read_clips(pickle.dumps(content), ".pkl")["" if wrap == "alone" else "v_7"]
    assert (clip.frames, clip.width_px, clip.height_px) == (3, 320, 240)
    assert clip.found[2].keypoints_PK3[1, 16].tolist() == [30, 40, 0.75]
    assert (clip.found[0].keypoints_PK3[1] == 0).all(), "who is absent has no score"


def test_posec3d_without_scores_believes_all_but_zeros() -> None:
    annotation = posec3d()
    del annotation["keypoint_score"]
    clip = read_clips(pickle.dumps(annotation), ".pkl")[""]
    assert clip.found[0].keypoints_PK3[:, 0, 2].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("content", "suffix", "words"),
    [
        (b"{", ".json", "Expecting property name"),
        (b"[1]", ".json", "not the expected structure"),
        (b'{"images": []}', ".json", "not the expected structure: KeyError"),
        (b"\xff\xfe\x00", ".json", "structure|decode"),
        (json.dumps([{"image_id": 0, "keypoints": [1, 2, 3]}]).encode(), ".json", "cannot reshape"),
        (json.dumps([coco_person(0, float("nan"))]).encode(), ".json", "frame 0 hold NaN"),
        (pickle.dumps({"annotations": [{"frame_dir": "x"}]}), ".pkl", "KeyError.*keypoint"),
        (pickle.dumps(posec3d(keypoint=np.zeros((1, 3, 18, 2)))), ".pkl", r"shape \(1, 3, 18, 2\), expected"),
        (pickle.dumps(posec3d(keypoint_score=np.zeros((1, 3, 17)))), ".pkl", "keypoint_score has shape"),
        (pickle.dumps(posec3d(total_frames=9)), ".pkl", "total_frames is 9, keypoint has 3"),
        (b"no pickle", ".pkl", "not a pickle of arrays"),
    ],
    ids=range(11),
)
def test_what_is_wrong_is_said(content: bytes, suffix: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_clips(content, suffix)


def test_pictures_of_two_sizes_are_no_clip() -> None:
    images = [{"id": 0, "file_name": "0.jpg", "width": 4, "height": 4}, {"id": 1, "file_name": "1.jpg"}]
    with pytest.raises(ValueError, match="pictures of one clip have sizes"):
        coco(images, [])


def test_digest_follows_the_content_and_not_the_order() -> None:
    def clip(x: float, frames: int = 3, reverse: bool = False) -> ClipKeypoints:
        poses = {t: Poses(np.ones(1, np.float32), np.full((1, 17, 3), x + t, np.float32)) for t in range(2)}
        return ClipKeypoints(frames, 4, 4, dict(sorted(poses.items(), reverse=reverse)))

    assert clip(1).digest() == clip(1, reverse=True).digest()
    assert len({clip(1).digest(), clip(2).digest(), clip(1, frames=4).digest()}) == 3
