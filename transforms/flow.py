"""Optical flow of one clip: decode, compute, quantise, encode. The formats of the `flow` store live here.

Shape legend: H rows, W columns, 2 = (x, y) components.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from stores.records import Y_IN_X, FlowPair, Frame
from stores.rejections import ClipRejected
from transforms.options import FlowOptions
from transforms.stage import ClipOutput, StoredClip

REFERENCE_BOUND_PX = 20.0
REFERENCE_SIDE_PX = 256
_ZERO = 128
_STEPS = 127
# Flow is smooth: predicting from three neighbours saves a fifth of the bytes of the default filter.
_PNG = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH]
_NEVER_IN_SPEC = ("backend", "bound_px", "encoding", "jpeg_quality")


def bound_for(options: FlowOptions, *, width_px: int, height_px: int) -> float:
    """The clipping bound in px for clips of this size: as given, or 20 px at a shorter side of 256 px, scaled."""
    if options.bound_px is not None:
        return options.bound_px
    return REFERENCE_BOUND_PX * min(width_px, height_px) / REFERENCE_SIDE_PX


def quantise(flow_HW2: NDArray[np.float32], bound_px: float) -> NDArray[np.uint8]:
    """Flow in px as 8-bit planes: round(clip(v, -bound, bound) * 127 / bound) + 128; zero is exactly 128."""
    steps = np.clip(flow_HW2, -bound_px, bound_px) * np.float32(_STEPS / bound_px)
    return (np.rint(steps) + _ZERO).astype(np.uint8)


def dequantise(planes_HW2: NDArray[np.uint8], bound_px: float) -> NDArray[np.float32]:
    """Inverse of `quantise`, in px: exact to half a step (bound / 254) for flow within the bound."""
    return (planes_HW2.astype(np.float32) - _ZERO) * np.float32(bound_px / _STEPS)


def encode_plane(plane_HW: NDArray[np.uint8], encoding: str, *, jpeg_quality: int = 95) -> bytes:
    """One 8-bit plane as PNG (encoding "png") or grey JPEG ("jpeg")."""
    if encoding == "png":
        return _imencode(".png", plane_HW, _PNG)
    return _imencode(".jpg", plane_HW, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])


def decode_plane(image: bytes) -> NDArray[np.uint8]:
    """Inverse of `encode_plane`, [H, W]; exact for PNG."""
    return _imdecode(image, cv2.IMREAD_GRAYSCALE)


def encode(planes_HW2: NDArray[np.uint8], encoding: str, *, jpeg_quality: int = 95) -> tuple[bytes, bytes]:
    """Both planes as the bytes of `FlowPair.x` and `FlowPair.y`.

    Encodings "png3" and "jpeg3" are one colour image with red = x, green = y, blue = 0, the layout that readers of
    MediaSequence expect; `y` is then the mark `Y_IN_X`. The JPEG has no chroma subsampling.
    """
    if encoding not in ("png3", "jpeg3"):
        x, y = (encode_plane(planes_HW2[..., i], encoding, jpeg_quality=jpeg_quality) for i in range(2))
        return x, y
    blue_green_red = np.zeros((*planes_HW2.shape[:2], 3), np.uint8)
    blue_green_red[..., 1] = planes_HW2[..., 1]
    blue_green_red[..., 2] = planes_HW2[..., 0]
    if encoding == "png3":
        return _imencode(".png", blue_green_red, _PNG), Y_IN_X
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _imencode(".jpg", blue_green_red, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality, *sampling]), Y_IN_X


def decode(x: bytes, y: bytes) -> NDArray[np.uint8]:
    """Inverse of `encode` for every encoding, uint8 [H, W, 2]; exact for PNG.

    Raises:
        ValueError: the bytes are no image, or the two planes differ in size.
    """
    if y == Y_IN_X:
        blue_green_red = _imdecode(x, cv2.IMREAD_COLOR)
        return np.ascontiguousarray(blue_green_red[..., 2:0:-1])
    planes = decode_plane(x), decode_plane(y)
    if planes[0].shape != planes[1].shape:
        raise ValueError(f"the planes of a flow differ in size: x {planes[0].shape}, y {planes[1].shape}")
    return cv2.merge(planes)  # np.stack takes twenty times as long


class FlowSolver(Protocol):
    """A TV-L1 implementation with its buffers: one clip at a time, one thread at a time."""

    def flows(self, greys: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Flow [H, W, 2] in px from each frame [H, W] to the next: one fewer than frames."""


