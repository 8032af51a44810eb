"""The DAGs as Airflow loads them: no import errors, light, the right tasks in the right order."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.stages import STAGES
from transforms.options import VARIANTS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "dags").glob("*.py"))
SIBLINGS = {path.stem for path in FILES}
HEAVY = "apache_beam tensorflow torch cv2 mediapipe av numba numpy pyarrow pandas pipelines transforms stores models"

_DESCRIBE = """
import json, sys, time
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
before = time.process_time()
bag = DagBag({folder!r})
took_s = time.process_time() - before
def about(task):
    return {{
        "rule": str(task.trigger_rule.value), "pool": task.pool, "retries": task.retries, "mapped": task.is_mapped,
        "backoff": bool(task.retry_exponential_backoff), "after": sorted(task.upstream_task_ids),
        "outlets": [asset.name for asset in task.outlets],
    }}
dags = {{
    d.dag_id: {{
        "doc": d.doc_md, "tasks": {{t.task_id: about(t) for t in d.tasks}}, "params": sorted(d.params),
        "schedule": type(d.timetable).__name__, "runs": d.max_active_runs,
    }}
    for d in bag.dags.values()
}}
found = {{"errors": bag.import_errors, "dags": dags, "modules": sorted(sys.modules), "took_s": took_s}}
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh interpreter finds in the folder of DAGs."""
    home = tmp_path_factory.mktemp("airflow")
    env = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    code = _DESCRIBE.format(folder=str(ROOT / "dags"))
    run = subprocess.run([sys.executable, "-c", code], env=env, cwd=home, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (found,) = (line for line in run.stdout.splitlines() if line.startswith("FOUND "))
    return json.loads(found.removeprefix("FOUND "))


def test_both_dags_load_without_errors(bag: dict[str, Any]) -> None:
    assert bag["errors"] == {}
    assert set(bag["dags"]) == {"perfnet_prepare", "perfnet_train"}
    for dag in bag["dags"].values():
        assert "**Parameters**" in dag["doc"]
        assert dag["runs"] == 1


def test_loading_the_dags_loads_nothing_heavy(bag: dict[str, Any]) -> None:
    assert not set(bag["modules"]) & set(HEAVY.split())
    # The Google provider alone takes a second to import: only a task that submits to Dataflow may.
    assert not [name for name in bag["modules"] if name.startswith("airflow.providers.google.cloud")]


def test_the_dags_parse_in_less_than_a_second(bag: dict[str, Any]) -> None:
    """Of processor time, once Airflow itself is imported: its services parse every DAG again and again."""
    assert bag["took_s"] < 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dag_file_imports_airflow_and_the_standard_library_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            assert top == "airflow" or top in sys.stdlib_module_names or top in SIBLINGS, name


def edges(tasks: dict[str, Any]) -> dict[str, list[str]]:
    return {name: task["after"] for name, task in tasks.items()}


def test_prepare_is_a_plan_and_a_work_task_for_each_stage(bag: dict[str, Any]) -> None:
    tasks = bag["dags"]["perfnet_prepare"]["tasks"]
    assert edges(tasks) == {
        "check": [],
        "plan_frames": ["check"],
        "frames": ["plan_frames"],
        "plan_pose": ["frames"],
        "pose": ["plan_pose"],
        "plan_render": ["check", "pose"],
        "render": ["check", "plan_render"],
        "plan_flow": ["frames"],
        "flow": ["plan_flow"],
        "publish": sorted(STAGES),
    }
    assert {name for name, task in tasks.items() if task["mapped"]} == {"plan_render", "render"}
    assert {name for name, task in tasks.items() if task["rule"] == "none_failed"} == set(tasks) - {"check"}
    assert {name for name, task in tasks.items() if task["outlets"]} == {"publish"}


def test_train_follows_the_data_set(bag: dict[str, Any]) -> None:
    dag = bag["dags"]["perfnet_train"]
    assert edges(dag["tasks"]) == {
        "check": [],
        "rgb": ["check"],
        "pose": ["check"],
        "flow": ["check"],
        "student": ["flow", "pose", "rgb"],
        "evaluate": ["student"],
        "report": ["evaluate"],
    }
    assert dag["schedule"] == "AssetTriggeredTimetable"


def test_pools_and_retries(bag: dict[str, Any]) -> None:
    pools = set(json.loads((ROOT / "dags" / "pools.json").read_text()))
    for dag in bag["dags"].values():
        for task in dag["tasks"].values():
            assert task["retries"] >= 2
            assert task["backoff"]
            assert task["pool"] in pools
    train = bag["dags"]["perfnet_train"]["tasks"]
    on_gpu = {name for name, task in train.items() if task["pool"] == "perfnet_gpu"}
    assert on_gpu == {"rgb", "pose", "flow", "student", "evaluate"}


def test_tables_agree_with_perfnet() -> None:
    import perfnet_prepare

    assert tuple(perfnet_prepare.AFTER) == STAGES
    assert set(perfnet_prepare.VARIANTS) == set(VARIANTS)


@pytest.mark.parametrize(
    "conf",
    [
        {"stages": ["frames", "flw"]},
        {"stages": []},
        {"stages": "flow"},
        {"variants": ["rgb-bar-13"]},
        {"runner": "FlinkRunner"},
        {"beam_options": {"sdk_container_image": "theirs"}},
        {"beam_options": {"temp_location": "/tmp"}},
        {"beam_options": {"project": "--setup_file=x"}},
        {"force": "yes"},
        {"max_rejected": 1.5},
        {"config": ""},
        {"config": None},
    ],
)
def test_wrong_conf_is_refused_by_the_schema(conf: dict[str, Any]) -> None:
    import perfnet_prepare
    from airflow.sdk.exceptions import ParamValidationError

    (name,) = conf
    with pytest.raises(ParamValidationError):
        perfnet_prepare.dag.params.get_param(name).__copy__().resolve(conf[name])


@pytest.mark.parametrize(
    "conf",
    [
        {"stages": ["flow"]},
        {"variants": ["black-dot-6-uniform", "rgb-bar-13-ratio"]},
        {"runner": "DataflowRunner"},
        {
            "beam_options": {
                "project": "p",
                "region": "europe-west4",
                "temp_location": "gs://b/t",
                "num_workers": 3,
            }
        },
        {"max_rejected": 0},
        {"max_rejected": None},
    ],
)
def test_right_conf_is_taken(conf: dict[str, Any]) -> None:
    import perfnet_prepare

    (name,) = conf
    param = perfnet_prepare.dag.params.get_param(name).__copy__()
    assert param.resolve(conf[name]) == conf[name]
