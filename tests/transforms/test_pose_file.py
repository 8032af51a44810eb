import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores.records import Frame, People
from stores.rejections import ClipRejected
from transforms.options import PoseOptions
from transforms.pose_file import KeypointsStage


class Clip:
    """A stored clip of which only size, times and number of frames matter."""

    def __init__(self, clip_id: str, *, frames: int = 4, width_px: int = 160, height_px: int = 120) -> None:
        self.clip_id, self.frames, self.width_px, self.height_px = clip_id, frames, width_px, height_px

    def records(self) -> Iterator[Frame]:
        return (Frame(index, index * 40_000, b"jpeg") for index in range(self.frames))


def annotation(frames: int = 4, **changes: Any) -> dict[str, Any]:
    """One person at (2t, 30) and (2t + 10, 50) in pictures of 320 × 240, by frame t; nobody in the last."""
    keypoint = np.zeros((1, frames, 17, 2), np.float32)
    for t in range(frames - 1):
        keypoint[0, t, :8] = (2 * t + 0.5, 30.5)
        keypoint[0, t, 8:] = (2 * t + 10.5, 50.5)
    score = np.full((1, frames, 17), 0.8, np.float32)
    return {"frame_dir": "v_1", "total_frames": frames, "img_shape": (240, 320), "keypoint": keypoint,
            "keypoint_score": score, **changes}  # fmt: skip


def folder_with(tmp_path: Path, name: str, content: Any) -> str:
    path = tmp_path / "keypoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content) if name.endswith(".pkl") else json.dumps(content).encode())
    return str(tmp_path / "keypoints")


def stage(keypoints: str, **options: Any) -> KeypointsStage:
    return KeypointsStage(PoseOptions(backend="file", keypoints=keypoints, **options))


def run(keypoints: str, clip: Clip, **options: Any) -> list[People]:
    return list(stage(keypoints, **options).process(clip).records)


def test_people_come_in_the_pixels_of_the_stored_frames(tmp_path: Path) -> None:
    people = run(folder_with(tmp_path, "class/v_1.pkl", annotation()), Clip("class/v_1"))
    assert [len(record.scores_P) for record in people] == [1, 1, 1, 0]
    # (0.5, 30.5) is the point (1, 31) from the corner, which is (0.5, 15.5) at half the size, (0, 15) by centres
    assert people[0].keypoints_PK3[0, 0].tolist() == pytest.approx([0, 15, 0.8])
    assert people[1].boxes_P4[0].tolist() == [1, 15, 6, 25]
    assert people[0].scores_P[0] == pytest.approx(0.8)


@pytest.mark.parametrize("clip_id", ["v_1", "some/folder/v_1"])
def test_one_file_of_all_clips_by_name_or_last_part_of_it(tmp_path: Path, clip_id: str) -> None:
    folder_with(tmp_path, "all.pkl", {"annotations": [annotation(), annotation(frame_dir="v_2")]})
    one_file = str(tmp_path / "keypoints" / "all.pkl")
    assert len(run(one_file, Clip(clip_id))) == 4
    spec = stage(one_file).clip_spec
    assert spec("v_1") == spec("v_2"), "equal content, equal digest"
    assert spec("v_3") == {"keypoints_sha256": None}
    with pytest.raises(ClipRejected, match=r"no_keypoints: .*all.pkl has none for v_3"):
        run(one_file, Clip("v_3"))


def test_keypoints_of_another_rate_are_taken_at_the_frames_times(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "v_1.pkl", annotation(frames=13))
    # frame i at i / 25 s; at 50 keypoints a second that is keypoint frame 2i
    people = run(folder, Clip("v_1", frames=6), keypoints_fps=50)
    assert [record.keypoints_PK3[0, 0, 0] for record in people] == pytest.approx([0, 2, 4, 6, 8, 10])
    with pytest.raises(ClipRejected, match="wrong_keypoints: they have 13 frames, the clip's length makes 4"):
        run(folder, Clip("v_1", frames=4), keypoints_fps=25)


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (Clip("v_1", frames=5), "they have 4 frames, the clip has 5; pose.keypoints_fps says so"),
        (Clip("v_1", width_px=213), "they are of pictures of 320 x 240 px, the clip has 213 x 120"),
    ],
)
def test_keypoints_of_another_clip_are_refused(tmp_path: Path, clip: Clip, words: str) -> None:
    with pytest.raises(ClipRejected, match=f"wrong_keypoints: {words}") as rejection:
        run(folder_with(tmp_path, "v_1.pkl", annotation()), clip)
    assert rejection.value.cause == "data"


def test_results_beyond_the_clip_are_refused(tmp_path: Path) -> None:
    result = {"image_id": 4, "keypoints": [1, 1, 1] * 16 + [9, 9, 1], "score": 0.5}
    folder = folder_with(tmp_path, "v_1.json", [result])
    assert len(run(folder, Clip("v_1", frames=5))[4].scores_P) == 1
    with pytest.raises(ClipRejected, match="they have at least 5 frames, the clip has 4"):
        run(folder, Clip("v_1"))


@pytest.mark.parametrize("content", [b"", b"rubbish", pickle.dumps(Path("x")), pickle.dumps([1, 2])])
def test_a_file_that_cannot_be_read_costs_one_clip(tmp_path: Path, content: bytes) -> None:
    folder = Path(folder_with(tmp_path, "v_1.pkl", annotation()))
    (folder / "v_2.pkl").write_bytes(content)
    with pytest.raises(ClipRejected, match=r"wrong_keypoints: .*v_2.pkl: not"):
        run(str(folder), Clip("v_2"))
    assert len(run(str(folder), Clip("v_1"))) == 4


def test_one_file_that_cannot_be_read_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text("{}")
    with pytest.raises(ValueError, match=r"pose.keypoints: .*all.json cannot be read: not the expected"):
        stage(str(tmp_path / "all.json"))
    with pytest.raises(ValueError, match=r"pose.keypoints: .*none.pkl cannot be read"):
        stage(str(tmp_path / "none.pkl"))


def test_a_clip_id_cannot_leave_the_folder(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "v_1.pkl", annotation())
    with pytest.raises(ValueError, match="would leave"):
        stage(folder).clip_spec("../keypoints/v_1")


def test_each_clip_has_the_digest_of_its_own_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "v_1.pkl", annotation())
    before = stage(folder).clip_spec("v_1")
    folder_with(tmp_path, "v_2.pkl", annotation(frame_dir="v_2"))
    assert stage(folder).clip_spec("v_1") == before
    assert stage(folder).clip_spec("v_2") != before
    assert stage(folder).clip_spec("v_3") == {"keypoints_sha256": None}


def test_spec_has_what_matters(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "v_1.pkl", annotation())
    spec = stage(folder).spec()
    assert spec == {"backend": "file", "max_people": 6, "min_person_score": 0.0, "min_keypoint_score": 0.3}
    assert stage(folder, keypoints_fps=30).spec() == {**spec, "keypoints_fps": 30}
    assert stage(folder).name == "pose"
