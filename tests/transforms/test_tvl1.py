"""TV-L1 in Numba: known motions, OpenCV's answer, every parameter, odd sizes, threads and caches."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from transforms.options import TVL1Parameters
from transforms.tvl1 import TVL1Solver, tvl1_flow, warm_up

ROOT = Path(__file__).parents[2]
OPENCV_NAMES = {
    "scales": "nscales",
    "inner_iterations": "innnerIterations",
    "outer_iterations": "outerIterations",
    "scale_step": "scaleStep",
    "median_size": "medianFiltering",
}
FIXED = {"epsilon": 0.0, "scales": 3, "warps": 2, "inner_iterations": 12, "outer_iterations": 2}
"""A fixed number of iterations. With the stopping rule a last-bit change of the input moves OpenCV's own answer by
as much as 0.01 px, because one iteration more or less is that much; without it only rounding is left."""


def scene(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A smooth pattern without repetition, sampled at any coordinates."""
    wave = np.sin(x / 3.1) + np.sin(y / 4.3) + np.sin((x + y) / 5.7) + np.cos((x - 2 * y) / 7.9)
    return np.rint(127 + 28 * wave).astype(np.uint8)


def moving_pair(
    flow_HW2: NDArray[np.float64], rows: int, columns: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two images of the scene between which the point at (x, y) of the first moves by about `flow`.

    The second image samples the scene where its points came from; the flow fields here are so smooth
    that one fixed-point step inverts them.
    """
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    back_x, back_y = x - flow_HW2[..., 0], y - flow_HW2[..., 1]
    return scene(x, y), scene(back_x, back_y)


def opencv_flow(
    previous_HW: NDArray[np.uint8], next_HW: NDArray[np.uint8], **parameters: Any
) -> NDArray[np.float32]:
    renamed = {OPENCV_NAMES.get(name, name): value for name, value in parameters.items()}
    return cv2.optflow.DualTVL1OpticalFlow_create(**renamed).calc(previous_HW, next_HW, None)


def end_point_error(a_HW2: NDArray[np.float32], b_HW2: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.linalg.norm(a_HW2 - b_HW2, axis=-1)


@pytest.fixture(scope="module")
def wavy() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A pair with smooth motion of up to 3 px, noise, and changing light; hard enough for all parameters to act."""
    rows, columns = 96, 131
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    motion = np.stack([2 * np.sin(y / 17) + 1, 1.5 * np.cos(x / 23)], axis=-1)
    first, second = moving_pair(motion, rows, columns)
    noise = np.random.default_rng(0).normal(scale=3, size=(2, rows, columns))
    light = 6 * np.sin(x / 40)
    return tuple(  # type: ignore[return-value]
        np.clip(image + n + l, 0, 255).astype(np.uint8)
        for image, n, l in zip((first, second), noise, (0, light), strict=True)  # noqa: E741
    )


@pytest.mark.parametrize("shift", [(3.0, 0.0), (0.0, -2.0), (1.5, 2.25), (-6.0, 4.0)])
def test_a_translation_is_found(shift: tuple[float, float]) -> None:
    rows, columns = 96, 128
    previous_HW, next_HW = moving_pair(np.broadcast_to(shift, (rows, columns, 2)), rows, columns)
    inside = tvl1_flow(previous_HW, next_HW)[12:-12, 12:-12]
    assert np.abs(inside - shift).mean() < 0.05


@pytest.mark.parametrize(("turn_rad", "grow"), [(0.02, 1.0), (-0.03, 1.0), (0.0, 1.03), (0.0, 0.97)])
def test_a_rotation_and_a_zoom_are_found(turn_rad: float, grow: float) -> None:
    rows, columns = 96, 128
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    across, down = x - columns / 2, y - rows / 2
    cos, sin = np.cos(turn_rad) * grow, np.sin(turn_rad) * grow
    expected = np.stack([cos * across - sin * down - across, sin * across + cos * down - down], axis=-1)
    inverse = np.linalg.inv(np.array([[cos, -sin], [sin, cos]]))
    from_x = inverse[0, 0] * across + inverse[0, 1] * down + columns / 2
    from_y = inverse[1, 0] * across + inverse[1, 1] * down + rows / 2
    inside = tvl1_flow(scene(x, y), scene(from_x, from_y))[12:-12, 12:-12]
    assert end_point_error(inside, expected[12:-12, 12:-12]).mean() < 0.06


@pytest.mark.parametrize("value", [0, 130, 255])
def test_constant_images_do_not_move(value: int) -> None:
    constant = np.full((40, 50), value, np.uint8)
    assert not tvl1_flow(constant, constant).any()
    assert not tvl1_flow(constant, 255 - constant).any()


def test_identical_frames_give_exactly_zero(wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    assert not tvl1_flow(wavy[0], wavy[0].copy()).any()


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_nothing_is_nan_at_hard_edges(gamma: float) -> None:
    black, white = np.zeros((33, 47), np.uint8), np.full((33, 47), 255, np.uint8)
    half = black.copy()
    half[:, 20:] = 255
    for pair in ((half, white), (white, half), (half, half[:, ::-1]), (black, half)):
        assert np.isfinite(tvl1_flow(*map(np.ascontiguousarray, pair), gamma=gamma)).all()


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (31, 64), (64, 31), (48, 49), (3, 3), (3, 40), (40, 3)])
def test_odd_and_small_sizes_match_opencv(size: tuple[int, int]) -> None:
    rows, columns = size
    previous_HW, next_HW = moving_pair(np.broadcast_to((0.7, -0.4), (*size, 2)), rows, columns)
    found = tvl1_flow(previous_HW, next_HW, **FIXED)
    assert found.shape == (*size, 2)
    assert found.dtype == np.float32
    assert end_point_error(found, opencv_flow(previous_HW, next_HW, **FIXED)).max() < 0.05


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (2, 2), (0, 0)])
def test_too_small_is_refused_in_words(size: tuple[int, int]) -> None:
    image = np.zeros(size, np.uint8)
    with pytest.raises(ValueError, match=f"found {size[1]} x {size[0]} px, TV-L1 needs at least 3"):
        tvl1_flow(image, image)


