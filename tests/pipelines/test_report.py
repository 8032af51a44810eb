"""The report's content: known numbers, names of an attacker that stay text, sections only where there is something."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from gcs import BUCKET, gcs, upload
from hypothesis import example, given, settings
from hypothesis import strategies as st
from moving_squares import POSE_STORE, SMALL, put_store, put_workspace, squares
from PIL import Image
from report_workspace import HOSTILE_CLIP, LABELS, REJECTED_CLIP, put_report_workspace

from models.comparison import ClassGain
from models.evaluation import evaluate
from models.predictions import Predictions
from models.runs import RunFolder
from models.train import train
from pipelines import cli, report_clips, report_facts, report_figures, report_gradcam, report_results
from pipelines.config import load_config
from pipelines.looks import read_streams
from pipelines.report import page, write_report
from stores import files
from stores.clips import make_clips, write_clips

__all__ = ["gcs"]


class Page(HTMLParser):
    """What a browser makes of the page: elements with their attributes, and the text of each section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self._section = ""
        self._skipped = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""

    def handle_data(self, data: str) -> None:
        self.texts[self._section] = " ".join([self.texts.get(self._section, ""), *data.split()])

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> str:
    return put_report_workspace(tmp_path_factory.mktemp("report") / "ws")


@pytest.fixture(scope="module")
def html(workspace: str) -> str:
    return page_of(workspace)


def page_of(workspace: str) -> str:
    return page(load_config(None, {"workspace": workspace}), "workspace: <b>here</b>  # default")


@pytest.fixture(scope="module")
def parsed(html: str) -> Page:
    return Page(html)


def test_names_from_outside_stay_text(html: str, parsed: Page) -> None:
    assert not parsed.all("script", "iframe", "object", "embed", "form", "base")
    assert not [name for _, found in parsed.elements for name in found if name.startswith("on")]
    for label in LABELS:
        assert label in parsed.texts["data"]
    assert HOSTILE_CLIP in parsed.texts["clips"]
    assert REJECTED_CLIP in parsed.texts["rejected"]
    assert "<b>moov</b> atom\\x1b[31m not found" in parsed.texts["rejected"]
    assert "line one" not in parsed.texts["rejected"]
    assert "\x1b" not in html
    assert any(HOSTILE_CLIP in image["alt"] for image in parsed.all("img"))


def test_the_page_asks_the_network_for_nothing(html: str, parsed: Page) -> None:
    addresses = [
        value
        for _, found in parsed.elements
        for name, value in found.items()
        if name in ("src", "srcset", "href", "xlink:href")
    ]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"@import|url\((?!#)", html)
    (policy,) = [found["content"] for found in parsed.all("meta") if "http-equiv" in found]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_structure_is_reachable(parsed: Page) -> None:
    ids = [found["id"] for _, found in parsed.elements if "id" in found]
    assert len(ids) == len(set(ids))
    links = [found["href"].removeprefix("#") for found in parsed.all("a")]
    assert links[0] == "main"
    assert links[1:] == [found["id"] for found in parsed.all("section")]
    assert set(links) <= set(ids)
    assert all(found["alt"] for found in parsed.all("img"))
    assert all(found["aria-label"] for found in parsed.all("svg"))
    assert all(found["tabindex"] == "0" for found in parsed.all("div") if "scroll" in found.get("class", ""))


def test_accuracies_are_those_of_the_predictions(parsed: Page) -> None:
    rows = dict(re.findall(r"(rgb|pose|flow|fusion|student) (\d+\.\d%)", parsed.texts["accuracy"]))
    # Fusion: pose is outvoted wherever rgb and flow agree, and three different answers tie.
    assert {run: rows[run] for run in ("rgb", "pose", "flow", "student")} == {
        "rgb": "50.0%",
        "pose": "0.0%",
        "flow": "66.7%",
        "student": "100.0%",
    }
    assert "Accuracy on 6 test clips" in parsed.texts["accuracy"]
    assert "most frequent class gives 33.3%" in parsed.texts["accuracy"]


