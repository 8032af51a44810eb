import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from models.options import (
    DataOptions,
    EvaluateOptions,
    ModelOptions,
    NetworkOptions,
    StudentOptions,
    TrainOptions,
    role_of,
)


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (NetworkOptions, {"width": 0.0}, "network.width"),
        (NetworkOptions, {"blocks": (1, 2, 3)}, "network.blocks"),
        (NetworkOptions, {"temporal_kernels": ((3,), (3,), (2,), (3,))}, "network.temporal_kernels"),
        (NetworkOptions, {"stem_kernel": (5, 7)}, "network.stem_kernel"),
        (NetworkOptions, {"gate": "stage"}, "network.gate"),
        (NetworkOptions, {"dropout": 1.0}, "network.dropout"),
        (DataOptions, {"window_frames": 0}, "data.window_frames"),
        (DataOptions, {"crop_width_px": 8}, "data.crop_width_px"),
        (DataOptions, {"mirror": 1.5}, "data.mirror"),
        (DataOptions, {"contrast": 1.0}, "data.contrast"),
        (TrainOptions, {"learning_rate": 0.0}, "train.learning_rate"),
        (TrainOptions, {"seed": -1}, "train.seed"),
        (TrainOptions, {"precision": "16"}, "train.precision"),
        (TrainOptions, {"steps": 0}, "train.steps"),
        (StudentOptions, {"teachers": ()}, "student.teachers"),
        (StudentOptions, {"teachers": ("pose", "pose")}, "student.teachers"),
        (StudentOptions, {"teachers": ("sound",)}, "student.teachers"),
        (StudentOptions, {"weight": -1.0}, "student.weight"),
        (EvaluateOptions, {"crop_height_px": 0}, "evaluate.crop_height_px"),
        (ModelOptions, {"pose_store": "../secret"}, "render.variant"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_that_the_user_typed(kind, values, named):
    with pytest.raises(ValueError, match=f"^{named}: found .*, expected"):
        kind(**values)


@pytest.mark.parametrize(
    ("run", "role"),
    [
        ("rgb", "rgb"),
        ("rgb-seed1", "rgb"),
        ("table4/student-SL-split_2", "student"),
        ("a/b-c/flow-0", "flow"),
    ],
)
def test_the_name_of_a_run_says_its_role(run, role):
    assert role_of(run) == role


@pytest.mark.parametrize(
    "run",
    [
        "depth",
        "seed1-rgb",
        "rgb1",
        "../rgb",
        "/rgb",
        "rgb/",
        "a//rgb",
        "rgb-\n",
        "rgb-ü",
        "",
        "-rgb",
        "a/./rgb",
    ],
)
def test_a_name_without_role_or_out_of_the_folder_is_refused(run):
    with pytest.raises(ValueError, match=r"unknown run '.*known: rgb, pose, flow, student"):
        role_of(run)


def test_teachers_are_runs_of_streams():
    assert StudentOptions(teachers=("pose-seed1", "x/flow", "rgb")).teachers[0] == "pose-seed1"
    with pytest.raises(ValueError, match=r"^student.teachers: found .*, expected"):
        StudentOptions(teachers=("student-SL",))


def test_lists_from_a_file_become_tuples_so_that_equal_options_are_equal():
    listed = NetworkOptions(blocks=[3, 4, 6, 3], temporal_kernels=[[3], [3, 1], [3, 1], [1, 3]])
    assert listed == NetworkOptions()
    assert StudentOptions(teachers=["pose", "flow"]) == StudentOptions()


def test_options_are_plain_values_and_come_back_from_json():
    content = json.loads(json.dumps(asdict(ModelOptions())))
    assert NetworkOptions(**content["network"]) == NetworkOptions()
    assert TrainOptions(**content["train"]) == TrainOptions()


def test_the_defaults_are_the_papers():
    options = ModelOptions()
    assert (options.data.window_frames, options.data.crop_height_px) == (64, 224)
    assert (options.train.batch_size, options.train.learning_rate) == (2048, 1.6)
    assert (options.evaluate.frames, options.evaluate.crop_width_px) == (250, 256)


@pytest.mark.parametrize("module", ["models.options", "models.runs"])
def test_planning_loads_neither_torch_nor_beam(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'apache_beam', 'cv2') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
