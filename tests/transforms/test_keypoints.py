import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from transforms import keypoints as kp

poses = arrays(np.float32, (3, 17, 3), elements=st.floats(-100, 400, width=16))


def test_limbs_and_joints_are_thirteen_each_and_name_coco_keypoints() -> None:
    assert len(kp.NAMES) == 17
    assert len(kp.LIMBS) == len(kp.JOINTS) == 13
    links = [link for links in kp.LIMBS.values() for link in links]
    assert {name for link in links for name in link} == set(kp.NAMES)
    assert sorted(name for names in kp.JOINTS.values() for name in names) == sorted(kp.NAMES)
    assert len(links) == 12 + 4


@pytest.mark.parametrize(("parts", "things"), [(kp.PART_OF_LIMB, kp.LIMBS), (kp.PART_OF_JOINT, kp.JOINTS)])
def test_six_parts_cover_every_limb_and_joint(parts: dict[str, str], things: dict[str, object]) -> None:
    assert set(parts) == set(things)
    assert len(set(parts.values())) == 6


def test_mirror_swaps_left_and_right_names() -> None:
    for index, name in enumerate(kp.NAMES):
        other = {"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:]
        assert kp.NAMES[kp.MIRROR_K[index]] == other


def test_blazepose_picks_the_landmarks_by_mediapipes_names() -> None:
    from transforms.pose_model import tensorflow_kept_out

    with tensorflow_kept_out():
        from mediapipe.tasks.python.vision import PoseLandmark

    for name, index in zip(kp.NAMES, kp.BLAZEPOSE_K, strict=True):
        long = name.replace("l_", "left_", 1) if name.startswith("l_") else name.replace("r_", "right_", 1)
        assert PoseLandmark[long.upper()] == index


def test_blazepose_refuses_other_counts() -> None:
    landmarks = np.arange(33 * 2, dtype=np.float32).reshape(33, 2)
    assert kp.blazepose_to_coco(landmarks)[16].tolist() == [56, 57]
    with pytest.raises(ValueError, match="expected 33 BlazePose landmarks, found 17"):
        kp.blazepose_to_coco(landmarks[:17])


@given(poses, st.integers(1, 500))
def test_mirroring_twice_is_the_identity(keypoints_PK3: np.ndarray, width_px: int) -> None:
    twice = kp.mirror_keypoints(kp.mirror_keypoints(keypoints_PK3, width_px), width_px)
    np.testing.assert_allclose(twice, keypoints_PK3, atol=1e-3)


def test_mirror_by_hand() -> None:
    keypoints_PK3 = np.zeros((1, 17, 3), np.float32)
    keypoints_PK3[0, kp.INDEX["l_wrist"]] = (2, 5, 0.9)
    mirrored = kp.mirror_keypoints(keypoints_PK3, 10)
    assert mirrored[0, kp.INDEX["r_wrist"]].tolist() == pytest.approx([7, 5, 0.9])
    assert kp.mirror_boxes(np.array([[1, 2, 4, 8]], np.float32), 10).tolist() == [[5, 2, 8, 8]]
    assert keypoints_PK3[0, kp.INDEX["r_wrist"]].tolist() == [0, 0, 0]


def test_size_is_the_longer_side() -> None:
    assert kp.box_sizes(np.array([[0, 0, 3, 4], [10, 10, 12, 10]])).tolist() == [4, 2]
    assert kp.box_sizes(np.zeros((0, 4))).shape == (0,)


def test_similarity_of_a_pose_moved_by_hand() -> None:
    box_4 = np.array([0, 0, 100, 100], np.float32)
    pose_K3 = np.zeros((17, 3), np.float32)
    assert kp.similarity(pose_K3, pose_K3, box_4) == 1
    moved_K3 = pose_K3.copy()
    moved_K3[0, 0] = 100 * 2 * 0.026  # the nose by its own spread: exp(-1/2)
    assert kp.similarity(pose_K3, moved_K3, box_4) == pytest.approx((16 + np.exp(-0.5)) / 17)
    assert kp.similarity(pose_K3, pose_K3 + 1000, box_4) == pytest.approx(0, abs=1e-6)
