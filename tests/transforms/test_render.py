"""Shape legend: H rows, W columns, C channels, P people, K = 17 keypoints, S strokes."""

import itertools
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.records import Frame, People
from transforms import render
from transforms.images import decode_rgb, encode_rgb
from transforms.keypoints import INDEX, JOINTS, LIMBS, mirror_boxes, mirror_keypoints
from transforms.options import VARIANTS, RenderOptions
from transforms.render import RenderStage, draw_people, make_strokes

HEIGHT, WIDTH = 80, 100


def person(keypoints: dict[str, tuple[float, float]], score: float = 0.9) -> People:
    """One person of whom only the named keypoints are seen; the box is their bounding box."""
    keypoints_K3 = np.zeros((17, 3), np.float32)
    for name, (x, y) in keypoints.items():
        keypoints_K3[INDEX[name]] = (x, y, score)
    seen = np.array(list(keypoints.values()), np.float32)
    box = np.concatenate([seen.min(axis=0), seen.max(axis=0)])
    return People(0, np.array([0.9], np.float32), box[None], keypoints_K3[None])


def together(*people: People) -> People:
    return People(
        0,
        np.concatenate([p.scores_P for p in people]),
        np.concatenate([p.boxes_P4 for p in people]),
        np.concatenate([p.keypoints_PK3 for p in people]),
    )


@st.composite
def crowds(draw: st.DrawFn) -> People:
    """Up to three people anywhere, also far outside the picture, with any scores."""
    seed, number = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 3))
    rng = np.random.Generator(np.random.Philox(seed))
    middles_P12 = rng.uniform(-20, 120, (number, 1, 2))
    keypoints_PK3 = np.concatenate(
        [middles_P12 + rng.normal(0, 25, (number, 17, 2)), rng.uniform(0, 1, (number, 17, 1))], axis=2
    ).astype(np.float32)
    boxes_P4 = np.concatenate(
        [keypoints_PK3[..., :2].min(axis=1), keypoints_PK3[..., :2].max(axis=1)], axis=1
    )
    return People(0, np.ones(number, np.float32), boxes_P4.reshape(-1, 4), keypoints_PK3)


