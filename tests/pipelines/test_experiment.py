"""Experiments: recipes as data, and the machinery on a tiny table over stores with known content."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from moving_squares import put_workspace, squares

from models.runs import RunFolder
from pipelines.experiment import Experiment, Term, choose_rows, load_experiment
from pipelines.experiment_run import ExperimentRun, stages_of
from pipelines.experiment_table import results, table_lines, write_results
from pipelines.progress import Screen
from stores.clips import make_clips, write_clips

CONFIG = """
network: {width: 0.1, blocks: [1, 1, 1, 1], stem_kernel: [3, 5, 5]}
data: {window_frames: 6, crop_height_px: 32, crop_width_px: 32, mirror: 0.0, cache_mb: 50}
train: {epochs: 1, batch_size: 4, learning_rate: 0.02, warmup_steps: 2, norm_momentum: 0.1, precision: '32', threads: 1}
student: {weight: 0.1}
evaluate: {frames: 8, crop_height_px: 40, crop_width_px: 40, batch_size: 4}
"""
RECIPE = """
config: base.yaml
folder: tiny
splits: [split_1, split_2]
combine: pool
baseline: RGB
runs:
  rgb: {}
  flow: {train.epochs: 2}
  pose: {}
  student-SL: {student: {teachers: [flow, pose]}}
  student-flow: {student.teachers: [flow]}
