import pytest
import torch

from models.normalisation import FLOW, PIXELS, Normalisation, normalisation_of, normalise


def apply(values, normalisation, *, brightness=0.0, contrast=1.0, scale=1.0):
    clips = torch.tensor(values, dtype=torch.uint8).reshape(1, 1, 1, -1, normalisation.channels)
    numbers = {"brightness_B": brightness, "contrast_B": contrast, "scale_B": scale}
    return normalise(clips, normalisation, **{k: torch.tensor([v]) for k, v in numbers.items()})


def test_pixels_span_minus_one_to_one():
    assert apply([0, 255, 51], PIXELS).flatten().tolist() == pytest.approx([-1, 1, -0.6], abs=1e-6)


def test_still_flow_is_exactly_zero_and_the_bound_is_one():
    assert apply([128, 128], FLOW).flatten().tolist() == [0, 0]
    assert apply([1, 255], FLOW).flatten().tolist() == pytest.approx([-1, 1])


def test_flow_grows_with_the_frame():
    assert apply([255, 1], FLOW, scale=1.5).flatten().tolist() == pytest.approx([1.5, -1.5])


def test_brightness_and_contrast_change_pixels_only():
    changed = apply([127, 127, 204], PIXELS, brightness=0.1, contrast=0.5).flatten()
    expected = [(v / 127.5 - 1) * 0.5 + 0.1 for v in (127, 127, 204)]
    assert changed.tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(apply([9, 200], FLOW, brightness=0.3, contrast=0.5), apply([9, 200], FLOW))


def test_pixels_stay_in_range():
    assert apply([0, 255, 255], PIXELS, brightness=0.9).max() == 1
    assert apply([0, 255, 255], PIXELS, brightness=-0.9).min() == -1


def test_every_clip_gets_its_own_numbers():
    clips = torch.full((2, 1, 1, 1, 3), 255, dtype=torch.uint8)
    ones = torch.ones(2)
    found = normalise(
        clips, PIXELS, brightness_B=torch.zeros(2), contrast_B=torch.tensor([1, 0.5]), scale_B=ones
    )
    assert found[:, 0].flatten().tolist() == pytest.approx([1, 0.5])


def test_the_memory_is_laid_out_as_channels_last():
    found = normalise(
        torch.zeros(2, 3, 4, 5, 3, dtype=torch.uint8),
        PIXELS,
        brightness_B=torch.zeros(2),
        contrast_B=torch.ones(2),
        scale_B=torch.ones(2),
    )
    assert found.shape == (2, 3, 3, 4, 5)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


def test_the_constants_come_back_from_a_checkpoint():
    assert Normalisation.from_dict(FLOW.to_dict()) == FLOW == normalisation_of("flow")
    assert normalisation_of("pose") == normalisation_of("rgb") == PIXELS
