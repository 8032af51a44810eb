import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.windows import Augmentation, Crop, central_window, epoch_order, generator, random_window

ALL = Augmentation(mirror=0.5, brightness=0.2, contrast=0.4)
sizes = st.tuples(st.integers(8, 90), st.integers(8, 90))
crops = st.builds(Crop, st.integers(1, 40), st.integers(4, 120), st.integers(4, 120), st.integers(1, 5))


def test_a_window_of_a_short_clip_repeats_its_ends_with_the_extra_frame_at_the_end():
    window = central_window(7, (20, 20), Crop(10, 20, 20))
    assert window.indices(7).tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 6, 6]


def test_the_last_flow_is_repeated_where_the_clip_ends_and_nowhere_else():
    window = central_window(7, (20, 20), Crop(10, 20, 20))
    assert window.indices(6).tolist() == [0, 0, 1, 2, 3, 4, 5, 5, 5, 5]
    inside = central_window(20, (20, 20), Crop(10, 20, 20))
    assert inside.indices(19).tolist() == inside.indices(20).tolist() == list(range(5, 15))


def test_a_strided_window_spans_more_of_the_clip():
    assert central_window(20, (9, 9), Crop(4, 8, 8, stride_frames=5)).indices(20).tolist() == [2, 7, 12, 17]
    assert central_window(4, (9, 9), Crop(4, 8, 8, stride_frames=3)).indices(4).tolist() == [0, 0, 3, 3]


def test_the_central_window_of_a_long_large_clip():
    window = central_window(11, (30, 41), Crop(4, 20, 20))
    assert (window.start, window.top_px, window.left_px, window.scale) == (3, 5, 10, 1.0)


def test_a_crop_larger_than_the_frame_enlarges_it_until_it_covers():
    window = central_window(4, (20, 40), Crop(4, 30, 30))
    assert window.scale == 1.5
    assert (window.top_px, window.left_px) == (0, 15)


@given(st.integers(1, 80), sizes, crops, st.integers(0, 2**62), st.integers(0, 99))
def test_every_random_window_lies_inside_the_scaled_frame(frames, size, crop, seed, index):
    window = random_window(frames, size, crop, augmentation=ALL, random=generator(seed, 3, index))
    height, width = (round(side * window.scale) for side in size)
    assert window.scale >= 1
    assert 0 <= window.top_px <= height - crop.height_px
    assert 0 <= window.left_px <= width - crop.width_px
    if frames >= crop.span_frames:
        assert 0 <= window.start <= frames - crop.span_frames
    assert abs(window.brightness) <= 0.4
    assert 0.6 <= window.contrast <= 1.4
    indices = window.indices(frames)
    assert len(indices) == crop.frames
    assert 0 <= indices.min() <= indices.max() < frames
    if frames >= crop.span_frames:
        assert set(np.diff(indices)) <= {crop.stride_frames}


def draw(seed, epoch, index):
    return random_window(
        50, (60, 80), Crop(16, 40, 40), augmentation=ALL, random=generator(seed, epoch, index)
    )


def test_chance_is_a_function_of_seed_epoch_and_index_alone():
    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(*key) for key in [(1, 2, 3), (0, 2, 3), (1, 1, 3), (1, 2, 2), (3, 2, 1)]}) == 5


def test_all_places_and_both_directions_are_drawn():
    windows = [draw(0, epoch, 0) for epoch in range(2000)]
    assert {w.start for w in windows} == set(range(35))
    assert {w.top_px for w in windows} == set(range(21))
    assert {w.left_px for w in windows} == set(range(41))
    assert np.mean([w.mirrored for w in windows]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([w.brightness for w in windows]) == pytest.approx(0, abs=0.02)


def test_an_epoch_sees_every_clip_once_in_an_order_of_its_own():
    first, again, second = epoch_order(5, 0, 40), epoch_order(5, 0, 40), epoch_order(5, 1, 40)
    assert sorted(first) == list(range(40))
    assert first.tolist() == again.tolist() != second.tolist()