rows:
  RGB: {fuse: [rgb], seeds: [0, 1], paper: {top1: 80.4, top5: 95.2}}
  RGB+RGB: {fuse: [rgb, rgb@1]}
  RGB+Flow: {fuse: [rgb, flow=0.5], paper: {top1: 81.4}}
  Flow+Pose (SL): {fuse: [student-SL], paper: {top1: 82.0, top5: 95.7}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return put_recipe(tmp_path)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return put_folds(tmp_path)


def put_recipe(folder: Path) -> Path:
    (folder / "base.yaml").write_text(CONFIG)
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder / "tiny.yaml"


def put_folds(parent: Path) -> Path:
    """A workspace of eighteen clips in two folds."""
    clips = squares(6, split="train")
    folder = put_workspace(parent / "ws", clips)
    rows = [
        {
            "clip_id": c.clip_id,
            "uri": "x.mp4",
            "label": c.label,
            "group": f"g{i % 6}",
            "split_1": ("test", "train")[i % 2],
            "split_2": ("train", "test")[i % 2],
        }
        for i, c in enumerate(clips)
    ]
    write_clips(str(folder), make_clips(rows))
    return folder


def load(recipe: Path, workspace: Path | None = None, **changes: object) -> Experiment:
    overrides = {"workspace": str(workspace)} if workspace else {}
    return load_experiment(str(recipe), overrides | changes)


def test_a_recipe_becomes_rows_and_trainings_in_order(recipe: Path) -> None:
    experiment = load(recipe)
    assert [row.name for row in experiment.rows] == ["RGB", "RGB+RGB", "RGB+Flow", "Flow+Pose (SL)"]
    assert experiment.rows[2].terms == (Term("rgb"), Term("flow", weight=0.5))
    trainings = experiment.trainings(experiment.rows)
    names = [t.run for t in trainings]
    assert names == [
        *("tiny/rgb-seed0-split_1", "tiny/rgb-seed1-split_1", "tiny/flow-seed0-split_1"),
        *("tiny/pose-seed0-split_1", "tiny/student-SL-seed0-split_1"),
        *("tiny/rgb-seed0-split_2", "tiny/rgb-seed1-split_2", "tiny/flow-seed0-split_2"),
        *("tiny/pose-seed0-split_2", "tiny/student-SL-seed0-split_2"),
    ]
    by_name = {t.run: t for t in trainings}
    student = by_name["tiny/student-SL-seed0-split_2"]
    assert student.teachers == ("tiny/flow-seed0-split_2", "tiny/pose-seed0-split_2")
    assert student.options.student.teachers == student.teachers
    assert student.options.data.split == "split_2"
    assert by_name["tiny/flow-seed0-split_1"].options.train.epochs == 2
    assert by_name["tiny/rgb-seed1-split_1"].options.train.seed == 1


def test_chosen_rows_bring_the_baseline_and_train_only_what_they_need(recipe: Path) -> None:
    experiment = load(recipe)
    rows = choose_rows(experiment, ["RGB+Flow"])
    assert [row.name for row in rows] == ["RGB", "RGB+Flow"]
    assert not any("student" in t.run or "pose" in t.run for t in experiment.trainings(rows))
    with pytest.raises(ValueError, match=r"--rows: found 'Sound'; tiny has RGB, RGB\+RGB"):
        choose_rows(experiment, ["Sound"])


def test_a_row_may_have_a_baseline_of_its_own(recipe: Path) -> None:
    content = yaml.safe_load(RECIPE)
    content["rows"]["RGB+RGB"]["baseline"] = "RGB+RGB"
    content["rows"]["RGB+Flow"]["baseline"] = "RGB+RGB"
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    experiment = load(recipe)
    found = {row.name: row.baseline for row in experiment.rows}
    assert (found["RGB"], found["RGB+RGB"], found["RGB+Flow"]) == (None, None, "RGB+RGB")
    assert [row.name for row in choose_rows(experiment, ["RGB+Flow"])] == ["RGB+RGB", "RGB+Flow"]


def test_overrides_reach_every_run_and_win(recipe: Path) -> None:
    trainings = load(recipe, **{"train.epochs": 7}).trainings(load(recipe).rows)
    assert {t.options.train.epochs for t in trainings} == {7}


def test_the_stages_are_those_that_the_streams_read(recipe: Path) -> None:
    experiment = load(recipe)
    (only,) = stages_of(experiment.trainings(choose_rows(experiment, ["RGB+Flow"])))
    assert only[1] == ["frames", "flow"]
    every = stages_of(experiment.trainings(experiment.rows))
    assert [stages for _, stages in every] == [["frames", "flow"], ["frames", "pose", "render", "flow"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {"X": {"fuse": ["sound"]}}}, "rows.X: 'sound' is none of the runs"),
        ({"rows": {"X": {"fuse": ["rgb@x"]}}}, "rows.X: found 'rgb@x', expected run, run@seed or run=weight"),
        ({"rows": {"X": {"add": ["rgb"]}}}, "unknown key 'rows.X.add'; known: fuse, seeds, baseline, paper"),
        ({"rows": {"X": {"fuse": []}}}, "rows.X.fuse: found [], expected a list with something in it"),
        ({"runs": {"depth": {}}}, "unknown run 'depth'"),
        ({"runs": {"rgb": {"train.seed": 3}}}, "runs.rgb: train.seed cannot be set for one run"),
        (
            {"runs": {"student": {"student.teachers": ["flow"]}}},
            "runs.student: teacher 'flow' is none of the runs",
        ),
        ({"baseline": "Y"}, "baseline 'Y' is none of the rows: "),
        ({"combine": "sum"}, "combine: found 'sum', expected pool or mean"),
        ({"seeds": ["a"]}, "seeds: found ['a'], expected distinct whole numbers"),
        ({"splits": []}, "splits: found [], expected a list"),
        ({"colour": 1}, "unknown key 'colour'; known: config, folder"),
        ({"runs": {"rgb": 3}}, "runs.rgb: found 3, expected keys of the configuration"),
    ],
)
def test_mistakes_in_a_recipe_are_named(recipe: Path, change: dict[str, object], message: str) -> None:
    content = yaml.safe_load(RECIPE) | {"baseline": None} | change
    if "runs" in change:
        content["rows"] = {"RGB": {"fuse": list(change["runs"])}}
    recipe.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
        load(recipe)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_refusals(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing.yaml is not a file; recipes/ has"):
        load_experiment(str(tmp_path / "nothing.yaml"))
    recipe.write_text("a: [")
    with pytest.raises(ValueError, match=r"tiny.yaml is not YAML"):
        load_experiment(str(recipe))
    recipe.write_text("config: base.yaml\nrows: {}")
    with pytest.raises(ValueError, match="key 'runs' is missing"):
        load_experiment(str(recipe))
    recipe.write_text(RECIPE.replace("flow: {train.epochs: 2}", "flow: {train.epoch: 2}"))
    with pytest.raises(ValueError, match=r"unknown key 'train.epoch'.*did you mean 'train.epochs'"):
        load(recipe).trainings(load(recipe).rows)
    recipe.write_text(RECIPE)
    with pytest.raises(ValueError, match=r"--train.seed: the experiment sets it itself"):
        load(recipe, **{"train.seed": 3})


def test_a_student_must_see_what_its_teacher_was_trained_on(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("pose: {}", "pose: {render.variant: black-bar-13-ratio}"))
    experiment = load(recipe)
    expected = (
        "tiny/student-SL-seed0-split_1 would feed tiny/pose-seed0-split_1 from render/rgb-bar-13-ratio, "
        "it is trained on render/black-bar-13-ratio"
    )
    with pytest.raises(ValueError, match=expected):
        experiment.trainings(experiment.rows)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe and a workspace in which all of it is trained."""
    folder = tmp_path_factory.mktemp("done")
    put_recipe(folder)
    put_folds(folder)
    experiment = load(folder / "tiny.yaml", folder / "ws")
    work = ExperimentRun(experiment, Screen(quiet=True))
    trainings = experiment.trainings(experiment.rows)
    work.check(trainings)
    work.train(trainings)
    assert work.failed == {}
    return folder


def test_every_row_is_judged_on_all_clips_and_compared(done: Path) -> None:
    experiment = load(done / "tiny.yaml", done / "ws")
    records = {record["row"]: record for record in results(experiment, experiment.rows, failed={})}
    assert all(record["clips"] == 18 for record in records.values())
    rgb, fusion = records["RGB"], records["RGB+Flow"]
    assert len(rgb["top1_by_seed"]) == 2
    assert rgb["top1"] == pytest.approx(sum(rgb["top1_by_seed"]) / 2)
    assert fusion["against"]["difference"] == pytest.approx(fusion["top1"] - rgb["top1"])
    assert "against" not in rgb
    low, high = records["RGB+RGB"]["interval"]
    assert low <= records["RGB+RGB"]["top1"] <= high


def test_the_table_stands_on_the_screen_in_json_and_in_csv(done: Path) -> None:
    experiment = load(done / "tiny.yaml", done / "ws")
    records = results(experiment, experiment.rows, failed={})
    lines = table_lines(experiment, records)
    assert lines[1].split()[:2] == ["RGB", f"{100 * records[0]['top1']:.1f}"]
    assert "80.4" in lines[1]
    written = write_results(experiment, records, failed={})
    document = json.loads(Path(written[0]).read_text())
    assert [row["row"] for row in document["rows"]] == [row.name for row in experiment.rows]
    rows = list(csv.DictReader(Path(written[1]).read_text().splitlines()))
    assert float(rows[3]["paper_top5"]) == 95.7
    assert float(rows[2]["top1"]) == records[2]["top1"]


def test_rows_that_are_left_out_stay_in_the_files(done: Path) -> None:
    experiment = load(done / "tiny.yaml", done / "ws")
    write_results(experiment, results(experiment, experiment.rows, failed={}), failed={})
    one = results(experiment, choose_rows(experiment, ["RGB"]), failed={})
    written = write_results(experiment, [one[0] | {"top1": 0.125}], failed={})
    rows = json.loads(Path(written[0]).read_text())["rows"]
    assert [row["row"] for row in rows] == [row.name for row in experiment.rows]
    assert rows[0]["top1"] == 0.125
    assert "top1" in rows[1]


def test_only_what_is_missing_is_trained_again(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = load(done / "tiny.yaml", done / "ws")
    trainings = experiment.trainings(experiment.rows)
    before = {t.run: RunFolder(str(done / "ws"), t.run).read_json("done.json") for t in trainings}
    stamps = {path: path.stat().st_mtime_ns for path in done.rglob("done.json")}
    lost = done / "ws" / "runs" / "tiny" / "flow-seed0-split_2" / "done.json"
    lost.unlink()
    ExperimentRun(experiment, Screen()).train(trainings)
    # It gets the very weights it had, so its student stays fresh.
    assert {path for path in stamps if stamps[path] != path.stat().st_mtime_ns} == {lost}
    assert before == {t.run: RunFolder(str(done / "ws"), t.run).read_json("done.json") for t in trainings}
    assert "step" in capsys.readouterr().err
    ExperimentRun(experiment, Screen()).train(trainings)
    assert "step" not in capsys.readouterr().err


def test_runs_of_another_configuration_are_not_overwritten_unasked(done: Path) -> None:
    other = load(done / "tiny.yaml", done / "ws", **{"train.learning_rate": 0.1})
    trainings = other.trainings(other.rows)
    with pytest.raises(
        ValueError, match=r"run tiny/rgb-seed0-split_1 was trained otherwise \(train.learning_rate"
    ):
        ExperimentRun(other, Screen(quiet=True)).check(trainings)
    ExperimentRun(other, Screen(quiet=True), retrain=True).check(trainings)


def test_weights_to_start_from_must_be_there_before_anything_is_trained(
    recipe: Path, workspace: Path
) -> None:
    recipe.write_text(RECIPE.replace("pose: {}", "pose: {network.start_from: elsewhere/final.pt}"))
    experiment = load(recipe, workspace)
    with pytest.raises(
        ValueError, match=r"network.start_from of tiny/pose-seed0-split_1: elsewhere/final.pt does not"
    ):
        ExperimentRun(experiment, Screen(quiet=True)).check(experiment.trainings(experiment.rows))


def test_what_fails_is_said_and_the_rest_goes_on(recipe: Path, workspace: Path) -> None:
    recipe.write_text(
        RECIPE.replace(
            "flow: {train.epochs: 2}",
            "flow: {train.learning_rate: 100.0, train.warmup_steps: 0, train.steps: 60}",
        )
    )
    experiment = load(recipe, workspace)
    trainings = experiment.trainings(experiment.rows)
    work = ExperimentRun(experiment, Screen(quiet=True))
    work.train(trainings)
    failed = {name.removeprefix("tiny/") for name in work.failed}
    assert failed == {f"{r}-seed0-split_{k}" for r in ("flow", "student-SL") for k in (1, 2)}
    records = {r["row"]: r for r in results(experiment, experiment.rows, failed=work.failed)}
    assert records["RGB+Flow"]["missing"] == "tiny/flow-seed0-split_1"
    assert "top1" in records["RGB+RGB"]
    assert "missing: tiny/flow-seed0-split_1" in "\n".join(table_lines(experiment, list(records.values())))


def test_splits_that_overlap_are_averaged_not_pooled(recipe: Path, workspace: Path) -> None:
    recipe.write_text(
        RECIPE.replace("combine: pool", "combine: mean").replace(
            "split_2]", "split_1]".replace("split_1]", "split_2]")
        )
    )
    experiment = load(recipe, workspace)
    rows = choose_rows(experiment, ["RGB"])
    ExperimentRun(experiment, Screen(quiet=True)).train(experiment.trainings(rows))
    (record,) = results(experiment, rows, failed={})
    folder = workspace / "runs" / "tiny"
    single = [
        json.loads((folder / f"rgb-seed{seed}-split_{k}" / "metrics.json").read_text())["top1"]
        for seed in (0, 1)
        for k in (1, 2)
    ]
    assert record["top1"] == pytest.approx(sum(single) / 4)


def test_a_missing_split_column_is_said_before_any_store_is_computed(recipe: Path, workspace: Path) -> None:
    recipe.write_text(RECIPE.replace("[split_1, split_2]", "[split_1, split_7]"))
    experiment = load(recipe, workspace)
    with pytest.raises(ValueError, match=r"no column 'split_7'; split columns: split_1, split_2"):
        ExperimentRun(experiment, Screen(quiet=True)).prepare(experiment.trainings(experiment.rows))


def test_stores_are_prepared_once_however_pose_is_drawn(recipe: Path) -> None:
    """Where people are drawn while training reads, variants share the stores: one way, not two."""
    recipe.write_text(
        """
config: base.yaml
runs:
  pose: {}
  pose-black: {render.variant: black-bar-13-ratio}
rows:
  Pose: {fuse: [pose, pose-black]}
"""
    )
    rendered, drawn = load(recipe), load(recipe, **{"pose.source": "drawn"})
    assert [stages for _, stages in stages_of(rendered.trainings(rendered.rows))] == [
        ["frames", "pose", "render"]
    ] * 2
    assert [stages for _, stages in stages_of(drawn.trainings(drawn.rows))] == [["frames", "pose"]]