def test_stores_and_rejections_are_counted(parsed: Page) -> None:
    assert "frames 12 1 144 0.0%" in parsed.texts["stages"]
    assert "flow 12 0 132 0.0%" in parsed.texts["stages"]
    assert "frames damaged 1 data decoding failed midway" in parsed.texts["rejected"]
    assert "13 clips of 3 classes from 2 video files, in 3 groups" in parsed.texts["data"]
    assert "all 7 6 13" in parsed.texts["data"]


def test_flow_is_read_with_the_bound_of_its_store(workspace: str) -> None:
    config = load_config(None, {"workspace": workspace, "flow.bound_px": 3})
    assert read_streams(HOSTILE_CLIP, config).bound_px == 8.0


def test_gains_are_per_class(workspace: str) -> None:
    evaluated = report_facts.read_evaluated(workspace)
    gains = report_results.gains_over_rgb(evaluated)
    flow = {row.label: row.gain for row in gains["flow"]}
    assert flow == {LABELS[0]: 0.5, LABELS[1]: 0.0, LABELS[2]: 0.0}
    assert {row.gain for row in gains["pose"]} == {-0.5}
    assert list(gains) == ["pose", "flow", "student"]


def test_sections_appear_only_where_there_is_something(tmp_path: Path) -> None:
    untrained = put_report_workspace(tmp_path / "stores", trained=False)
    found = [s["id"] for s in Page(page_of(untrained)).all("section")]
    assert found == ["data", "clips", "stages", "rejected", "configuration"]
    write_clips(str(tmp_path / "clips"), make_clips([{"clip_id": "a", "uri": "a.mp4", "label": "l"}]))
    bare = Page(page_of(str(tmp_path / "clips")))
    assert [s["id"] for s in bare.all("section")] == ["data", "stages", "configuration"]
    assert bare.texts["stages"].count("not computed yet") == 4


def test_an_animation_shows_what_is_stored(workspace: str, parsed: Page) -> None:
    images = parsed.all("img")
    assert len(images) == 10
    right = next(image for image in images if "test/right-00" in image["alt"])
    animation = Image.open(io.BytesIO(base64.b64decode(right["src"].removeprefix("data:image/webp;base64,"))))
    assert animation.n_frames == 6  # 12 frames at 25 fps, every second one
    assert (animation.width, animation.height) == (3 * 48 + 2 * 4, 40)
    assert (str(animation.width), str(animation.height)) == (right["width"], right["height"])
    flow = np.asarray(animation.convert("RGB"), float)[5:-5, -40:-8].mean(axis=(0, 1))
    # 2 px of 8 to the right: a quarter of the way from white to red
    np.testing.assert_allclose(flow, (255, 191, 191), atol=8)


def test_pose_is_drawn_where_no_rendered_store_is_there(workspace: str) -> None:
    config = load_config(None, {"workspace": workspace, "render.variant": "black-dot-6-uniform"})
    panels = report_clips._Panels(config, ["test/right-00"])
    assert "render" not in panels._readers
    assert panels.animate("test/right-00", label="l", split="").streams == ("rgb", "pose", "flow")


