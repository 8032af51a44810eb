"""Pose drawn at load time: the same pixels as the render stage's before JPEG, and its own way of mirroring."""

from pathlib import Path

import numpy as np
import pytest
from moving_squares import SMALL, put_store, put_workspace, squares

from models.data import ClipCache, StreamClips
from models.drawn import DrawnPose
from models.runs import stale_reason
from models.selection import select_clips
from models.train import train
from models.windows import Window
from stores.reader import StoreReader
from transforms.images import decode_rgb
from transforms.keypoints import mirror_boxes, mirror_keypoints
from transforms.options import RenderOptions
from transforms.render import draw_people

VARIANT = "rgb-bar-13-ratio"
CLIPS = squares(2, split="train") + squares(1, split="test", seed=1)


@pytest.fixture(scope="module")
def drawn_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames, pose and flow, and no rendered store."""
    workspace = put_workspace(tmp_path_factory.mktemp("drawn"), CLIPS)
    put_store(workspace, "pose", CLIPS)
    return workspace


@pytest.fixture(scope="module")
def drawn(drawn_workspace: Path) -> DrawnPose:
    return DrawnPose(str(drawn_workspace), RenderOptions(variant=VARIANT))


def expected(workspace: Path, clip, frame: int, *, mirrored: bool) -> np.ndarray:
    """What drawing says, from the definitions."""
    (record,) = StoreReader(str(workspace), "frames").window(clip.clip_id, frame, frame + 1)
    image_HWC, people = decode_rgb(record.image), clip.people(frame)
    if mirrored:
        image_HWC = np.ascontiguousarray(image_HWC[:, ::-1])
        boxes_P4 = mirror_boxes(people.boxes_P4, clip.width_px)
        keypoints_PK3 = mirror_keypoints(people.keypoints_PK3, clip.width_px)
        people = type(people)(frame, people.scores_P, boxes_P4, keypoints_PK3)
    return draw_people(image_HWC, people, VARIANT)


@pytest.mark.parametrize("mirrored", [False, True])
def test_pictures_are_those_of_the_render_stage(
    drawn_workspace: Path, drawn: DrawnPose, mirrored: bool
) -> None:
    clip = CLIPS[0]
    wanted = np.array([0, 2, 3])
    found = list(drawn.pictures(clip.clip_id, wanted, mirrored=mirrored))
    for frame, image_HWC in zip(wanted, found, strict=True):
        assert np.array_equal(image_HWC, expected(drawn_workspace, clip, int(frame), mirrored=mirrored))


@pytest.mark.parametrize("cache_mb", [0, 50])
@pytest.mark.parametrize("mirrored", [False, True])
def test_windows_are_cut_where_the_other_streams_are(
    drawn_workspace: Path, drawn: DrawnPose, mirrored: bool, cache_mb: int
) -> None:
    """The crop of a mirrored frame is the mirrored crop of the frame; drawing comes in between."""
    selection = select_clips(str(drawn_workspace), streams=["rgb"], options=SMALL)
    (clip,) = (c for c in selection.clips if c.clip_id == CLIPS[0].clip_id)
    window = Window(1, 3, 1, 1.0, 4, 7, 24, 20, mirrored=mirrored)
    streams = StreamClips("pose", drawn, ClipCache(cache_mb * 1_000_000))
    left = clip.width_px - 7 - 20 if mirrored else 7
    for index, image_HWC in enumerate(streams.window(clip, window)):
        whole_HWC = expected(drawn_workspace, CLIPS[0], 1 + index, mirrored=mirrored)
        assert np.array_equal(image_HWC, whole_HWC[4:28, left : left + 20])


def test_a_teacher_trains_on_drawn_pose(drawn_workspace: Path) -> None:
    from dataclasses import replace

    options = replace(SMALL, drawn=RenderOptions(variant=VARIANT), pose_store="render/not-there")
    train("pose", workspace=str(drawn_workspace), options=options)
    assert stale_reason("pose", workspace=str(drawn_workspace), options=options) is None
    other = replace(options, drawn=RenderOptions(variant="black-dot-6-uniform"))
    assert "black-dot-6-uniform" in str(stale_reason("pose", workspace=str(drawn_workspace), options=other))
