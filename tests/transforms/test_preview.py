"""Shape legend: T frames, H rows, W columns, C channels."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stores.records import People
from transforms.preview import GAP_PX, contact_sheet, flow_colours, name_people, preview, side_by_side

HEIGHT, WIDTH = 32, 40


def flow_of(x: float, y: float) -> np.ndarray:
    return np.full((1, 1, 2), (x, y), np.float32)


@pytest.mark.parametrize(
    ("flow", "colour"),
    [
        ((0, 0), (255, 255, 255)),
        ((20, 0), (255, 0, 0)),
        ((10, 0), (255, 128, 128)),
        ((40, 0), (191, 0, 0)),
    ],
)
def test_colours_by_hand(flow: tuple[float, float], colour: tuple[int, int, int]) -> None:
    assert flow_colours(flow_of(*flow), bound_px=20)[0, 0].tolist() == pytest.approx(colour, abs=1)


def test_directions_have_the_wheels_hues() -> None:
    down, left, up = (flow_colours(flow_of(*flow), bound_px=1)[0, 0] for flow in ((0, 1), (-1, 0), (0, -1)))
    # a quarter of 55 colours is 13.75 of the 15 steps from red to yellow
    assert down.tolist() == pytest.approx([255, 255 * 13.75 / 15, 0], abs=1)
    # half is 27.5: 2.5 of the 11 from cyan to blue
    assert left.tolist() == pytest.approx([0, 255 * (1 - 2.5 / 11), 255], abs=1)
    # three quarters is 41.25: 5.25 of the 13 from blue to magenta
    assert up.tolist() == pytest.approx([255 * 5.25 / 13, 0, 255], abs=1)


def test_colours_close_the_circle() -> None:
    angles = np.linspace(-np.pi, np.pi, 721)
    flow_HW2 = np.stack([np.cos(angles), np.sin(angles)], axis=1)[None].astype(np.float32)
    colours = flow_colours(flow_HW2, bound_px=1)[0].astype(int)
    assert np.abs(np.diff(colours, axis=0)).max() <= 40
    assert np.abs(colours[0] - colours[-1]).max() <= 1


def test_panels_by_hand() -> None:
    red, blue = (np.full((2, 3, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    row_HWC = side_by_side([red, blue])
    assert row_HWC.shape == (2, 6 + GAP_PX, 3)
    assert (row_HWC[:, :3] == red).all()
    assert (row_HWC[:, 3:-3] == 128).all()
    assert (row_HWC[:, -3:] == blue).all()
    sheet_HWC = contact_sheet([red, blue, blue])
    assert sheet_HWC.shape == (4 + GAP_PX, 6 + GAP_PX, 3)
    assert (sheet_HWC[-2:, :3] == blue).all()
    assert (sheet_HWC[-2:, -3:] == 128).all()
    with pytest.raises(ValueError, match="different sizes"):
        side_by_side([red, blue[:1]])


def test_people_are_named_on_a_copy() -> None:
    image_HWC = np.zeros((120, 160, 3), np.uint8)
    people = People(
        0,
        np.array([0.9], np.float32),
        np.array([[20, 30, 90, 110]], np.float32),
        np.zeros((1, 17, 3), np.float32),
    )
    named_HWC = name_people(image_HWC, people)
    assert image_HWC.max() == 0
    assert (named_HWC[30, 20:91] == 255).all()
    assert named_HWC[:28].max() == 0
    np.testing.assert_array_equal(name_people(image_HWC, People.nobody(0)), image_HWC)


def streams(frames: int) -> dict[str, list[np.ndarray]]:
    """Frame t is t × 8 bright; the flow is to the right."""
    return {
        "rgb_THWC": [np.full((HEIGHT, WIDTH, 3), 8 * t, np.uint8) for t in range(frames)],
        "pose_THWC": [np.full((HEIGHT, WIDTH, 3), (0, 8 * t, 0), np.uint8) for t in range(frames)],
        "flow_THW2": [np.full((HEIGHT, WIDTH, 2), (20, 0), np.float32)] * (frames - 1),
    }


def test_a_video_has_all_frames_and_streams(tmp_path: Path) -> None:
    preview(tmp_path / "a.mp4", **streams(20), people=[People.nobody(t) for t in range(20)], fps=12.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 12.5
        pictures = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    assert len(pictures) == 20
    assert pictures[0].shape == (HEIGHT, 3 * WIDTH + 2 * GAP_PX, 3)
    for t in (0, 10, 19):
        row = pictures[t][HEIGHT // 2].astype(int)
        np.testing.assert_allclose(row[WIDTH // 2], [8 * t] * 3, atol=12)
        np.testing.assert_allclose(row[WIDTH + GAP_PX + WIDTH // 2], [0, 8 * t, 0], atol=16)
        np.testing.assert_allclose(row[-WIDTH // 2], [255, 0, 0], atol=16)


def test_a_sheet_runs_from_the_first_to_the_last_frame(tmp_path: Path) -> None:
    preview(tmp_path / "a.png", **streams(30))
    sheet_HWC = cv2.cvtColor(cv2.imread(str(tmp_path / "a.png")), cv2.COLOR_BGR2RGB)
    panel_width = 3 * WIDTH + 2 * GAP_PX
    assert sheet_HWC.shape == (6 * (HEIGHT + GAP_PX) - GAP_PX, 2 * panel_width + GAP_PX, 3)
    assert sheet_HWC[5, 5].tolist() == [0, 0, 0]
    assert sheet_HWC[-5, panel_width + GAP_PX + 5].tolist() == [232, 232, 232]


def test_a_clip_of_one_frame_and_rgb_alone_will_do(tmp_path: Path) -> None:
    preview(tmp_path / "a.png", rgb_THWC=[np.zeros((5, 7, 3), np.uint8)])
    preview(tmp_path / "a.mp4", rgb_THWC=[np.zeros((5, 7, 3), np.uint8)])
    assert cv2.imread(str(tmp_path / "a.png")).shape == (5, 14 + GAP_PX, 3)


@pytest.mark.parametrize("name", ["none/a.png", "none/a.mp4"])
def test_the_folder_of_a_preview_is_made(tmp_path: Path, name: str) -> None:
    preview(tmp_path / name, rgb_THWC=[np.zeros((5, 7, 3), np.uint8)])
    assert [path.name for path in (tmp_path / "none").iterdir()] == [Path(name).name]


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"preview: found .*a.gif', expected a name that ends in .mp4 or .png"
    ):
        preview(tmp_path / "a.gif", **streams(4))
    with pytest.raises(ValueError, match="preview: pose has 3 records for 4 frames"):
        preview(tmp_path / "a.png", **{**streams(4), "pose_THWC": streams(3)["pose_THWC"]})
    with pytest.raises(ValueError, match="preview: flow has 2 records for 4 frames"):
        preview(tmp_path / "a.png", **{**streams(4), "flow_THW2": streams(3)["flow_THW2"]})
    with pytest.raises(ValueError, match="preview: rgb has 0 records"):
        preview(tmp_path / "a.png", rgb_THWC=[])