def test_streams_of_other_frames_are_left_out(tmp_path: Path) -> None:
    workspace = put_report_workspace(tmp_path, trained=False)
    put_store(
        tmp_path, "flow", [replace(c, frames=9) for c in squares(2, split="test")], spec={"bound_px": 8.0}
    )
    put_store(tmp_path, POSE_STORE, [replace(c, frames=12, width_px=64) for c in squares(2, split="test")])
    panels = report_clips._Panels(load_config(None, {"workspace": workspace}), ["test/right-00"])
    assert panels.animate("test/right-00", label="l", split="").streams == (
        "rgb",
        "pose",
    )  # drawn from keypoints
    assert not panels._has("flow", "test/right-00")
    assert not panels._has("render", "test/right-00")


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=40),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
@example(["$x^2$", "\\alpha", "<script>alert(1)</script>", '"\'&amp;id="', "#010203 url(#a)"])
def test_any_label_is_plain_text_in_a_plot(labels: list[str]) -> None:
    rows = [ClassGain(label, 2, 0.5, 1.0) for label in labels]
    drawn = report_figures.gains({"pose": rows, "flow": rows}, title='&"<', name="plot")
    parsed = Page(f"<section id='plot'>{drawn}</section>")
    known = {"section", "svg", "g", "defs", "path", "use", "text", "tspan", "clippath", "rect"}
    assert {tag for tag, _ in parsed.elements} <= known
    assert parsed.all("svg")[0]["aria-label"] == '&"<'
    for label in labels:
        assert " ".join(report_figures._short(label).split()) in parsed.texts["plot"]


def test_clips_are_of_all_classes_and_test_clips_come_first() -> None:
    rows = [
        {"clip_id": f"{label}{i}", "uri": "x", "label": label, "split": "test" if i == 7 else "train"}
        for label in "abc"
        for i in range(9)
    ]
    chosen = report_clips.choose(make_clips(rows), "split", 10)
    assert chosen[:3] == ["a7", "b7", "c7"]
    assert [clip_id[0] for clip_id in chosen] == list("abcabcabca")
    assert len(set(chosen)) == 10
    assert report_clips.choose(make_clips(rows), "absent", 40) == report_clips.choose(
        make_clips(rows), "none", 27
    )


def test_tables_of_the_paper_stand_beside_ours(tmp_path: Path) -> None:
    workspace = put_report_workspace(tmp_path, trained=False)
    ours = {
        "top1": 0.5,
        "top5": 1.0,
        "mean_class": 0.5,
        "clips": 6,
        "interval": [0.25, 0.75],
        "top1_by_seed": [0.5],
    }
    against = {"baseline": "RGB", "difference": -0.125, "low": -0.3, "high": 0.1, "p_value": 0.4}
    rows = [
        {"row": "RGB", "paper": {"top1": 80.4, "top5": 95.2}, **ours},
        {"row": "<Flow>", "paper": {"top1": 69.5}, **ours, "against": against},
        {"row": "Pose", "paper": {}, "missing": "t/pose-seed0"},
    ]
    document = {"experiment": "t", "rows": rows, "failed": {}}
    path = tmp_path / "experiments" / "t" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    text = Page(page_of(workspace)).texts["experiments"]
    assert "RGB 50.0% 25.0% – 75.0% 100.0% 6 80.4 95.2" in text
    assert "<Flow> 50.0% 25.0% – 75.0% 100.0% 6 -12.5 [-30.0, +10.0] 69.5" in text
    assert "Pose missing: t/pose-seed0" in text
    path.write_text("{")
    with pytest.raises(ValueError, match=r"results\.json is not JSON"):
        page_of(workspace)


def test_predictions_of_an_earlier_training_are_named(tmp_path: Path) -> None:
    workspace = put_report_workspace(tmp_path)
    folder = RunFolder(workspace, "rgb")
    folder.put_json("evaluation.json", {"key": "k", "document": {"checkpoint": "old"}})
    files.put_bytes(folder.checkpoint, b"weights")
    folder.put_json("done.json", {"key": "k", "checkpoint": "old"})
    assert report_facts.outdated(workspace, ["rgb", "pose", "fusion"]) == []
    folder.put_json("done.json", {"key": "k", "checkpoint": "new"})
    assert report_facts.outdated(workspace, ["rgb", "pose", "fusion"]) == ["rgb"]
    assert "Trained again since they were judged: rgb." in Page(page_of(workspace)).texts["accuracy"]


