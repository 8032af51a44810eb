"""Where the time of a TV-L1 pair goes, and how far one iteration is from what a core can do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import process_time
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from transforms import tvl1, tvl1_kernels
from transforms.options import TVL1Parameters
from transforms.tvl1_simd import LANES, load, multiply_add, store

PARTS = ("resample", "interleave", "warp", "median", "iterate")
FLOPS_A_PIXEL = 58
BYTES_A_PIXEL = 60
"""Of one iteration, counted in `tvl1_kernels`: a multiply-add is 2, an estimate 1; 9 planes read, 6 written."""


def seconds(work: Callable[[], Any]) -> float:
    start = process_time()
    work()
    return process_time() - start


class Stopwatch:
    """Stands in for the module of kernels: adds up time and pixels of each call."""

    def __init__(self, module: Any, names: tuple[str, ...]) -> None:
        self._module = module
        self._names = names
        self.spent_s = dict.fromkeys(names, 0.0)
        self.pixels = dict.fromkeys(names, 0)

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self._module, name)
        return kernel if name not in self._names else lambda *args: self._call(name, kernel, args)

    def _call(self, name: str, kernel: Any, args: tuple[Any, ...]) -> Any:
        start = process_time()
        result = kernel(*args)
        self.spent_s[name] += process_time() - start
        level = next((arg for arg in args if hasattr(arg, "pitch")), None)
        self.pixels[name] += level.rows * level.columns if level else 0
        return result


def bench_breakdown(clips: dict[str, list[NDArray[np.uint8]]]) -> None:
    """Where a pair's time goes. The kernels are called one by one from Python for this."""
    watch = Stopwatch(tvl1_kernels, PARTS)
    solve = tvl1_kernels.solve.py_func
    pairs = [pair for clip in clips.values() for pair in zip(clip[:-1:3], clip[1::3], strict=False)]
    solver = tvl1.TVL1Solver(TVL1Parameters())
    solver.flow(*pairs[0])
    compiled_s = seconds(lambda: [solver.flow(*pair) for pair in pairs]) / len(pairs)
    # solve() finds the kernels it calls in its module's names: give it ours for the length of this measurement.
    names = {name: getattr(watch, name) for name in ("warp", "median", "iterate")}
    with _replaced(solve.__globals__, names), _replaced(vars(tvl1), {"kernels": watch}):
        watch.solve = solve
        solver.flow(*pairs[0])
        watch.spent_s, watch.pixels = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0)
        total_s = seconds(lambda: [solver.flow(*pair) for pair in pairs]) / len(pairs)
    print(f"breakdown of {1e3 * total_s:.1f} ms a pair (compiled whole: {1e3 * compiled_s:.1f}):")
    for name in PARTS:
        spent_s, megapixels = watch.spent_s[name] / len(pairs), watch.pixels[name] / len(pairs) / 1e6
        each = f", {megapixels:.2f} Mpx at {1e3 * spent_s / megapixels:.2f} ns" if megapixels else ""
        print(f"  {name}: {1e3 * spent_s:.2f} ms, {100 * spent_s / total_s:.0f} %{each}")
    rest_s = total_s - sum(watch.spent_s.values()) / len(pairs)
    print(f"  the rest: {1e3 * rest_s:.2f} ms")


@contextmanager
def _replaced(names: dict[str, Any], others: dict[str, Any]) -> Iterator[None]:
    before = {name: names[name] for name in others}
    names.update(others)
    try:
        yield
    finally:
        names.update(before)


@njit
def _move_planes(work: NDArray[np.float32], plane: int, elements: int) -> None:
    """The memory traffic of an iteration without its arithmetic: planes 0 to 8 read, 3 to 8 written."""
    for at in range(0, elements, LANES):
        data = load(work, at) + load(work, plane + at) + load(work, 2 * plane + at)
        for field in range(3, 9):
            store(work, field * plane + at, load(work, field * plane + at) + data)


@njit
def _multiply_add_only(work: NDArray[np.float32], repeats: int) -> None:
    """Ten independent chains of multiply-add in registers."""
    a, b = load(work, 0), load(work, LANES)
    c0, c1, c2, c3, c4 = a, b, a + b, a * b, a - b
    c5, c6, c7, c8, c9 = b - a, a * a, b * b, a + a, b + b
    for _ in range(repeats):
        c0, c1, c2 = multiply_add(c0, a, b), multiply_add(c1, a, b), multiply_add(c2, a, b)
        c3, c4, c5 = multiply_add(c3, a, b), multiply_add(c4, a, b), multiply_add(c5, a, b)
        c6, c7, c8 = multiply_add(c6, a, b), multiply_add(c7, a, b), multiply_add(c8, a, b)
        c9 = multiply_add(c9, a, b)
    store(work, 0, c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9)


@njit
def _one_row(work: NDArray[np.float32], u: int, level: Any, weights: Any, mask: Any, repeats: int) -> None:
    for _ in range(repeats):
        tvl1_kernels.update_plain_row(work, u, 1, level, weights, mask)


def _best_s(work: Callable[[], Any]) -> float:
    work()
    return min(seconds(work) for _ in range(60))


def bench_roofline(rows: int = 256, columns: int = 340) -> None:
    """One iteration against what this core computes and moves, all measured here and now; best of 60."""
    level = tvl1.level_of(rows, columns)
    weights = tvl1.weights_of(TVL1Parameters(), level)
    work = np.zeros(11 * level.plane + LANES, np.float32)
    work[: 3 * level.plane] = np.random.default_rng(0).normal(size=3 * level.plane)
    mask = np.ones(LANES, np.float32)
    u, pixels, repeats = tvl1_kernels.U1, rows * columns, 10_000
    few = tvl1.level_of(3, columns)
    small = work[: 11 * few.plane + LANES].copy()
    iterate_s = _best_s(lambda: tvl1_kernels.iterate(work, u, level, weights, mask)) / pixels
    cached_s = _best_s(lambda: _one_row(small, u, few, weights, mask, rows)) / pixels
    move_s = _best_s(lambda: _move_planes(work, level.plane, rows * level.pitch)) / pixels
    peak = repeats * 10 * 2 * LANES / _best_s(lambda: _multiply_add_only(np.zeros(64, np.float32), repeats))
    print(
        f"one iteration at {columns}x{rows}, one core: {FLOPS_A_PIXEL} flop and {BYTES_A_PIXEL} bytes a pixel"
    )
    print(
        f"  measured: {1e9 * iterate_s:.2f} ns a pixel, {FLOPS_A_PIXEL / iterate_s / 1e9:.0f} GFLOP/s, ",
        end="",
    )
    print(f"{BYTES_A_PIXEL / iterate_s / 1e9:.0f} GB/s")
    print(f"  the same instructions on one row in the L1 cache: {1e9 * cached_s:.2f} ns")
    print(f"  ceiling of memory (same planes, no arithmetic): {1e9 * move_s:.2f} ns, ", end="")
    print(f"{BYTES_A_PIXEL / move_s / 1e9:.0f} GB/s")
    print(f"  ceiling of arithmetic (multiply-add only, {peak / 1e9:.0f} GFLOP/s): ", end="")
    print(f"{1e9 * FLOPS_A_PIXEL / peak:.2f} ns")
    print(f"  at {100 * max(move_s, FLOPS_A_PIXEL / peak) / iterate_s:.0f} % of the nearer ceiling")
