"""TV-L1 optical flow in PyTorch, many pairs at a time: for GPUs. Same algorithm, parameters and stopping rule
per pair as `transforms.tvl1` and OpenCV's DualTVL1 (docs/flow.md).

Shape legend: N pairs of the chunk, A pairs still iterating, C components (x, y and, with gamma, illumination),
H rows, W columns, 2 = (x, y).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from transforms.options import TVL1Parameters
from transforms.tvl1_geometry import level_sizes, require_pair

_PLANES_A_PAIR = 80  # float32 planes alive at once for one pair, temporaries included; measured 45 to 70
_MOST_PAIRS = 128
_CPU_PAIRS = 8
_TINY = 1e-30

# Sorting networks (the smaller value goes to the first wire) for the median of 25, as in transforms.tvl1_median.
_SORT5 = ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2))
_SEVENTH_OF_13 = (
    (1, 11), (0, 8), (4, 12), (3, 9), (1, 8), (4, 11), (5, 2), (8, 3), (7, 10),
    (7, 11), (9, 4), (9, 6), (2, 3), (7, 6), (9, 1), (3, 7), (1, 3),
)  # fmt: skip
_SEVENTH_WIRE = 3


class TorchSolver:
    """TV-L1 on a torch device, a chunk of pairs at a time.

    Args:
        parameters: `TVL1Parameters` (or options that inherit from it).
        device: a torch device; none means a GPU if there is one, otherwise the CPU.
        most_pairs: pairs in a chunk; none fits the chunk to the device's free memory.
        fuse: let torch.compile fuse the iteration and the median; pays on GPUs, takes a minute to compile.
    """

    def __init__(
        self,
        parameters: TVL1Parameters,
        *,
        device: str | torch.device | None = None,
        most_pairs: int | None = None,
        fuse: bool = False,
    ) -> None:
        self._parameters = parameters
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._most_pairs = most_pairs
        self._iterate: Callable[..., Any] = torch.compile(_iterate, dynamic=True) if fuse else _iterate
        self._median: Callable[..., Any] = torch.compile(_median, dynamic=True) if fuse else _median

    def flows(self, greys: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Flow from each frame to the next, one fewer than frames; reads a chunk of frames ahead."""
        chunk = [next(greys)]
        pairs = self._chunk_pairs(*chunk[0].shape)
        for grey_HW in greys:
            require_pair(chunk[-1], grey_HW)
            chunk.append(grey_HW)
            if len(chunk) > pairs:
                yield from self.flow_of_frames(np.stack(chunk))
                chunk = chunk[-1:]
        if len(chunk) > 1:
            yield from self.flow_of_frames(np.stack(chunk))

    @torch.inference_mode()
    def flow_of_frames(self, greys_THW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Flow [T - 1, H, W, 2] in px between consecutive grey frames, all at once."""
        white = 1.0 if greys_THW.dtype == np.uint8 else 255.0
        frames_T1HW = torch.from_numpy(greys_THW).to(self._device).float().unsqueeze(1) * white
        pyramid = [frames_T1HW]
        scale = 1 / self._parameters.scale_step
        height, width = greys_THW.shape[1:]
        for rows, columns in level_sizes(height, width, self._parameters)[1:]:
            pyramid.append(_resample(pyramid[-1], rows, columns, scale, scale))
        flow_NCHW = self._coarse_to_fine(pyramid)
        same_N = (frames_T1HW[1:] == frames_T1HW[:-1]).all(dim=(1, 2, 3))
        flow_NCHW[same_N] = 0
        return flow_NCHW[:, :2].permute(0, 2, 3, 1).cpu().numpy()

    def _chunk_pairs(self, rows: int, columns: int) -> int:
        if self._most_pairs is not None:
            return self._most_pairs
        if self._device.type != "cuda":
            return _CPU_PAIRS
        free_bytes, _ = torch.cuda.mem_get_info(self._device)
        return max(1, min(_MOST_PAIRS, int(0.7 * free_bytes) // (4 * _PLANES_A_PAIR * rows * columns)))

    def _coarse_to_fine(self, pyramid: list[Tensor]) -> Tensor:
        parameters = self._parameters
        coarsest = pyramid[-1]
        components = 3 if parameters.gamma else 2
        flow_NCHW = coarsest.new_zeros(len(coarsest) - 1, components, *coarsest.shape[2:])
        for index in reversed(range(len(pyramid))):
            frames_T1HW = pyramid[index]
            rows, columns = frames_T1HW.shape[2:]
            if frames_T1HW is not coarsest:
                scales = (flow_NCHW.shape[2] / rows, flow_NCHW.shape[3] / columns)
                flow_NCHW = _resample(flow_NCHW, rows, columns, *scales)
                flow_NCHW[:, :2] /= parameters.scale_step
            flow_NCHW = self._solve_level(frames_T1HW[:-1], frames_T1HW[1:], flow_NCHW)
        return flow_NCHW

    def _solve_level(self, first_N1HW: Tensor, second_N1HW: Tensor, flow_NCHW: Tensor) -> Tensor:
        fields_N3HW = torch.cat([second_N1HW, *_centred_gradient(second_N1HW)], dim=1)
        dual_NC2HW = flow_NCHW.new_zeros(*flow_NCHW.shape[:2], 2, *flow_NCHW.shape[2:])
        for _ in range(self._parameters.warps):
            data = _linearise(first_N1HW, fields_N3HW, flow_NCHW, self._parameters.gamma)
            flow_NCHW, dual_NC2HW = self._relax(flow_NCHW, dual_NC2HW, data)
        return flow_NCHW

    def _relax(self, flow_NCHW: Tensor, dual_NC2HW: Tensor, data: "_Data") -> tuple[Tensor, Tensor]:
        """Iterates until each pair's own stopping rule holds; pairs that have stopped leave the batch."""
        parameters = self._parameters
        rows, columns = flow_NCHW.shape[2:]
        stop = parameters.epsilon**2 * rows * columns
        done_flow, done_dual = torch.empty_like(flow_NCHW), torch.empty_like(dual_NC2HW)
        going_A = torch.arange(len(flow_NCHW), device=flow_NCHW.device)
        flow, dual = flow_NCHW, dual_NC2HW
        for _ in range(parameters.outer_iterations):
            if parameters.median_size > 1:
                flow = torch.cat([self._median(flow[:, :2], parameters.median_size), flow[:, 2:]], dim=1)
            for _ in range(parameters.inner_iterations):
                flow, dual, error_A = self._iterate(flow, dual, *data, *_constants(parameters))
                stopped_A = error_A <= stop
                if stopped_A.any():
                    done_flow[going_A[stopped_A]] = flow[stopped_A]
                    done_dual[going_A[stopped_A]] = dual[stopped_A]
                    going_A, flow, dual = going_A[~stopped_A], flow[~stopped_A], dual[~stopped_A]
                    data = _Data(*(field[~stopped_A] for field in data))
                    if len(going_A) == 0:
                        return done_flow, done_dual
        done_flow[going_A], done_dual[going_A] = flow, dual
        return done_flow, done_dual


class _Data(NamedTuple):
    """The linearised residual of each pair: constant + sum over components of gradient * flow."""

    gradient_ACHW: Tensor
    constant_A1HW: Tensor
    per_square_A1HW: Tensor


def _constants(parameters: TVL1Parameters) -> tuple[float, float, float]:
    return parameters.lambda_ * parameters.theta, parameters.theta, parameters.tau / parameters.theta


def _linearise(first_N1HW: Tensor, fields_N3HW: Tensor, flow_NCHW: Tensor, gamma: float) -> _Data:
    """Samples the second image and its gradient along the flow: bicubic (A = -0.75), zero outside."""
    rows, columns = flow_NCHW.shape[2:]
    across = torch.arange(columns, device=flow_NCHW.device, dtype=torch.float32)
    down = torch.arange(rows, device=flow_NCHW.device, dtype=torch.float32)[:, None]
    grid_NHW2 = torch.stack(
        [
            (across + flow_NCHW[:, 0]) * (2 / (columns - 1)) - 1,
            (down + flow_NCHW[:, 1]) * (2 / (rows - 1)) - 1,
        ],
        dim=-1,
    )
    moved = F.grid_sample(fields_N3HW, grid_NHW2, mode="bicubic", padding_mode="zeros", align_corners=True)
    gradient = moved[:, 1:]
    square = gradient.square().sum(1, keepdim=True)
    constant = moved[:, :1] - (gradient * flow_NCHW[:, :2]).sum(1, keepdim=True) - first_N1HW
    if gamma:
        gradient = torch.cat([gradient, torch.full_like(square, gamma)], dim=1)
    return _Data(gradient, constant, 1 / square.clamp(min=_TINY))


def _iterate(
    flow_ACHW: Tensor,
    dual_AC2HW: Tensor,
    gradient_ACHW: Tensor,
    constant_A1HW: Tensor,
    per_square_A1HW: Tensor,
    limit: float,
    theta: float,
    taut: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One primal and one dual update; also each pair's summed squared change of the flow."""
    residual = constant_A1HW + (gradient_ACHW * flow_ACHW).sum(1, keepdim=True)
    step = (residual * per_square_A1HW).clamp(-limit, limit)
    across, down = dual_AC2HW[:, :, 0], dual_AC2HW[:, :, 1]
    divergence = across - F.pad(across[..., :-1], (1, 0)) + down - F.pad(down[..., :-1, :], (0, 0, 1, 0))
    change = theta * divergence - step * gradient_ACHW
    flow = flow_ACHW + change
    dx = F.pad(flow[..., 1:] - flow[..., :-1], (0, 1))
    dy = F.pad(flow[..., 1:, :] - flow[..., :-1, :], (0, 0, 0, 1))
    shrink = 1 / (1 + taut * (dx.square() + dy.square()).sqrt())
    dual = torch.stack([(across + taut * dx) * shrink, (down + taut * dy) * shrink], dim=2)
    return flow, dual, change.square().sum((1, 2, 3))


def _centred_gradient(image_N1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Halved central differences, one-sided and halved at the edges."""
    padded = F.pad(image_N1HW, (1, 1, 1, 1), mode="replicate")
    dx = 0.5 * (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2])
    dy = 0.5 * (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1])
    return dx, dy


def _resample(image_NCHW: Tensor, rows: int, columns: int, scale_y: float, scale_x: float) -> Tensor:
    """Bilinear resize as OpenCV's INTER_LINEAR; scales are source px per target px, rounded sizes allowed."""
    for axis, size, scale in ((2, rows, scale_y), (3, columns, scale_x)):
        last = image_NCHW.shape[axis] - 1
        positions = (torch.arange(size, dtype=torch.float64) + 0.5) * scale - 0.5
        positions = positions.float().clamp(0, last).to(image_NCHW.device)
        first = positions.long().clamp(max=last - 1)
        share = (positions - first).view(-1, *([1] * (3 - axis)))
        low, high = image_NCHW.index_select(axis, first), image_NCHW.index_select(axis, first + 1)
        image_NCHW = low + share * (high - low)
    return image_NCHW


def _run(network: tuple[tuple[int, int], ...], wires: list[Tensor]) -> list[Tensor]:
    for low, high in network:
        wires[low], wires[high] = (
            torch.minimum(wires[low], wires[high]),
            torch.maximum(wires[low], wires[high]),
        )
    return wires


def _median(planes_NCHW: Tensor, size: int) -> Tensor:
    """Median filter of side 3 or 5, edges repeated."""
    rows, columns = planes_NCHW.shape[2:]
    margin = size // 2
    padded = F.pad(planes_NCHW, (margin,) * 4, mode="replicate")
    if size == 3:
        shifts = [padded[..., y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
        return torch.stack(shifts).median(0).values
    ranks = _run(_SORT5, [padded[..., y : y + rows, :] for y in range(5)])
    grid = [_run(_SORT5, [rank[..., x : x + columns] for x in range(5)]) for rank in ranks]
    candidates = [*grid[0][3:], *grid[1][2:], *grid[2][1:4], *grid[3][:3], *grid[4][:2]]
    return _run(_SEVENTH_OF_13, candidates)[_SEVENTH_WIRE]
