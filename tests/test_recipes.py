"""Every recipe is what the code reads today, and tables that share runs mean the same by them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from models.options import role_of
from pipelines.config import load_config
from pipelines.experiment import load_experiment
from pipelines.experiment_run import stages_of

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
TABLES = [path for path in RECIPES if "rows" in yaml.safe_load(path.read_text())]
CONFIGURATIONS = [path for path in RECIPES if path not in TABLES]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_configurations_load(path: Path) -> None:
    config = load_config(str(path))
    assert config.model_options()
    assert config.workspace != "workspace"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_row_of_every_table_resolves(path: Path) -> None:
    experiment = load_experiment(str(path))
    trainings = experiment.trainings(experiment.rows)
    names = [training.run for training in trainings]
    assert len(set(names)) == len(names)
    for training in trainings:
        assert all(names.index(teacher) < names.index(training.run) for teacher in training.teachers)
        assert bool(training.teachers) == (role_of(training.run) == "student")
    for row in experiment.rows:
        for seed in row.seeds:
            for split in experiment.splits:
                assert set(experiment.names_of(row, seed, split)) <= set(names)
    assert all(stages for _, stages in stages_of(trainings))
    used = {term.run for row in experiment.rows for term in row.terms}
    taught = {t for run in used for t in experiment.runs[run].get("student.teachers", ())}
    assert used | taught == set(experiment.runs)


def test_tables_that_share_a_folder_mean_the_same_by_a_run() -> None:
    meant: dict[tuple[str, str, str], tuple[str, dict[str, Any]]] = {}
    for path in TABLES:
        experiment = load_experiment(str(path))
        for run, overrides in experiment.runs.items():
            base = Path(experiment.config).name
            where = (experiment.base.workspace, experiment.folder, run)
            before = meant.setdefault(where, (base, dict(overrides)))
            assert before == (base, dict(overrides)), (path.name, run)


# Top-1 and top-5 as the paper prints them.
PAPER = {
    "table2": "77.8 93.9, 78.1 93.9, 77.9 93.8, 33.7 52.5, 34.0 52.9, 78.0 93.6, 79.3 94.3",
    "table3": "77.8 93.9, 68.3 88.4, 76.8 93.4, 79.2 94.5, 79.2 94.6, 80.3 95.4, 80.4 95.2, 69.5 89.2, 79.3 94.5, "
    "80.4 95.6, 81.4 95.6, 79.9 94.2, 81.1 95.9, 82.0 96.5",
    "table4": "77.8 93.9, 78.3 94.3, 78.4 94.2, 78.9 94.6, 80.4 95.2, 80.6 94.6, 80.4 94.7, 80.7 95.3, 82.0 95.7",
    "table6": "63.5 85.1, 51.0 75.8, 61.3 83.5, 67.9 87.9",
    "table7_ucf101": "98.2, 98.6",
    "table7_hmdb51": "82.0, 83.2",
}


@pytest.mark.parametrize("table", PAPER)
def test_the_papers_numbers_stand_in_the_papers_order(table: str) -> None:
    path = next(path for path in TABLES if path.stem == table)
    rows = load_experiment(str(path)).rows
    found = [" ".join(f"{row.paper[k]:.1f}" for k in ("top1", "top5") if k in row.paper) for row in rows]
    assert ", ".join(found) == PAPER[table]


def test_the_papers_settings() -> None:
    config = load_config(str(next(path for path in RECIPES if path.stem == "kinetics600")))
    assert (config.data.window_frames, config.data.crop_height_px, config.data.crop_width_px) == (
        64,
        224,
        224,
    )
    assert (config.train.steps, config.train.warmup_steps, config.train.peak_rate) == (22000, 2000, 1.6)
    assert (config.evaluate.frames, config.evaluate.crop_height_px, config.evaluate.crop_width_px) == (
        250,
        256,
        256,
    )
    for name, frames in (("ucf101", 128), ("hmdb51", 64)):
        config = load_config(str(next(path for path in RECIPES if path.stem == name)))
        assert (config.data.crop_height_px, config.data.crop_width_px) == (224, 298)
        shape = (config.evaluate.frames, config.evaluate.crop_height_px, config.evaluate.crop_width_px)
        assert shape == (frames, 224, 298)
        assert config.train.epochs == 30


def test_a_transfer_starts_from_the_student_that_the_other_table_makes() -> None:
    made = set()
    for path in TABLES:
        experiment = load_experiment(str(path))
        for training in experiment.trainings(experiment.rows):
            made.add(f"{experiment.base.workspace}/runs/{training.run}/checkpoints/final.pt")
    for name in ("table7_ucf101", "table7_hmdb51"):
        experiment = load_experiment(str(next(path for path in TABLES if path.stem == name)))
        for training in experiment.trainings(experiment.rows):
            assert training.config.network.start_from in made