def test_what_does_not_fit_together_is_refused() -> None:
    image = np.zeros((20, 30), np.uint8)
    with pytest.raises(ValueError, match="next_HW"):
        tvl1_flow(image, image[:, 1:])
    with pytest.raises(ValueError, match="next_HW"):
        tvl1_flow(image, image.astype(np.float32))
    with pytest.raises(ValueError, match="grey image"):
        tvl1_flow(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ValueError, match="initial_HW2"):
        tvl1_flow(image, image, initial_HW2=np.zeros((20, 30), np.float32))
    with pytest.raises(ValueError, match=r"flow\.warps"):
        tvl1_flow(image, image, warps=0)


@pytest.mark.parametrize(
    "change",
    [
        {"tau": 0.1},
        {"lambda_": 0.05},
        {"theta": 0.2},
        {"scales": 2},
        {"warps": 4},
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
def test_every_parameter_means_what_it_means_in_opencv(
    wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]], change: dict[str, Any]
) -> None:
    """Much nearer to OpenCV with this parameter than to OpenCV without it, and near in px."""
    expected = opencv_flow(*wavy, **FIXED | change)
    error_px = end_point_error(tvl1_flow(*wavy, **FIXED | change), expected).mean()
    assert error_px < 0.005
    assert error_px < 0.2 * end_point_error(opencv_flow(*wavy, **FIXED), expected).mean()


