"""The drawn figure: limbs keep their length, feet the ground, keypoints lie where the pixels are, COCO reads back.

Shape legend: K = 17 COCO keypoints.
"""

import dataclasses
import json
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.drawn_videos import (
    HEIGHT_PX,
    MOTIONS,
    WIDTH_PX,
    coco,
    draw_figure,
    keypoints_at,
    main,
    scene_of,
    write_drawn_videos,
)
from transforms.keypoint_files import read_clips
from transforms.keypoints import INDEX

LIMBS = {
    ("shoulder", "elbow"): 0.17,
    ("elbow", "wrist"): 0.16,
    ("hip", "knee"): 0.23,
    ("knee", "ankle"): 0.23,
}
TIMES_S = np.arange(0, 4, 0.13)


@pytest.mark.parametrize("motion", MOTIONS)
def test_limbs_keep_their_length_and_feet_the_ground(motion: str) -> None:
    scene, _ = scene_of(motion, 3)
    for t_s in TIMES_S:
        points_K2 = keypoints_at(motion, float(t_s), scene)
        for (start, stop), length in LIMBS.items():
            for side in "lr":
                along = points_K2[INDEX[f"{side}_{stop}"]] - points_K2[INDEX[f"{side}_{start}"]]
                assert np.hypot(*along) == pytest.approx(length * scene.height_px)
        lowest = points_K2[[INDEX["l_ankle"], INDEX["r_ankle"]], 1].max()
        assert lowest <= 0.93 * HEIGHT_PX + 1e-9
        if motion != "jump":
            assert lowest == pytest.approx(0.93 * HEIGHT_PX)
        if motion != "walk":  # which may leave the picture
            assert (points_K2 >= 0).all()
            assert (points_K2 < [WIDTH_PX, HEIGHT_PX]).all()


def test_motions_move_what_they_are_named_after() -> None:
    def travel(motion: str, joint: str) -> tuple[float, float]:
        scene, _ = scene_of(motion, 0)
        track = np.array([keypoints_at(motion, float(t), scene)[INDEX[joint]] for t in TIMES_S])
        across, down = np.ptp(track, axis=0) / scene.height_px
        return float(across), float(down)

    assert travel("walk", "nose")[0] > 0.5
    assert travel("jump", "l_ankle")[1] > 0.1
    assert travel("squat", "nose")[1] > 0.1
    assert travel("squat", "l_ankle")[1] == pytest.approx(0)
    assert travel("star", "l_wrist")[1] > 0.4
    assert travel("wave", "r_wrist") == pytest.approx((0, 0))
    assert travel("wave", "l_wrist")[0] > 0.05


def test_facing_mirrors_about_the_figures_middle() -> None:
    scene, _ = scene_of("wave", 1)
    ahead = keypoints_at("wave", 0.4, dataclasses.replace(scene, facing=1))
    behind = keypoints_at("wave", 0.4, dataclasses.replace(scene, facing=-1))
    np.testing.assert_allclose(ahead[:, 0] + behind[:, 0], 2 * scene.x_px)
    np.testing.assert_allclose(ahead[:, 1], behind[:, 1])


def test_pixels_lie_where_the_keypoints_are() -> None:
    scene, background_HWC = scene_of("star", 2)
    before_HWC = background_HWC.copy()
    points_K2 = keypoints_at("star", 0.5, scene)
    drawn_HWC = draw_figure(background_HWC, points_K2, scene)
    for joint, colour_C in (("l_knee", scene.trousers_C), ("r_wrist", scene.skin_C)):
        x, y = points_K2[INDEX[joint]].round().astype(int)
        assert drawn_HWC[y, x].tolist() == colour_C.tolist()
    assert (background_HWC == before_HWC).all()
    assert 0.03 < (drawn_HWC != background_HWC).any(axis=2).mean() < 0.3


def test_clips_of_a_group_share_the_scene_and_others_do_not() -> None:
    (first, background_HWC), (second, same_HWC) = scene_of("jump", 1), scene_of("wave", 7)
    assert (background_HWC == same_HWC).all()
    assert (first.height_px, first.speed) == (second.height_px, second.speed)
    assert not (scene_of("jump", 2)[1] == background_HWC).all()


def test_coco_reads_back() -> None:
    scene, _ = scene_of("walk", 0)
    track = [keypoints_at("walk", t / 25, scene) for t in range(3)]
    clip = read_clips(json.dumps(coco(track, "walk/a")).encode(), ".json")["walk/a"]
    assert (clip.frames, clip.width_px, clip.height_px) == (3, WIDTH_PX, HEIGHT_PX)
    for frame, points_K2 in enumerate(track):
        np.testing.assert_allclose(clip.found[frame].keypoints_PK3[0, :, :2], points_K2, atol=1e-3)


def test_videos_and_keypoints_lie_side_by_side(tmp_path: Path) -> None:
    assert write_drawn_videos(tmp_path, clips_per_motion=1, duration_s=0.2) == len(MOTIONS)
    for motion in MOTIONS:
        with av.open(str(tmp_path / "videos" / motion / "g00_c00.mp4")) as container:
            pictures = [p.to_ndarray(format="rgb24") for p in container.decode(video=0)]
        assert [p.shape for p in pictures] == [(HEIGHT_PX, WIDTH_PX, 3)] * 5
        assert (tmp_path / "keypoints" / motion / "g00_c00.json").is_file()
        scene, background_HWC = scene_of(motion, 0)
        expected_HWC = draw_figure(background_HWC, keypoints_at(motion, 0.0, scene), scene)
        assert np.abs(pictures[0].astype(int) - expected_HWC).mean() < 6  # chroma is halved and coded


def test_mistakes_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="found 'fly', expected one of jump"):
        keypoints_at("fly", 0, scene_of("jump", 0)[0])
    with pytest.raises(SystemExit, match="usage"):
        main(["a", "b"])
