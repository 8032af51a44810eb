"""The sample videos: the same bytes every time, the motion that the label says, and nothing else that tells."""

import hashlib
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import samples
from pipelines.samples import Course, Placement, SampleVideo

ROOT = Path(samples.__file__).parents[1]
MIDDLE = Placement(x=0.5, y=0.6, height=0.7, tilt_deg=0.0)
WINDOW_S = 16 / samples.FPS
PICTURE_PX = (256, 320)


def course(speed: float = 1.0, phase_rad: float = 0.0) -> Course:
    return Course(MIDDLE, speed, 1.4, phase_rad)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SampleVideo]]:
    folder = tmp_path_factory.mktemp("small")
    return folder, samples.write_sample_videos(folder, clips_per_class=2, height_px=64, width_px=80)


def mask_moments(place: Placement) -> tuple[float, float, float, float]:
    """(centroid x, centroid y, area, angle in degrees) of the person drawn white on black."""
    black = np.zeros((*PICTURE_PX, 3), np.float32)
    drawn = (samples.compose(black, place).max(axis=2) > 8).astype(np.uint8)
    moments = cv2.moments(drawn, binaryImage=True)
    area = moments["m00"]
    angle = 0.5 * math.degrees(math.atan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"]))
    return moments["m10"] / area, moments["m01"] / area, area, angle


def test_the_same_arguments_give_the_same_bytes(small, tmp_path: Path) -> None:
    samples.write_sample_videos(tmp_path, clips_per_class=2, height_px=64, width_px=80)
    assert digests(tmp_path) == digests(small[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MALLOC_PERTURB_ belongs to glibc")
def test_the_bytes_do_not_depend_on_what_the_memory_held(small, tmp_path: Path) -> None:
    """Fresh memory is filled with another byte in each run; an encoder that reads what it never wrote shows here."""
    code = (
        "import pathlib, sys; from pipelines import samples;"
        "samples.write_sample_videos(pathlib.Path(sys.argv[1]), clips_per_class=2, height_px=64, width_px=80)"
    )
    for filling in ("1", "170", "254"):
        folder = tmp_path / filling
        environment = os.environ | {"MALLOC_PERTURB_": filling, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, check=True, timeout=120)
        assert digests(folder) == digests(small[0])


def test_another_seed_gives_other_bytes(small, tmp_path: Path) -> None:
    samples.write_sample_videos(tmp_path, clips_per_class=2, height_px=64, width_px=80, seed=1)
    first, second = digests(small[0]), digests(tmp_path)
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first)


def test_counts_names_and_formats(small) -> None:
    folder, videos = small
    assert len(videos) == 12
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.mp4")} == {
        f"{label}/{name}.mp4" for label in samples.LABELS for name in ("g00_c00", "g01_c01")
    }
    for video in videos:
        assert video.path.parent.name == video.label
        assert re.match(samples.GROUP_PATTERN, video.path.name)[1] == video.group
        with av.open(str(video.path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.height, stream.width, stream.average_rate) == (64, 80, samples.FPS)
            assert 30 <= sum(1 for _ in container.decode(stream)) <= 40


def test_a_complete_folder_is_left_alone_and_a_damaged_one_is_repaired(small) -> None:
    folder, videos = small
    before = digests(folder)
    times = [video.path.stat().st_mtime_ns for video in videos]
    assert samples.write_sample_videos(folder, clips_per_class=2, height_px=64, width_px=80) == videos
    assert [video.path.stat().st_mtime_ns for video in videos] == times
    videos[3].path.write_bytes(b"cut short")
    samples.write_sample_videos(folder, clips_per_class=2, height_px=64, width_px=80)
    assert digests(folder) == before


def test_half_of_each_class_is_held_out_with_nothing_in_common() -> None:
    videos = [samples._video(Path("v"), label, clip) for label in samples.LABELS for clip in range(20)]
    for label in samples.LABELS:
        assert [video.held_out for video in videos if video.label == label].count(True) == 10
    scenes = {
        held_out: [samples.SCENES[int(video.group[1:])] for video in videos if video.held_out == held_out]
        for held_out in (True, False)
    }
    for what in ("background", "height", "speed"):
        sides = [{getattr(scene, what) for scene in scenes[held_out]} for held_out in (True, False)]
        assert not sides[0] & sides[1], what


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"clips_per_class": 3}, "clips_per_class"),
        ({"clips_per_class": 0}, "clips_per_class"),
        ({"height_px": 65}, "65"),
    ],
)
def test_impossible_arguments_are_named(tmp_path: Path, options: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        samples.write_sample_videos(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_unknown_motion_is_named() -> None:
    with pytest.raises(ValueError, match=r"jump.*approach"):
        samples.motion("jump", 0.0, course())


@pytest.mark.parametrize("scene", samples.SCENES, ids=lambda scene: scene.background)
def test_every_scene_has_a_background_that_differs_from_clip_to_clip(scene: samples.Scene) -> None:
    first, second = (
        samples._background(scene.background, (64, 80), np.random.Generator(np.random.Philox(key=(0, clip))))
        for clip in (0, 1)
    )
    assert (first.shape, first.dtype) == ((64, 80, 3), np.float32)
    assert first.min() >= 0
    assert first.max() <= 255
    assert np.abs(first - second).mean() > 1


def test_the_cut_out_is_the_person_alone() -> None:
    person = samples._person()
    mask = person[..., 3]
    assert mask.min() >= 0
    assert mask.max() == pytest.approx(1, abs=1e-3)
    assert 0.45 < mask.mean() < 0.75
    for margin in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert margin.max() < 0.05
    # The photograph's grey wall, beside the head, is out; face and suit are in.
    rows, columns = mask.shape
    assert mask[: rows // 8, : columns // 5].max() == 0
    assert mask[: rows // 8, -columns // 8 :].max() == 0
    assert mask[rows // 5, int(0.58 * columns)] == pytest.approx(1, abs=1e-3)
    red, green, blue = person[int(0.6 * rows), int(0.2 * columns), :3]
    assert red > 1.5 * green > 1.5 * blue


@pytest.mark.parametrize("speed", [0.85, 1.22])
def test_the_drawn_person_rises_sinks_and_grows_as_the_label_says(speed: float) -> None:
    at = {
        label: [mask_moments(samples.motion(label, t, course(speed))) for t in (0.4, 1.0)]
        for label in samples.LABELS
    }
    climbed_px = 0.6 * speed * samples.RISE * PICTURE_PX[0]
    assert at["rise"][0][1] - at["rise"][1][1] == pytest.approx(climbed_px, rel=0.25)
    assert at["sink"][1][1] - at["sink"][0][1] == pytest.approx(climbed_px, rel=0.25)
    grown = samples.GROWTH ** (2 * 0.6 * speed)
    assert at["approach"][1][2] / at["approach"][0][2] == pytest.approx(grown, rel=0.15)
    assert at["recede"][0][2] / at["recede"][1][2] == pytest.approx(grown, rel=0.15)


def test_the_drawn_person_sways_and_rocks_as_the_label_says() -> None:
    quarters_s = (0.25 / samples.WAVE_HZ, 0.75 / samples.WAVE_HZ)
    left, right = (mask_moments(samples.motion("sway", t, course())) for t in quarters_s)
    assert left[0] - right[0] == pytest.approx(2 * samples.SWAY * PICTURE_PX[1], abs=1)
    assert left[1] == pytest.approx(right[1], abs=0.5)
    one, other = (samples.motion("rock", t, course()) for t in quarters_s)
    upright = Placement(0.5, 0.5, 0.5, 0.0)
    turned = [mask_moments(Placement(0.5, 0.5, 0.5, place.tilt_deg))[3] for place in (one, other)]
    assert one.tilt_deg - other.tilt_deg == pytest.approx(2 * samples.ROCK_DEG)
    # Angles of the long axis; half a turn more or less is the same axis.
    turn_deg = (turned[1] - turned[0] + 90) % 180 - 90
    assert abs(turn_deg) == pytest.approx(2 * samples.ROCK_DEG, abs=3)
    assert mask_moments(upright)[2] == pytest.approx(
        mask_moments(Placement(0.5, 0.5, 0.5, 20.0))[2], rel=0.02
    )


times_s = st.floats(0, 1.6)
speeds = st.floats(0.85, 1.22)
phases = st.floats(0, 2 * math.pi)


@given(times_s, speeds)
def test_rise_backwards_is_sink_and_approach_backwards_is_recede(t_s: float, speed: float) -> None:
    for forward, backward in (("rise", "sink"), ("approach", "recede")):
        one = samples.motion(forward, t_s, course(speed))
        other = samples.motion(backward, course().duration_s - t_s, course(speed))
        assert (one.y, one.height) == pytest.approx((other.y, other.height))


@given(st.floats(0, 0.9), speeds, phases)
def test_any_sixteen_frames_carry_the_class(start_s: float, speed: float, phase_rad: float) -> None:
    times = start_s + np.arange(16) / samples.FPS
    for label in samples.LABELS:
        places = [samples.motion(label, float(t_s), course(speed, phase_rad)) for t_s in times]
        columns = np.array([(place.x, place.y, place.height, place.tilt_deg) for place in places]).T
        swing = np.ptp(columns, axis=1) / (1, 1, 0.7, 100)
        moving = {"sway": 0, "rise": 1, "sink": 1, "approach": 2, "recede": 2, "rock": 3}[label]
        assert swing[moving] > 0.15
        assert np.delete(swing, moving).max() == 0
        if label not in ("sway", "rock"):
            assert len(set(np.sign(np.diff(columns[moving])))) == 1


def test_mean_frame_accuracy_finds_what_a_still_picture_tells(tmp_path: Path) -> None:
    """A bright bar whose place is the class tells everything; one whose place is the clip's number tells nothing."""
    told, dealt = [], []
    for index, label in enumerate(samples.LABELS):
        for clip in range(4):
            for videos, place in ((told, index), (dealt, clip)):
                path = tmp_path / f"{label}_{clip}_{len(videos)}_{videos is told}.mp4"
                still = np.full((64, 96, 3), 30, np.uint8)
                still[:, 16 * place : 16 * (place + 1)] = 220
                samples._encode(iter([still] * 2), path, size_px=(64, 96))
                videos.append(SampleVideo(path, label, "g00", bool(clip % 2)))
    assert samples.mean_frame_accuracy(told) == 1.0
    assert samples.mean_frame_accuracy(dealt) == pytest.approx(1 / 6)


@pytest.mark.slow
def test_the_mean_frame_of_the_full_set_does_not_tell_the_class(tmp_path: Path) -> None:
    videos = samples.write_sample_videos(tmp_path)
    assert len(videos) == 120
    assert sum(video.held_out for video in videos) == 60
    for ridge in (0.01, 0.1, 1.0, 10.0):
        assert samples.mean_frame_accuracy(videos, ridge=ridge) < 0.5
