"""The flow stage: quantiser, encodings, spec, and records of a whole clip."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from stores.records import Frame
from stores.rejections import ClipRejected
from transforms.flow import (
    Y_IN_X,
    FlowStage,
    bound_for,
    decode,
    decode_plane,
    dequantise,
    encode,
    encode_plane,
    quantise,
)
from transforms.options import FlowOptions

WIDTH_PX, HEIGHT_PX = 61, 47


@dataclass
class MemoryClip:
    """A stored clip that lies in memory and says how far it has been read."""

    images: list[bytes]
    width_px: int = WIDTH_PX
    height_px: int = HEIGHT_PX
    clip_id: str = "clip"
    records_read: int = 0

    @property
    def frames(self) -> int:
        return len(self.images)

    def records(self) -> Iterator[Frame]:
        for index, image in enumerate(self.images):
            self.records_read += 1
            yield Frame(index, index * 40_000, image)


def textured(shift_px: float) -> NDArray[np.uint8]:
    """A smooth grey pattern moved `shift_px` to the right."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX].astype(np.float64)
    x -= shift_px
    wave = np.sin(x / 3) + np.sin(y / 4) + np.sin((x + y) / 5) + np.cos((x - 2 * y) / 7)
    return np.rint(127 + 30 * wave).astype(np.uint8)


def jpeg(grey_HW: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", cv2.merge([grey_HW] * 3), [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()


@pytest.fixture
def moving() -> MemoryClip:
    """Five frames of a pattern that moves 2 px to the right in each."""
    return MemoryClip([jpeg(textured(2.0 * i)) for i in range(5)])


def started(options: FlowOptions) -> FlowStage:
    stage = FlowStage(options)
    stage.setup()
    return stage


flows = hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-40, 40, width=32))


@given(flows, st.floats(1, 40))
def test_dequantise_inverts_quantise_to_half_a_step(flow_HW2: NDArray[np.float32], bound_px: float) -> None:
    clipped = np.clip(flow_HW2, -bound_px, bound_px)
    back = dequantise(quantise(flow_HW2, bound_px), bound_px)
    assert np.abs(back - clipped).max() <= bound_px / 254 * (1 + 1e-4)


@given(hnp.arrays(np.uint8, (3, 4, 2), elements=st.integers(1, 255)), st.floats(1, 40))
def test_quantise_inverts_dequantise_exactly(planes_HW2: NDArray[np.uint8], bound_px: float) -> None:
    assert np.array_equal(quantise(dequantise(planes_HW2, bound_px), bound_px), planes_HW2)


@pytest.mark.parametrize(
    ("value_px", "expected"),
    [(0.0, 128), (20.0, 255), (-20.0, 1), (99.0, 255), (-99.0, 1), (0.09, 129), (-0.09, 127), (0.07, 128)],
)
def test_quantise_rounds_and_clips(value_px: float, expected: int) -> None:
    assert quantise(np.full((1, 1, 2), value_px, np.float32), 20.0).tolist() == [[[expected, expected]]]


@pytest.mark.parametrize(("size", "bound_px"), [((340, 256), 20.0), ((128, 171), 10.0)])
def test_bound_scales_with_the_shorter_side(size: tuple[int, int], bound_px: float) -> None:
    assert bound_for(FlowOptions(), width_px=size[0], height_px=size[1]) == bound_px
    assert bound_for(FlowOptions(bound_px=15), width_px=size[0], height_px=size[1]) == 15


@pytest.mark.parametrize("encoding", ["png", "png3"])
def test_png_planes_are_lossless(encoding: str) -> None:
    planes_HW2 = np.random.default_rng(0).integers(0, 256, (33, 17, 2), dtype=np.uint8)
    assert np.array_equal(decode(*encode(planes_HW2, encoding)), planes_HW2)
    assert np.array_equal(decode_plane(encode_plane(planes_HW2[..., 1], "png")), planes_HW2[..., 1])


@pytest.mark.parametrize("encoding", ["jpeg", "jpeg3"])
def test_jpeg_planes_are_close(encoding: str) -> None:
    planes_HW2 = np.stack([textured(0), textured(5)[::-1]], axis=-1)
    back = decode(*encode(planes_HW2, encoding, jpeg_quality=95)).astype(int)
    assert back.shape == planes_HW2.shape
    assert np.abs(back - planes_HW2).mean() < 2.5


