"""TFRecord shards: the contract of every format, and TensorFlow reads them as any MediaSequence data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_contract import ShardContract, build, frames, person

from stores import sequence_example
from stores.records import Y_IN_X, FlowPair, People, Record
from stores.tfrecord import masked_crc
from transforms import flow

tf: Any = pytest.importorskip("tensorflow")


class TestTFRecord(ShardContract):
    format, other = "tfrecord", "parquet"


def parsed(
    folder: Path, name: str, records: list[Record], context: dict[str, Any], lists: dict[str, Any]
) -> tuple:
    """A clip written to a shard and read by TensorFlow alone."""
    data, _ = build(str(folder), name, {"clip é": records}, "tfrecord")
    path = str(folder / name / "shards" / str(data))
    (serialised,) = list(tf.data.TFRecordDataset(path))
    return tf.io.parse_single_sequence_example(serialised, context, lists)


def one(kind: Any) -> Any:
    return tf.io.FixedLenFeature((), kind)


def each(kind: Any) -> Any:
    return tf.io.FixedLenSequenceFeature((), kind)


def test_frames_parse_as_dmvr_parses_them(tmp_path: Path) -> None:
    context = {
        "clip/media_id": one(tf.string),
        "image/format": one(tf.string),
        "image/height": one(tf.int64),
        "image/width": one(tf.int64),
        "image/frame_rate": one(tf.float32),
    }
    lists = {"image/encoded": each(tf.string), "image/timestamp": each(tf.int64)}
    found, steps = parsed(tmp_path, "frames", frames(20, "jpeg"), context, lists)
    assert found["clip/media_id"].numpy().decode() == "clip é"
    assert found["image/format"].numpy() == b"JPEG"
    assert (found["image/height"].numpy(), found["image/width"].numpy()) == (30, 40)
    assert found["image/frame_rate"].numpy() == 25
    assert steps["image/encoded"].numpy().tolist() == [b"jpeg%d" % i for i in range(20)]
    assert steps["image/timestamp"].numpy().tolist() == [40_000 * i for i in range(20)]


def test_flow_in_one_image_is_where_dmvr_looks_for_it(tmp_path: Path) -> None:
    pairs: list[Record] = [FlowPair(i, b"xy%d" % i, Y_IN_X) for i in range(5)]
    context = {"FORWARD_FLOW/image/channels": one(tf.int64)}
    found, steps = parsed(tmp_path, "flow", pairs, context, {"FORWARD_FLOW/image/encoded": each(tf.string)})
    assert found["FORWARD_FLOW/image/channels"].numpy() == 3
    assert steps["FORWARD_FLOW/image/encoded"].numpy().tolist() == [b"xy%d" % i for i in range(5)]


def test_lossless_flow_is_where_dmvr_looks_for_it(tmp_path: Path) -> None:
    """flow.encoding png3: TensorFlow decodes x and y of each step, to the bit, with DMVR's specification."""
    planes_THW2 = np.random.default_rng(0).integers(0, 256, (4, 30, 40, 2), dtype=np.uint8)
    pairs: list[Record] = [FlowPair(i, *flow.encode(p_HW2, "png3")) for i, p_HW2 in enumerate(planes_THW2)]
    context = {"FORWARD_FLOW/image/channels": one(tf.int64), "FORWARD_FLOW/image/format": one(tf.string)}
    found, steps = parsed(tmp_path, "flow", pairs, context, {"FORWARD_FLOW/image/encoded": each(tf.string)})
    assert (found["FORWARD_FLOW/image/channels"].numpy(), found["FORWARD_FLOW/image/format"].numpy()) == (
        3,
        b"PNG",
    )
    for image, planes_HW2 in zip(steps["FORWARD_FLOW/image/encoded"].numpy(), planes_THW2, strict=True):
        seen_HW3 = tf.io.decode_image(image).numpy()
        assert np.array_equal(seen_HW3[..., :2], planes_HW2)
        assert not seen_HW3[..., 2].any()