def distances(x: np.ndarray, y: np.ndarray, link: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Distance of points from a line between two points, written the slow way."""
    (x0, y0), (x1, y1) = link
    length = np.hypot(x1 - x0, y1 - y0)
    if length == 0:
        return np.hypot(x - x0, y - y0)
    along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length**2, 0, 1)
    return np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))


def links_of(people: People, marker: str, min_score: float) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    bars = [link for links in LIMBS.values() for link in links]
    dots = [(name, name) for names in JOINTS.values() for name in names]
    for index, keypoints_K3 in enumerate(people.keypoints_PK3):
        for first, last in bars if marker == "bar" else dots:
            a, b = keypoints_K3[INDEX[first]], keypoints_K3[INDEX[last]]
            if min(a[2], b[2]) >= min_score:
                yield index, a[:2], b[:2]


def thickness_of(people: People, index: int, variant: str) -> float:
    """In pixels: a bar's width, a dot's diameter."""
    x0, y0, x1, y1 = people.boxes_P4[index]
    thickness = 0.025 * max(x1 - x0, y1 - y0) if variant.endswith("ratio") else 4 * HEIGHT / 256
    return max(thickness, 1.0) * (2 if "-dot-" in variant else 1)


class TestGeometry:
    def test_a_level_bar_by_hand(self) -> None:
        arm = person({"l_elbow": (20, 40), "l_wrist": (60, 40)})
        grey_HWC = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
        drawn_HWC = draw_people(grey_HWC, arm, "rgb-bar-13-ratio", thickness_ratio=0.1)  # 4 px wide
        orange = [255, 128, 0]
        assert (drawn_HWC[39:42, 20:61] == orange).all(), "all within 1.5 px of the line"
        np.testing.assert_array_equal(drawn_HWC[38, 20:61], drawn_HWC[42, 20:61])
        # the rows at 2 px lie on the edge: half covered, (100 + 255) / 2 and so on
        np.testing.assert_allclose(drawn_HWC[38, 40], [177.5, 114, 50], atol=1)
        assert (drawn_HWC[[37, 43]] == 100).all()
        assert (drawn_HWC[:, [*range(17), *range(64, WIDTH)]] == 100).all()
        np.testing.assert_allclose(drawn_HWC[40, 62], [177.5, 114, 50], atol=1)

    def test_a_bar_between_pixels_spreads_evenly(self) -> None:
        arm = person({"l_elbow": (20, 40.5), "l_wrist": (60, 40.5)})
        drawn_HWC = draw_people(
            np.zeros((HEIGHT, WIDTH, 3), np.uint8), arm, "black-bar-6-uniform", thickness_px=256 / HEIGHT
        )
        # one pixel wide, between rows 40 and 41: half of each
        np.testing.assert_allclose(drawn_HWC[38:44, 40, 0], [0, 0, 128, 128, 0, 0], atol=1)

    def test_a_dot_by_hand(self) -> None:
        knee = person({"r_knee": (50, 30)})
        drawn_HWC = draw_people(
            np.zeros((HEIGHT, WIDTH, 3), np.uint8), knee, "rgb-dot-6-uniform", thickness_px=5 * 256 / HEIGHT
        )
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        away = np.hypot(x - 50, y - 30)
        assert (drawn_HWC[away <= 4.5] == [0, 255, 255]).all()
        assert (drawn_HWC[away >= 5.5] == 0).all()

    def test_area_of_a_slanted_bar_is_length_times_width_and_two_half_discs(self) -> None:
        arm = person({"l_elbow": (20.3, 10.7), "l_wrist": (71.1, 60.2)})
        drawn_HWC = draw_people(
            np.zeros((HEIGHT, WIDTH, 3), np.uint8), arm, "black-bar-6-uniform", thickness_px=6 * 256 / HEIGHT
        )
        expected = np.hypot(50.8, 49.5) * 6 + np.pi * 9
        assert drawn_HWC[..., 0].sum() / 255 == pytest.approx(expected, rel=0.005)

    def test_ratio_follows_the_box_and_uniform_does_not(self) -> None:
        def width(variant: str, scale: float) -> float:
            arm = person({"l_elbow": (10, 40), "l_wrist": (10 + 40 * scale, 40)})
            strokes = make_strokes(
                arm, variant, shorter_side_px=128, min_keypoint_score=0.3, thickness_px=6, thickness_ratio=0.1
            )
            return 2 * float(strokes.radii_S[0])

        assert [width("rgb-bar-6-ratio", scale) for scale in (0.1, 1, 2)] == pytest.approx([1, 4, 8])
        assert [width("rgb-bar-6-uniform", scale) for scale in (0.1, 1, 2)] == [3, 3, 3]

    def test_the_farther_person_is_drawn_first(self) -> None:
        far = person({"l_elbow": (40, 40), "l_wrist": (60, 40)})
        near = person({"r_elbow": (50, 10), "r_wrist": (50, 70)})
        for people in (together(far, near), together(near, far)):
            drawn_HWC = draw_people(np.zeros((HEIGHT, WIDTH, 3), np.uint8), people, "black-bar-6-uniform")
            assert drawn_HWC[40, 50].tolist() == list(render.PART_COLOURS["right_arm"])

    def test_a_limb_needs_both_its_keypoints(self) -> None:
        arm = person({"l_shoulder": (10, 10), "l_elbow": (40, 40), "l_wrist": (70, 40)})
        arm.keypoints_PK3[0, INDEX["l_wrist"], 2] = 0.29
        drawn_HWC = draw_people(np.zeros((HEIGHT, WIDTH, 3), np.uint8), arm, "black-bar-13-uniform")
        assert drawn_HWC[:, 45:].max() == 0
        assert drawn_HWC[25, 25].tolist() == list(render.LIMB_COLOURS["l_upper_arm"])
        lower_HWC = draw_people(
            np.zeros((HEIGHT, WIDTH, 3), np.uint8), arm, "black-bar-13-uniform", min_keypoint_score=0.29
        )
        assert lower_HWC[40, 55].tolist() == list(render.LIMB_COLOURS["l_forearm"])

    def test_far_outside_the_picture_costs_nothing_and_paints_nothing(self) -> None:
        away = person({"l_elbow": (-1e6, 1e6), "l_wrist": (1e7, 2e7)})
        drawn_HWC = draw_people(
            np.zeros((HEIGHT, WIDTH, 3), np.uint8), away, "black-bar-6-uniform", thickness_px=4
        )
        assert drawn_HWC.max() == 0


class TestColours:
    @pytest.mark.parametrize("colours", [render.PART_COLOURS, render.LIMB_COLOURS, render.JOINT_COLOURS])
    def test_colours_are_well_apart_and_never_black(self, colours: dict[str, tuple[int, int, int]]) -> None:
        for one, two in itertools.combinations(colours.values(), 2):
            assert np.linalg.norm(np.subtract(one, two)) > 90
        assert min(max(colour) for colour in colours.values()) > 90

    def test_limbs_and_joints_have_thirteen(self) -> None:
        assert set(render.LIMB_COLOURS) == set(LIMBS)
        assert set(render.JOINT_COLOURS) == set(JOINTS)


@settings(max_examples=60, deadline=None)
@given(crowds(), st.sampled_from(VARIANTS))
def test_every_drawn_pixel_is_near_a_limb_and_every_limb_is_drawn(people: People, variant: str) -> None:
    background_HWC = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn_HWC = draw_people(background_HWC, people, variant)
    y, x = np.nonzero(drawn_HWC.any(axis=2))
    beyond = np.full(len(x), np.inf)
    for index, a, b in links_of(people, variant.split("-")[1], 0.3):
        half = thickness_of(people, index, variant) / 2
        beyond = np.minimum(beyond, distances(x, y, (a, b)) - half)
        for end in (a, b):
            column, row = np.round(end).astype(int)
            if 0 <= row < HEIGHT and 0 <= column < WIDTH:
                assert drawn_HWC[row, column].any()
    assert (beyond <= 0.51).all(), "half a pixel of the edge, and 0.01 for rounding"


@given(crowds(), st.sampled_from(VARIANTS))
@settings(max_examples=40, deadline=None)
def test_the_frame_is_left_alone_and_shows_where_nothing_is_drawn(people: People, variant: str) -> None:
    frame_HWC = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    kept_HWC = frame_HWC.copy()
    drawn_HWC = draw_people(frame_HWC, people, variant)
    np.testing.assert_array_equal(frame_HWC, kept_HWC)
    expected_HWC = kept_HWC if variant.startswith("rgb") else np.zeros_like(kept_HWC)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    clear_HW = np.ones((HEIGHT, WIDTH), bool)
    for index, a, b in links_of(people, variant.split("-")[1], 0.3):
        clear_HW &= distances(x, y, (a, b)) > thickness_of(people, index, variant) / 2 + 0.51
    np.testing.assert_array_equal(drawn_HWC[clear_HW], expected_HWC[clear_HW])


def opposite(name: str) -> str:
    """The other side's name of a limb or part."""
    sides = {"l_": "r_", "r_": "l_"}
    if name[:2] in sides:
        return sides[name[:2]] + name[2:]
    return name.replace("left", "?").replace("right", "left").replace("?", "right")


@pytest.mark.parametrize("colours", ["6", "13"])
def test_drawing_mirrored_keypoints_is_the_flip_with_left_and_right_colours_swapped(colours: str) -> None:
    palette = render.PART_COLOURS if colours == "6" else render.LIMB_COLOURS
    pose = {"l_shoulder": (30, 20), "l_elbow": (20, 35), "l_wrist": (12, 55), "r_knee": (70, 40)}
    people = person({**pose, "r_ankle": (64, 66)})
    mirrored = People(
        0,
        people.scores_P,
        mirror_boxes(people.boxes_P4, WIDTH),
        mirror_keypoints(people.keypoints_PK3, WIDTH),
    )
    variant = f"black-bar-{colours}-ratio"
    black_HWC = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    flipped_HWC = draw_people(black_HWC, people, variant)[:, ::-1]
    swapped_HWC = draw_people(black_HWC, mirrored, variant)
    assert (flipped_HWC.any(axis=2) == swapped_HWC.any(axis=2)).all()
    seen = 0
    for name, colour in palette.items():
        here = (flipped_HWC == colour).all(axis=2)
        seen += here.any()
        # two limbs of one side share a joint; which covers the other there may differ between the sides
        same = (swapped_HWC[here] == palette[opposite(name)]).all(axis=1)
        assert same.mean() > 0.95 if len(same) else True
    assert seen == {"6": 2, "13": 3}[colours]


class Clip:
    def __init__(
        self, records: list[Frame] | list[People], width_px: int = WIDTH, height_px: int = HEIGHT
    ) -> None:
        self.clip_id, self.frames, self.width_px, self.height_px = "clip", len(records), width_px, height_px
        self._records = records

    def records(self) -> Iterator[Frame | People]:
        return iter(self._records)


ARM = person({"l_elbow": (20, 40), "l_wrist": (60, 40)})


def jpeg() -> bytes:
    rows = np.linspace(0, 200, HEIGHT).astype(np.uint8)[:, None, None]
    return encode_rgb(np.broadcast_to(rows, (HEIGHT, WIDTH, 3)).copy(), jpeg_quality=95)


class TestStage:
    def run(self, variant: str, people: list[People], images: list[bytes]) -> list[Frame]:
        stage = RenderStage(RenderOptions(variant=variant))
        stage.setup()
        frames = [Frame(index, index * 40_000, image) for index, image in enumerate(images)]
        output = stage.process(Clip(frames), Clip(people))
        assert (output.width_px, output.height_px) == (WIDTH, HEIGHT)
        return list(output.records)

    def test_a_frame_without_people_keeps_its_bytes(self) -> None:
        image = jpeg()
        faint = person({"l_elbow": (20, 40), "l_wrist": (60, 40)}, score=0.2)
        records = self.run("rgb-bar-13-ratio", [People.nobody(0), faint_at(faint, 1)], [image, image])
        assert [record.image for record in records] == [image, image]
        assert [(record.frame, record.time_us) for record in records] == [(0, 0), (1, 40_000)]

    def test_a_frame_without_people_is_black_on_black(self) -> None:
        (record,) = self.run("black-dot-6-uniform", [People.nobody(0)], [jpeg()])
        pixels_HWC = decode_rgb(record.image)
        assert pixels_HWC.shape == (HEIGHT, WIDTH, 3)
        assert pixels_HWC.max() == 0

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_the_stage_draws_what_the_function_draws(self, variant: str) -> None:
        image = jpeg()
        (record,) = self.run(variant, [ARM], [image])
        assert record.image == encode_rgb(draw_people(decode_rgb(image), ARM, variant), jpeg_quality=95)

    def test_pose_of_other_frames_is_refused(self) -> None:
        with pytest.raises(ValueError, match="clip clip: frames and pose differ"):
            self.run("rgb-bar-13-ratio", [faint_at(ARM, 1)], [jpeg()])
        with pytest.raises(ValueError, match="clip clip: frames and pose differ"):
            self.run("rgb-bar-13-ratio", [ARM], [jpeg(), jpeg()])

    def test_only_the_thickness_that_matters_is_in_the_spec(self) -> None:
        ratio = RenderStage(RenderOptions(variant="rgb-dot-6-ratio"))
        uniform = RenderStage(RenderOptions(variant="rgb-dot-6-uniform"))
        assert ratio.name == "render/rgb-dot-6-ratio"
        assert ratio.inputs == ("frames", "pose")
        assert set(ratio.spec()) == {"variant", "min_keypoint_score", "thickness_ratio", "jpeg_quality"}
        assert set(uniform.spec()) == {"variant", "min_keypoint_score", "thickness_px", "jpeg_quality"}


def faint_at(people: People, frame: int) -> People:
    return People(frame, people.scores_P, people.boxes_P4, people.keypoints_PK3)


def test_importing_compiles_nothing() -> None:
    code = "import sys, transforms.render\nassert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