def test_without_a_configuration_the_last_run_s_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = put_report_workspace(tmp_path / "ws", trained=False)
    (tmp_path / "ws" / "perfnet.yaml").write_text("workspace: elsewhere\ntrain: {epochs: 77}\n")
    assert cli.run(["report", "--workspace", workspace]) == 0
    text = Page(Path(workspace, "reports", "report.html").read_text(encoding="utf-8")).texts["configuration"]
    assert f"workspace: {workspace}" in text
    assert f"epochs: 77 # {workspace}/perfnet.yaml:2" in text


def test_many_classes_give_a_list_of_mistakes_instead_of_a_matrix() -> None:
    labels = [f"c{i:03d}" for i in range(400)]
    logits = np.eye(400, dtype=np.float32)
    logits[[3, 4]] = logits[[5, 5]]
    (found,) = report_results.confusions({"rgb": Predictions(labels, labels, np.arange(400), logits)})
    assert not found.cells
    assert found.mistakes == [("c003", "c005", 1, 1.0), ("c004", "c005", 1, 1.0)]


def test_clips_that_only_rgb_gets_wrong_are_looked_at_first(workspace: str) -> None:
    evaluated = report_facts.read_evaluated(workspace)
    chosen = report_gradcam.telling_clips({run: evaluated[run] for run in ("rgb", "flow", "student")}, 6)
    # rgb: the first clip of each class; flow: these and the second of class 0; student: all
    first, second = chosen[0], chosen[1:3]
    assert first == "test/down-01"
    assert second == ["test/left-01", "test/right-01"]
    assert set(chosen[3:]) == {HOSTILE_CLIP, "test/left-00", "test/right-00"}


@pytest.mark.slow
def test_the_page_shows_where_trained_networks_look(tmp_path: Path) -> None:
    clips = [*squares(2, split="train"), *squares(1, split="test")]
    workspace = str(put_workspace(tmp_path, clips))
    put_store(tmp_path, "frames", clips, spec={"fps": 25.0})
    train("rgb", workspace=workspace, options=SMALL)
    evaluate("rgb", workspace=workspace, options=SMALL)
    config = load_config(None, {"workspace": workspace})
    parsed = Page(page(config, "", gradcam=2))
    looks = [image for image in parsed.all("img") if image["alt"].startswith("Where the rgb network looks")]
    assert len(looks) == 2
    assert int(looks[0]["width"]) == 5 * 40 + 4 * 4  # five frames of the network's crop, and gaps
    assert "rgb : " in parsed.texts["gradcam"]
    (tmp_path / "frames" / "snapshot.json").unlink()
    assert Page(page(config, "", gradcam=2)).texts["gradcam"].startswith(" Where networks look Not drawn:")


def test_the_command_writes_the_page(
    workspace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["report", "--workspace", workspace]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{workspace}/reports/report.html (")
    assert Path(workspace, "reports", "report.html").stat().st_size < 1_000_000
    assert cli.run(["report", "--workspace", workspace, "--output", str(tmp_path)]) == 2
    assert "is a folder, expected the name of a file" in capsys.readouterr().err
    uri, size_bytes = write_report(
        load_config(None, {"workspace": workspace}), str(tmp_path / "new" / "x.html"), "a: 1"
    )
    assert Path(uri).stat().st_size == size_bytes


def test_a_workspace_on_an_object_store(workspace: str, html: str, gcs: str, tmp_path: Path) -> None:
    root = Path(workspace)
    for path in root.rglob("*"):
        if path.is_file() and "reports" not in path.parts:
            upload(gcs, path, f"ws/{path.relative_to(root)}")
    remote = f"gs://{BUCKET}/ws"
    uri, _ = write_report(load_config(None, {"workspace": remote}), None, "workspace: <b>here</b>  # default")
    assert uri == f"{remote}/reports/report.html"
    found = Page(files.read_bytes(uri).decode())
    assert [image["src"] for image in found.all("img")] == [image["src"] for image in Page(html).all("img")]
    assert found.texts["accuracy"] == Page(html).texts["accuracy"]