def test_two_planes_of_flow_are_two_views_of_a_time_step(tmp_path: Path) -> None:
    pairs: list[Record] = [FlowPair(i, b"x%d" % i, b"y%d" % i) for i in range(5)]
    lists = {"FORWARD_FLOW/image/multi_encoded": tf.io.FixedLenSequenceFeature((2,), tf.string)}
    _, steps = parsed(tmp_path, "flow", pairs, {}, lists)
    assert steps["FORWARD_FLOW/image/multi_encoded"].numpy().tolist() == [
        [b"x%d" % i, b"y%d" % i] for i in range(5)
    ]


def test_people_are_regions_with_shares_of_the_picture_and_exact_pixels(tmp_path: Path) -> None:
    records: list[Record] = [person(0), People.nobody(1), person(2)]
    context = {
        "POSE/feature/dimensions": tf.io.FixedLenFeature((2,), tf.int64),
        "region/parts": tf.io.FixedLenFeature((17,), tf.string),
    }
    floats = ("region/bbox/xmin", "region/bbox/ymax", "POSE/LEFT_EYE/region/point/x", "POSE/feature/floats")
    lists = {
        "region/num_regions": each(tf.int64),
        "region/is_annotated": each(tf.int64),
        "region/label/confidence": tf.io.RaggedFeature(tf.float32),
    } | {name: tf.io.RaggedFeature(tf.float32) for name in floats}
    found, steps = parsed(tmp_path, "pose", records, context, lists)
    assert found["POSE/feature/dimensions"].numpy().tolist() == [17, 3]
    assert found["region/parts"].numpy()[1] == b"left_eye"
    assert steps["region/num_regions"].numpy().tolist() == [1, 0, 1]
    assert steps["region/is_annotated"].numpy().tolist() == [1, 1, 1]
    first, values = records[0], {name: steps[name][0].numpy() for name in floats}
    assert isinstance(first, People)
    np.testing.assert_allclose(values["region/bbox/xmin"], (first.boxes_P4[:, 0] + 0.5) / 40, rtol=1e-6)
    np.testing.assert_allclose(values["region/bbox/ymax"], (first.boxes_P4[:, 3] + 0.5) / 30, rtol=1e-6)
    left_eye = (first.keypoints_PK3[:, 1, 0] + 0.5) / 40
    np.testing.assert_allclose(values["POSE/LEFT_EYE/region/point/x"], left_eye, rtol=1e-6)
    exact = values["POSE/feature/floats"].reshape(1, 17, 3)
    assert exact.tobytes() == first.keypoints_PK3.tobytes()
    assert steps["POSE/feature/floats"][1].shape == (0,)


def test_the_messages_are_tensorflows(tmp_path: Path) -> None:
    """Every field number: TensorFlow's own class reads the message and writes the very same bytes."""
    example = sequence_example.SequenceExample()
    example.context_bytes("b", b"\xff", "é")
    example.context_ints("i", -1, 2**40)
    example.context_floats("f", 0.1, -0.0)
    for step in range(3):
        example.step_bytes("b", b"x" * step)
        example.step_ints("i", step)
        example.step_floats("f", [0.5] * step)
    content = example.serialise()
    theirs = tf.train.SequenceExample.FromString(content)
    assert theirs.context.feature["i"].int64_list.value == [-1, 2**40]
    assert [len(s.float_list.value) for s in theirs.feature_lists.feature_list["f"].feature] == [0, 1, 2]
    assert theirs.SerializeToString(deterministic=True) == content


def test_the_checksum_is_the_published_one() -> None:
    """RFC 3720, appendix B.4: the CRC-32C of 32 zero bytes is 0x8a9136aa; masked as in TensorFlow's crc32c.h."""
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_a_clip_too_large_for_one_message_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stores.mediasequence.MAX_BYTES", (1 << 20) + 100)
    with pytest.raises(ValueError, match=r"clip 'long' needs more than 2 GiB .* use store.format parquet"):
        build(str(tmp_path), "frames", {"long": frames(200)}, "tfrecord")