def test_jpeg3_is_one_image_with_red_x_green_y_blue_nothing() -> None:
    planes_HW2 = np.full((16, 16, 2), (200, 90), np.uint8)
    x, y = encode(planes_HW2, "jpeg3")
    assert y == Y_IN_X
    blue, green, red = cv2.imdecode(np.frombuffer(x, np.uint8), cv2.IMREAD_COLOR)[8, 8].astype(int)
    assert abs(red - 200) <= 2
    assert abs(green - 90) <= 2
    assert blue <= 2


def test_decode_refuses_what_is_no_flow() -> None:
    planes_HW2 = np.zeros((4, 4, 2), np.uint8)
    x, _ = encode(planes_HW2, "png")
    with pytest.raises(ValueError, match="no image"):
        decode(x, b"nonsense")
    with pytest.raises(ValueError, match="differ in size"):
        decode(x, encode_plane(np.zeros((4, 5), np.uint8), "png"))


def test_a_clip_of_n_frames_has_n_minus_1_forward_flows(moving: MemoryClip) -> None:
    output = started(FlowOptions()).process(moving)
    pairs = list(output.records)
    assert (output.width_px, output.height_px) == (WIDTH_PX, HEIGHT_PX)
    assert [pair.frame for pair in pairs] == [0, 1, 2, 3]
    bound_px = 20 * HEIGHT_PX / 256
    for pair in pairs:
        flow_HW2 = dequantise(decode(pair.x, pair.y), bound_px)[8:-8, 8:-8]
        assert abs(np.median(flow_HW2[..., 0]) - 2.0) < 0.1
        assert abs(np.median(flow_HW2[..., 1])) < 0.1


def test_frames_are_read_as_flow_is_consumed(moving: MemoryClip) -> None:
    records = started(FlowOptions()).process(moving).records
    assert moving.records_read == 0
    next(records)
    assert moving.records_read <= 3


def test_clips_may_be_interleaved(moving: MemoryClip) -> None:
    stage = started(FlowOptions())
    alone = list(stage.process(moving).records)
    other = MemoryClip([jpeg(textured(-1.0 * i)) for i in range(5)])
    both = list(zip(stage.process(moving).records, stage.process(other).records, strict=True))
    assert [first for first, _ in both] == alone


def test_one_frame_is_too_short() -> None:
    with pytest.raises(ClipRejected, match="too_short"):
        started(FlowOptions()).process(MemoryClip([jpeg(textured(0))]))


@pytest.mark.parametrize("bad", [b"no jpeg", jpeg(np.zeros((8, 8), np.uint8))])
def test_a_bad_frame_rejects_the_clip(bad: bytes) -> None:
    clip = MemoryClip([jpeg(textured(0)), bad])
    with pytest.raises(ClipRejected, match="damaged: frame 1"):
        list(started(FlowOptions()).process(clip).records)


def test_spec_names_only_what_differs_from_the_neutral_values() -> None:
    spec = FlowStage(FlowOptions(warps=3)).spec()
    assert spec["warps"] == 3
    assert spec["bound_px"] == "20 * shorter_side / 256"
    assert not {"tau", "scales", "jpeg_quality"} & set(spec)


@pytest.mark.parametrize(
    "change",
    [
        {"bound_px": 20.0},
        {"encoding": "jpeg"},
        {"encoding": "png3"},
        {"encoding": "jpeg3"},
        {"tau": 0.2},
        {"gamma": 0.1},
    ],
)
def test_spec_changes_with_every_option(change: dict[str, float]) -> None:
    assert FlowStage(replace(FlowOptions(), **change)).spec() != FlowStage(FlowOptions()).spec()


def test_the_quality_of_a_jpeg_counts_only_for_jpeg() -> None:
    for encoding in ("png", "png3"):
        low, high = (FlowStage(FlowOptions(encoding=encoding, jpeg_quality=q)).spec() for q in (80, 95))  # type: ignore[arg-type]
        assert low == high
    low, high = (FlowStage(FlowOptions(encoding="jpeg", jpeg_quality=q)).spec() for q in (80, 95))
    assert low != high


@pytest.mark.parametrize(
    ("name", "value"),
    [("bound_px", 0), ("jpeg_quality", 0), ("tau", 0), ("scales", 0), ("scale_step", 1), ("median_size", 4)],
)
def test_options_refuse_nonsense_and_name_themselves(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"flow.{name}"):
        FlowOptions(**{name: value})


def test_a_stage_can_be_sent_to_a_worker(moving: MemoryClip) -> None:
    stage = pickle.loads(pickle.dumps(FlowStage(FlowOptions(bound_px=10))))  # noqa: S301 - our own bytes
    stage.setup()
    assert len(list(stage.process(moving).records)) == 4
