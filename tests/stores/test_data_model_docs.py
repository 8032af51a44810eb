"""docs/data-model.md is true: its examples run as they stand, and its tables name every column and key."""

import re
from pathlib import Path
from typing import Any

import pytest
from shard_contract import build, frames, person

from stores import sequence_example
from stores.parquet import SCHEMAS
from stores.records import KEYPOINT_NAMES, Y_IN_X, FlowPair, Frame, People, Record
from stores.store import Store
from stores.summaries import Encoding, ShardReference, ShardSummary, Snapshot

DOCS = (Path(__file__).parents[2] / "docs" / "data-model.md").read_text(encoding="utf-8")
SECTIONS = {"frames": Frame, "pose": People, "flow": FlowPair}
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300" + "01" * 64 + "ffc0000b080001000101011100"
    "ffc40014000100000000000000000000000000000009ffc40014100100000000000000000000000000000000ffda0008010100003f00"
    "54dfffd9"
)
"""One grey pixel."""


def section(store: str) -> str:
    """The part of the document that describes a store."""
    return re.split(r"^##", DOCS.split(f"### {store}")[1], maxsplit=1, flags=re.M)[0]


def put_store(workspace: Path, name: str, records: list[Record], shard_format: str) -> None:
    data, entries = build(str(workspace), name, {"a": records, "b": records}, shard_format)
    spec: dict[str, Any] = {"stage": name, "version": 1, "options": {}}
    store, encoding = Store(str(workspace), name), Encoding(shard_format, 1)
    summary = ShardSummary(name, 0, "k" * 64, encoding, spec, data, "", 1, tuple(entries), (), 2, 0, 1)
    reference = ShardReference.of(summary, store.put_summary(summary))
    store.put_snapshot(Snapshot(name, spec, encoding, (reference,)))


def test_the_examples_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pandas", "duckdb", "tensorflow"):
        pytest.importorskip(module)
    pictures: list[Record] = [Frame(i, 40_000 * i, JPEG) for i in range(20)]
    people: list[Record] = [People.nobody(0), *(person(i) for i in range(1, 20))]
    put_store(tmp_path / "workspace", "frames", pictures, "parquet")
    put_store(tmp_path / "workspace", "pose", people, "parquet")
    put_store(tmp_path / "workspace-tfrecord", "frames", pictures, "tfrecord")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS, flags=re.S):
        exec(compile(block, "docs/data-model.md", "exec"), names)
    first = people[1]
    assert isinstance(first, People)
    assert names["keypoints"].tobytes() == first.keypoints_PK3.tobytes()
    assert len(names["people"]) == 2 * 19
    assert names["table"]["clip_id"].tolist() == ["a", "b"]
    assert names["table"]["frames_with_people"].tolist() == [19, 19]
    assert names["clip"]["clip/media_id"].numpy() == b"b"
    assert names["first"].shape == (1, 1, 1)
    assert [frame.frame for frame in names["window"]] == [2, 3, 4, 5]


@pytest.mark.parametrize("store", SECTIONS)
def test_every_column_is_in_the_table(store: str) -> None:
    listed = re.findall(r"^\| ([\w, ]+?) \|", section(store).split("| TFRecord key")[0], flags=re.M)
    found = [name for cell in listed for name in cell.split(", ") if "Parquet" not in name]
    assert found == SCHEMAS[SECTIONS[store]].names


@pytest.mark.parametrize(
    ("store", "records"),
    [
        ("frames", frames(3)),
        ("pose", [person(0), People.nobody(1)]),
        ("flow", [FlowPair(0, b"x", b"y")]),
        ("flow", [FlowPair(0, b"xy", Y_IN_X)]),
    ],
)
def test_every_key_is_in_the_table(
    store: str, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: set[str] = set()
    for method in ("_context", "_step"):
        whole = getattr(sequence_example.SequenceExample, method)
        monkeypatch.setattr(
            sequence_example.SequenceExample,
            method,
            lambda self, key, whole=whole: written.add(key) or whole(self, key),
        )
    build(str(tmp_path), store, {"a": records}, "tfrecord")
    text = section(store).split("| TFRecord key")[1] + DOCS.split("### frames")[0]
    text = text.replace(
        "xmin, ymin, xmax, ymax", ", ".join(f"region/bbox/{n}" for n in ("xmin", "ymin", "xmax", "ymax"))
    )
    points = {f"POSE/{part.upper()}/region/point/{axis}" for part in KEYPOINT_NAMES for axis in "xy"}
    assert written
    assert [key for key in sorted(written - points) if key not in text] == []
    assert "POSE/NOSE/region/point/x, y … POSE/RIGHT_ANKLE/region/point/x, y" in DOCS
