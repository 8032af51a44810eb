"""TV-L1 in PyTorch: the Numba result within 0.01 px, and each pair as if it were alone."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from transforms.flow import make_solver
from transforms.options import FlowOptions, TVL1Parameters
from transforms.tvl1 import TVL1Solver
from transforms.tvl1_torch import TorchSolver, _median, _resample

Frames = NDArray[np.uint8]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Six frames [T, H, W]: motion that grows from pair to pair, one repeated frame, an odd size."""
    rows, columns = 67, 90
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    shifts = [0.0, 0.3, 0.3, 1.5, 4.0, 4.2]
    clip = []
    for shift in shifts:
        a, b = x - shift - np.sin(y / 20) * shift / 3, y + shift / 2
        wave = np.sin(a / 3.1) + np.sin(b / 4.3) + np.sin((a + b) / 5.7) + np.cos((a - 2 * b) / 7.9)
        clip.append(np.rint(127 + 28 * wave).astype(np.uint8))
    return np.stack(clip)


def torch_flows(frames: Frames, most_pairs: int = 8, **parameters: Any) -> NDArray[np.float32]:
    solver = TorchSolver(TVL1Parameters(**parameters), device="cpu", most_pairs=most_pairs)
    return np.stack(list(solver.flows(iter(frames))))


def numba_flows(frames: Frames, **parameters: Any) -> NDArray[np.float32]:
    return np.stack(list(TVL1Solver(TVL1Parameters(**parameters)).flows(iter(frames))))


FIXED = {"epsilon": 0.0, "scales": 3, "warps": 2, "inner_iterations": 12, "outer_iterations": 2}
"""A fixed number of iterations: with the stopping rule rounding decides about one iteration more or less."""


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tau": 0.1},
        {"lambda_": 0.05},
        {"theta": 0.2},
        {"scales": 2},
        {"warps": 3},
        {"epsilon": 0.05},
        {"inner_iterations": 5},
        {"outer_iterations": 1},
        {"scale_step": 0.5},
        {"gamma": 0.3},
        {"median_size": 1},
        {"median_size": 3},
    ],
    ids=str,
)
def test_it_equals_numba(frames: Frames, change: dict[str, Any]) -> None:
    parameters = FIXED | change
    difference_px = np.linalg.norm(
        torch_flows(frames, **parameters) - numba_flows(frames, **parameters), axis=-1
    )
    assert difference_px.shape == (5, 67, 90)
    assert difference_px.mean() < 0.002


@pytest.mark.real_data
def test_it_equals_numba_on_real_clips_with_the_defaults(real_data: Path) -> None:
    differences_px = []
    for path in sorted((real_data / "actions").rglob("*.mp4"))[5::48]:
        video = cv2.VideoCapture(str(path))
        grey = [cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(32)][29:]
        clip = np.stack(grey)
        differences_px.append(np.linalg.norm(torch_flows(clip) - numba_flows(clip), axis=-1).ravel())
    assert len(differences_px) == 3
    assert np.concatenate(differences_px).mean() < 0.01


def test_a_pair_does_not_depend_on_its_chunk(frames: Frames) -> None:
    """Pairs stop at different iterations: those that stop leave the batch without a trace."""
    few = {"scales": 2, "warps": 2, "epsilon": 0.03}
    together = torch_flows(frames, **few)
    assert np.abs(together - torch_flows(frames, most_pairs=1, **few)).max() < 1e-3
    assert np.abs(together - torch_flows(frames, most_pairs=2, **few)).max() < 1e-3


def test_identical_frames_give_exactly_zero(frames: Frames) -> None:
    flows = torch_flows(frames[:3], scales=1)
    assert not flows[1].any()
    assert flows[0].any()


def test_constant_images_give_no_nan() -> None:
    clip = np.stack([np.full((20, 30), value, np.uint8) for value in (0, 255, 255, 7)])
    assert not torch_flows(clip).any()


def test_too_small_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="40 x 1 px"):
        torch_flows(np.zeros((2, 1, 40), np.uint8))


@pytest.mark.parametrize("size", [3, 5])
def test_median_equals_opencv(size: int) -> None:
    image = np.random.default_rng(size).normal(size=(13, 17)).astype(np.float32)
    found = _median(torch.from_numpy(image)[None, None], size)[0, 0].numpy()
    assert np.array_equal(found, cv2.medianBlur(image, size))


def test_resample_equals_opencv() -> None:
    image = np.random.default_rng(0).normal(size=(67, 90)).astype(np.float32)
    shrunk = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
    tensor = torch.from_numpy(image)[None, None]
    found = _resample(tensor, *shrunk.shape, 1.25, 1.25)[0, 0].numpy()
    assert np.abs(found - shrunk).max() < 1e-5
    back = _resample(torch.from_numpy(shrunk)[None, None], 67, 90, shrunk.shape[0] / 67, shrunk.shape[1] / 90)
    assert np.abs(back[0, 0].numpy() - cv2.resize(shrunk, (90, 67))).max() < 1e-5


def test_the_stage_can_use_it(frames: Frames) -> None:
    flows = list(make_solver(FlowOptions(backend="torch", scales=2, warps=1)).flows(iter(frames)))
    assert len(flows) == 5
    assert flows[0].shape == (67, 90, 2)