def test_the_defaults_are_those_of_opencv(wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    expected = opencv_flow(*wavy)
    assert end_point_error(tvl1_flow(*wavy), expected).mean() < 0.03
    own = cv2.optflow.DualTVL1OpticalFlow_create()
    ours = TVL1Parameters()
    assert (ours.tau, ours.lambda_, ours.theta) == (own.getTau(), own.getLambda(), own.getTheta())
    assert (ours.scales, ours.scale_step) == (own.getScalesNumber(), own.getScaleStep())
    assert (ours.warps, ours.epsilon) == (own.getWarpingsNumber(), own.getEpsilon())
    assert (ours.inner_iterations, ours.outer_iterations) == (
        own.getInnerIterations(),
        own.getOuterIterations(),
    )
    assert (ours.gamma, ours.median_size) == (own.getGamma(), own.getMedianFiltering())


def test_iterations_without_stopping_match_opencv_closely(
    wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    """With the number of iterations fixed and few warps nothing is amplified: only rounding is left."""
    change = {"epsilon": 0.0, "scales": 2, "warps": 1, "outer_iterations": 2}
    assert end_point_error(tvl1_flow(*wavy, **change), opencv_flow(*wavy, **change)).max() < 0.02


def test_the_initial_flow_is_used_as_in_opencv(wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    initial_HW2 = np.full((*wavy[0].shape, 2), 6.0, np.float32)
    tvl1 = cv2.optflow.DualTVL1OpticalFlow_create(warps=1, nscales=2)
    tvl1.setUseInitialFlow(True)
    expected = tvl1.calc(*wavy, initial_HW2.copy())
    found = tvl1_flow(*wavy, initial_HW2=initial_HW2, warps=1, scales=2)
    assert end_point_error(found, expected).mean() < 0.02
    assert end_point_error(tvl1_flow(*wavy, warps=1, scales=2), expected).mean() > 0.1


def test_float_images_have_white_at_one(wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    as_float = [image.astype(np.float32) / 255 for image in wavy]
    assert end_point_error(tvl1_flow(*as_float), tvl1_flow(*wavy)).mean() < 0.02


def test_a_solver_may_be_used_for_any_pairs_and_sizes(
    wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    """What a solver did before leaves no trace."""
    solver = TVL1Solver(TVL1Parameters())
    alone = solver.flow(*wavy)
    small = [np.ascontiguousarray(image[:40, :50]) for image in wavy]
    solver.flow(*small)
    assert np.array_equal(solver.flow(*wavy), alone)
    assert np.array_equal(solver.flow(*small), tvl1_flow(*small))


def test_a_sequence_gives_the_flows_of_its_pairs(wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    frames = [wavy[0], wavy[1], wavy[1], wavy[0]]
    flows = list(TVL1Solver(TVL1Parameters()).flows(iter(frames)))
    assert len(flows) == 3
    assert not flows[1].any()
    for flow_HW2, pair in zip(flows, pairwise(frames), strict=True):
        assert np.array_equal(flow_HW2, tvl1_flow(*pair))


def test_two_threads_do_not_disturb_each_other(wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    alone = tvl1_flow(*wavy), tvl1_flow(*wavy[::-1])
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(tvl1_flow, *(wavy if i % 2 == 0 else wavy[::-1])) for i in range(8)]
        for i, future in enumerate(both):
            assert np.array_equal(future.result(), alone[i % 2])


def test_the_result_does_not_depend_on_the_process(wavy: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    code = (
        "import sys, numpy as np; from transforms.tvl1 import tvl1_flow;"
        "pair = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(2, 96, 131);"
        "sys.stdout.buffer.write(tvl1_flow(pair[0].copy(), pair[1].copy()).tobytes())"
    )
    pixels = np.stack(wavy).tobytes()
    done = subprocess.run(
        [sys.executable, "-c", code], input=pixels, capture_output=True, cwd=ROOT, check=True
    )
    assert done.stdout == tvl1_flow(*wavy).tobytes()


CACHE_REPORT = (
    "from transforms import tvl1, tvl1_kernels as k; tvl1.warm_up(); c = k.iterate.stats;"
    "print(len(c.cache_hits), len(c.cache_misses), k.iterate._cache.cache_path)"
)


def run_with_cache(**environment: str) -> list[str]:
    """(hits, misses, folder) of a warm-up in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", CACHE_REPORT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.slow
def test_compiled_kernels_are_loaded_by_the_next_process(tmp_path: Path) -> None:
    first = run_with_cache(NUMBA_CACHE_DIR=str(tmp_path))
    second = run_with_cache(NUMBA_CACHE_DIR=str(tmp_path))
    assert first[0] == "0"
    assert second[1] == "0"
    assert second[2].startswith(str(tmp_path))


def test_warm_up_leaves_nothing_to_compile() -> None:
    from transforms import tvl1_kernels

    warm_up()
    before = len(tvl1_kernels.solve.signatures), len(tvl1_kernels.resample.signatures)
    tvl1_flow(*(np.random.default_rng(i).integers(0, 255, (50, 60), dtype=np.uint8) for i in range(2)))
    assert (len(tvl1_kernels.solve.signatures), len(tvl1_kernels.resample.signatures)) == before


@pytest.mark.real_data
def test_rubber_whale(real_data: Path) -> None:
    """End-point error on Middlebury's RubberWhale, where OpenCV has 0.156 px."""
    folder = real_data / "flow_truth" / "rubberwhale"
    raw = (folder / "flow10.flo").read_bytes()
    columns, rows = np.frombuffer(raw[4:12], np.int32)
    truth_HW2 = np.frombuffer(raw[12:], np.float32).reshape(rows, columns, 2)
    known = (np.abs(truth_HW2) < 1e3).all(axis=-1)
    pair = [cv2.imread(str(folder / f"frame{i}.png"), cv2.IMREAD_GRAYSCALE) for i in (10, 11)]
    assert end_point_error(tvl1_flow(*pair), truth_HW2)[known].mean() <= 0.160


@pytest.mark.real_data
def test_real_clips_agree_with_opencv(real_data: Path) -> None:
    """Pooled over pixels of a few real pairs; docs/flow.md has the figures of 300."""
    errors_px = []
    for path in sorted((real_data / "actions").rglob("*.mp4"))[5::24]:
        video = cv2.VideoCapture(str(path))
        frames = [video.read()[1] for _ in range(32)][30:]
        grey = [cv2.cvtColor(cv2.resize(f, None, fx=0.5, fy=0.5), cv2.COLOR_BGR2GRAY) for f in frames]
        errors_px.append(end_point_error(tvl1_flow(*grey), opencv_flow(*grey)).ravel())
    pooled = np.concatenate(errors_px)
    assert len(errors_px) >= 5
    assert pooled.mean() <= 0.02
    assert np.quantile(pooled, 0.99) <= 0.25