class OpenCVSolver:
    """OpenCV's DualTVL1 behind the solvers' interface: the numerical reference."""

    def __init__(self, options: FlowOptions) -> None:
        self._parameters = {
            "tau": options.tau,
            "lambda_": options.lambda_,
            "theta": options.theta,
            "nscales": options.scales,
            "warps": options.warps,
            "epsilon": options.epsilon,
            "innnerIterations": options.inner_iterations,
            "outerIterations": options.outer_iterations,
            "scaleStep": options.scale_step,
            "gamma": options.gamma,
            "medianFiltering": options.median_size,
        }

    def flows(self, greys: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        # A new object a clip: OpenCV's lowers its own number of scales for good when it meets a small image.
        tvl1 = cv2.optflow.DualTVL1OpticalFlow_create(**self._parameters)
        previous_HW = next(greys)
        for next_HW in greys:
            yield tvl1.calc(previous_HW, next_HW, None)
            previous_HW = next_HW


class FlowStage:
    """The stage `flow`: frames in; frames - 1 quantised forward flows out, each under its first frame."""

    name = "flow"
    version = 1
    inputs = ("frames",)

    def __init__(self, options: FlowOptions) -> None:
        self.options = options
        self._idle: list[FlowSolver] = []

    def spec(self) -> Mapping[str, Any]:
        """Backend, bound, encoding, and those TV-L1 parameters that differ from OpenCV's defaults."""
        options, defaults = self.options, FlowOptions()
        spec: dict[str, Any] = {
            "stage": self.name,
            "version": self.version,
            "backend": options.backend,
            "bound_px": options.bound_px or f"{REFERENCE_BOUND_PX:g} * shorter_side / {REFERENCE_SIDE_PX}",
            "encoding": options.encoding,
        }
        if options.encoding.startswith("jpeg"):
            spec["jpeg_quality"] = options.jpeg_quality
        for field in fields(options):
            value = getattr(options, field.name)
            if field.name not in _NEVER_IN_SPEC and value != getattr(defaults, field.name):
                spec[field.name] = value
        return spec

    def setup(self) -> None:
        """One thread for OpenCV, since workers are what runs in parallel; kernels compiled or from the cache."""
        cv2.setNumThreads(1)
        warm_up(self.options)
        self._idle = [make_solver(self.options)]

    def process(self, frames: StoredClip) -> ClipOutput:
        """Flow of one clip, computed as it is consumed, with two frames in memory.

        Raises:
            ClipRejected: `too_short` with fewer than two frames; `damaged`, while consumed, when a frame
                is no image or has another size than the clip.
        """
        if frames.frames < 2:
            raise ClipRejected("too_short", f"{frames.frames} frame, flow needs two")
        return ClipOutput(frames.width_px, frames.height_px, self._pairs(frames))

    def _pairs(self, clip: StoredClip) -> Iterator[FlowPair]:
        # A solver belongs to one clip at a time, whatever threads call; list.pop and append are atomic.
        solver = self._idle.pop() if self._idle else make_solver(self.options)
        bound_px = bound_for(self.options, width_px=clip.width_px, height_px=clip.height_px)
        flows = solver.flows(_decode_grey(record, clip) for record in clip.records())
        for frame, flow_HW2 in enumerate(flows):
            planes_HW2 = quantise(flow_HW2, bound_px)
            x, y = encode(planes_HW2, self.options.encoding, jpeg_quality=self.options.jpeg_quality)
            yield FlowPair(frame, x, y)
        self._idle.append(solver)


def make_solver(options: FlowOptions) -> FlowSolver:
    """A new solver of `options.backend`, for one thread. Imports only what that backend needs."""
    if options.backend == "numba":
        from transforms.tvl1 import TVL1Solver

        return TVL1Solver(options)
    if options.backend == "torch":
        from transforms.tvl1_torch import TorchSolver

        return TorchSolver(options)
    return OpenCVSolver(options)


def warm_up(options: FlowOptions) -> None:
    """Compiles what `options.backend` compiles, into the cache on disk that all later processes load from."""
    if options.backend == "numba":
        from transforms import tvl1

        tvl1.warm_up()


def _decode_grey(record: Frame, clip: StoredClip) -> NDArray[np.uint8]:
    """The luma plane of a stored frame, [H, W]: TV-L1 sees brightness only."""
    try:
        grey_HW = _imdecode(record.image, cv2.IMREAD_GRAYSCALE)
    except ValueError as error:
        raise ClipRejected("damaged", f"frame {record.frame}: {error}") from error
    if grey_HW.shape != (clip.height_px, clip.width_px):
        found, expected = grey_HW.shape[::-1], (clip.width_px, clip.height_px)
        raise ClipRejected("damaged", f"frame {record.frame} is {found} px, the clip {expected}")
    return grey_HW


def _imencode(extension: str, image: NDArray[np.uint8], parameters: list[int]) -> bytes:
    done, data = cv2.imencode(extension, np.ascontiguousarray(image), parameters)
    assert done, f"OpenCV cannot encode {image.shape} {image.dtype} as {extension}"
    return data.tobytes()


def _imdecode(image: bytes, mode: int) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), mode) if image else None
    if pixels is None:
        raise ValueError("the bytes are no image that OpenCV can decode")
    return np.asarray(pixels, np.uint8)
