"""Exports: TensorFlow parses them as DMVR would, pycocotools loads them, and they are there whole or not at all."""

import contextlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from gcs import BUCKET, gcs
from moving_squares import BOUND_PX, put_store, put_workspace, squares

from pipelines.cli import run
from pipelines.config import load_config
from pipelines.stages import make_stage
from stores import files, keys
from stores.lineage import strangers
from stores.reader import StoreReader
from stores.records import FlowPair
from stores.store import Store
from transforms import flow
from transforms.export_clip import flow_jpeg, requantised
from transforms.keypoint_files import read_clips

__all__ = ["gcs"]
CLIPS = squares(3, split="train") + squares(1, split="test", seed=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = put_workspace(tmp_path / "ws", CLIPS)
    put_store(folder, "flow", CLIPS, spec={"bound_px": BOUND_PX}, follow=True)
    put_store(folder, "pose", CLIPS, follow=True)
    return folder


def perfnet(workspace: Path, *arguments: str) -> int:
    return run([*arguments, "--workspace", str(workspace), "--quiet"])


def examples(path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every clip of a file, parsed by TensorFlow with DMVR's specification."""
    tf: Any = pytest.importorskip("tensorflow")

    def one(kind: Any) -> Any:
        return tf.io.FixedLenFeature((), kind)

    def each(kind: Any) -> Any:
        return tf.io.FixedLenSequenceFeature((), kind)

    context = {name: one(tf.string) for name in ("clip/media_id", "clip/label/string", "clip/label/text")}
    context |= {"clip/label/index": one(tf.int64), "FORWARD_FLOW/image/saturation": one(tf.float32)}
    steps = {
        "image/encoded": each(tf.string),
        "image/timestamp": each(tf.int64),
        "FORWARD_FLOW/image/encoded": each(tf.string),
        "FORWARD_FLOW/image/timestamp": each(tf.int64),
        "region/num_regions": each(tf.int64),
        "region/timestamp": each(tf.int64),
        "region/bbox/xmin": tf.io.RaggedFeature(tf.float32),
        "POSE/feature/floats": tf.io.RaggedFeature(tf.float32),
    }
    parsed = [
        tf.io.parse_single_sequence_example(e, context, steps) for e in tf.data.TFRecordDataset(str(path))
    ]
    return [({k: v.numpy() for k, v in c.items()}, dict(s)) for c, s in parsed]


def test_every_clip_is_one_complete_example(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    tf: Any = pytest.importorskip("tensorflow")
    assert perfnet(workspace, "export", "mediasequence", str(tmp_path / "out"), "--num_files", "2") == 0
    assert "train: 9 clips in 2 files\ntest: 3 clips in 2 files" in capsys.readouterr().out
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [
        "export.json",
        *(f"{split}-0000{i}-of-00002" for split in ("test", "train") for i in range(2)),
    ]
    index = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (index["labels"], index["clips"]) == (["down", "left", "right"], {"train": 9, "test": 3})
    found = [e for name in names[3:] for e in examples(tmp_path / "out" / name)]
    by_clip = {c["clip/media_id"].decode(): (c, s) for c, s in found}
    assert sorted(by_clip) == sorted(clip.clip_id for clip in CLIPS if clip.split == "train")
    clip = CLIPS[4]
    context, steps = by_clip[clip.clip_id]
    assert context["clip/label/index"] == index["labels"].index(clip.label)
    assert context["clip/label/string"] == context["clip/label/text"] == clip.label.encode()
    assert context["FORWARD_FLOW/image/saturation"] == 20
    stored = list(StoreReader(str(workspace), "frames").records(clip.clip_id))
    assert steps["image/encoded"].numpy().tolist() == [frame.image for frame in stored]
    assert steps["image/timestamp"].numpy().tolist() == [frame.time_us for frame in stored]
    assert steps["FORWARD_FLOW/image/timestamp"].numpy().tolist() == [f.time_us for f in stored[:-1]]
    first = tf.io.decode_jpeg(steps["FORWARD_FLOW/image/encoded"][0]).numpy()
    expected = [int((step + 20) / 40 * 255) for step in clip.step_px] + [0]
    assert np.abs(first.astype(int) - expected).max() <= 2  # JPEG at quality 95 of a flat image
    people = [clip.people(i) for i in range(clip.frames)]
    assert steps["region/num_regions"].numpy().tolist() == [len(p.scores_P) for p in people]
    assert steps["region/timestamp"].numpy().tolist() == [frame.time_us for frame in stored]
    assert steps["POSE/feature/floats"][0].numpy().tobytes() == people[0].keypoints_PK3.tobytes()


def test_flow_is_quantised_as_mediapipe_does_it() -> None:
    """Of the field notes: uint8(clip((v + 20) / 40) * 255), so that no motion is 127, and all beyond is cut."""
    table = requantised(40.0)
    assert (table[128], table[1], table[255]) == (127, 0, 255)
    v_px = (np.array([70, 100, 150, 190]) - 128) * 40 / 127
    assert table[[70, 100, 150, 190]].tolist() == [int((v + 20) / 40 * 255) for v in v_px.tolist()]
    planes = np.full((16, 16, 2), 128, np.uint8)
    planes[..., 1] = 255
    jpeg = flow_jpeg(FlowPair(0, *flow.encode(planes, "png")), 20.0, jpeg_quality=95)
    assert np.abs(flow.decode(jpeg, b"in x")[0, 0].astype(int) - [127, 255]).max() <= 2


def test_two_exports_are_the_same_files(workspace: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert perfnet(workspace, "export", "mediasequence", str(tmp_path / name), "--workers", "2") == 0
    names = [p.name for p in (tmp_path / "a").iterdir()]
    assert len(names) == 3
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_a_failed_export_leaves_nothing(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    reference = Store(str(workspace), "flow").require_snapshot().shards[0]
    shard = workspace / "flow" / "shards" / str(reference.data)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert perfnet(workspace, "export", "mediasequence", str(tmp_path / "out" / "here")) == 1
    message = capsys.readouterr().err
    assert f"{shard.name} is damaged" in message
    assert message.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--split_column", "split_9"],
            "--split_column: the clips table has no column 'split_9'; split columns: split",
        ),
        (["--num_files", "0"], "--num_files: found 0, expected between 1 and 99999"),
    ],
)
def test_refusals_are_one_line(
    workspace: Path, tmp_path: Path, capsys: Any, arguments: list[str], message: str
) -> None:
    assert perfnet(workspace, "export", "mediasequence", str(tmp_path / "out"), *arguments) == 2
    assert capsys.readouterr().err == f"perfnet: {message}\n"


def test_what_is_there_is_not_overwritten(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    out, people = tmp_path / "out", tmp_path / "people.json"
    for _ in range(2):
        codes = [
            perfnet(workspace, "export", *a) for a in (["mediasequence", str(out)], ["coco", str(people)])
        ]
    assert codes == [2, 2]
    assert "out is not empty; name another folder, or give --overwrite" in capsys.readouterr().err
    before = {p.name for p in out.iterdir()}
    (out / "train-00000-of-00001").unlink()
    assert perfnet(workspace, "export", "mediasequence", str(out), "--overwrite") == 0
    assert perfnet(workspace, "export", "coco", str(people), "--overwrite") == 0
    assert {p.name for p in out.iterdir()} == before
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")
    assert perfnet(workspace, "export", "mediasequence", str(tmp_path / "precious"), "--overwrite") == 2
    assert "precious holds other files than an export" in capsys.readouterr().err


def test_a_missing_store_is_named(tmp_path: Path, capsys: Any) -> None:
    folder = put_workspace(tmp_path / "ws", CLIPS)
    for what in ("mediasequence", "coco"):
        assert perfnet(folder, "export", what, str(tmp_path / "out")) == 2
        assert "ws/pose has no committed snapshot; run `perfnet run pose`" in capsys.readouterr().err


def test_flow_and_people_of_other_frames_are_refused(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    """One video was replaced and its frames are new; then flow is brought up to date, and then pose."""
    changed = [replace(CLIPS[0], seed=99), *CLIPS[1:]]
    put_store(workspace, "frames", changed, spec={"shorter_side_px": 32})
    for name, options in (("flow", {"bound_px": BOUND_PX}), ("pose", None)):
        assert perfnet(workspace, "export", "mediasequence", str(tmp_path / "out")) == 2
        assert capsys.readouterr().err == (
            f"perfnet: store {name} was computed from other frames than there are now, in 1 clips such as "
            f"{CLIPS[0].clip_id}; run `perfnet run {name}` first\n"
        )
        assert not (tmp_path / "out").exists()
        put_store(workspace, name, changed, spec=options, follow=True)
    assert perfnet(workspace, "export", "mediasequence", str(tmp_path / "out")) == 0


def test_people_that_a_user_brought_belong_to_their_frames(
    workspace: Path, tmp_path: Path, capsys: Any
) -> None:
    """Their keys cover the keypoints too, which the configuration names."""
    people = tmp_path / "people.json"
    assert perfnet(workspace, "export", "coco", str(people)) == 0
    own = ["--pose.backend", "file", "--pose.keypoints", str(people)]
    stage = make_stage("pose", load_config(None, {"pose.backend": "file", "pose.keypoints": str(people)}))
    spec = {"stage": "pose", "version": 1, "options": dict(stage.spec())}
    frames = StoreReader(str(workspace), "frames").clips
    specs = {c: keys.digest(stage.clip_spec(c)) for c in frames}  # type: ignore[attr-defined]
    found = StoreReader(str(workspace), "pose")
    made = {c: replace(e, key=keys.clip_key(spec, [frames[c].key, specs[c]])) for c, e in found.clips.items()}
    snapshot = replace(found.snapshot, spec=spec)
    assert strangers(made, snapshot, [frames], specs) == []
    assert strangers(made, snapshot, [frames], {**specs, CLIPS[2].clip_id: "x"}) == [CLIPS[2].clip_id]
    assert perfnet(workspace, "export", "mediasequence", str(tmp_path / "out"), *own) == 2
    assert "store pose was computed from other frames" in capsys.readouterr().err


def test_clips_that_a_store_lost_are_counted(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    put_store(workspace, "pose", CLIPS[1:], follow=True)
    assert perfnet(workspace, "export", "mediasequence", str(tmp_path / "out")) == 0
    assert f"do not hold them: 1 clips ({CLIPS[0].clip_id}" in capsys.readouterr().out.replace(
        "does not", "do not"
    )


def test_pycocotools_finds_the_people_in_themselves(workspace: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = tmp_path / "people.json"
    assert perfnet(workspace, "export", "coco", str(path)) == 0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        found = truth.loadRes([dict(a) for a in truth.loadAnns(truth.getAnnIds())])
        evaluation = COCOeval(truth, found, "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)
    assert len(truth.imgs) == 12 * 10
    assert len(truth.anns) == 12 * 7  # nobody in every third frame
    (category,) = truth.loadCats(truth.getCatIds())
    assert (category["name"], len(category["keypoints"]), len(category["skeleton"])) == ("person", 17, 19)
    by_name = {k: i for i, k in enumerate(category["keypoints"], 1)}
    assert [by_name["left_ankle"], by_name["left_knee"]] == category["skeleton"][0]


def test_exported_people_can_be_brought_as_keypoints(workspace: Path, tmp_path: Path) -> None:
    """pose.backend file reads what export coco writes: to a thousandth of a pixel."""
    path = tmp_path / "people.json"
    assert perfnet(workspace, "export", "coco", str(path)) == 0
    clips = read_clips(path.read_bytes(), ".json")
    assert sorted(clips) == sorted(c.clip_id for c in CLIPS)
    for clip in CLIPS[:3]:
        for frame in range(clip.frames):
            expected = clip.people(frame).keypoints_PK3
            found = clips[clip.clip_id].found[frame].keypoints_PK3
            np.testing.assert_allclose(found[..., :2], expected[..., :2], atol=1e-3)


def test_an_export_to_an_object_store_is_whole_or_not_there(
    workspace: Path, tmp_path: Path, gcs: str, capsys: Any
) -> None:
    assert perfnet(workspace, "export", "mediasequence", f"gs://{BUCKET}/out") == 0
    assert perfnet(workspace, "export", "mediasequence", str(tmp_path / "out")) == 0
    for path in (tmp_path / "out").iterdir():
        assert files.read_bytes(f"gs://{BUCKET}/out/{path.name}") == path.read_bytes()
    assert perfnet(workspace, "export", "mediasequence", f"gs://{BUCKET}/out") == 2
    assert "gs://bucket/out is not empty" in capsys.readouterr().err
    reference = Store(str(workspace), "pose").require_snapshot().shards[0]
    (workspace / "pose" / "shards" / str(reference.data)).write_bytes(b"")
    assert perfnet(workspace, "export", "mediasequence", f"gs://{BUCKET}/broken") == 1
    assert files.list_names(f"gs://{BUCKET}/broken") == set()
