"""Trains the teachers side by side, then the student, judges them all and writes the report.

Started by the data set that `perfnet_prepare` emits, with that run's configuration, or by hand. A training whose clips,
stores and options have not changed is skipped as fresh; one that was interrupted goes on from its last checkpoint.
Trainings share the pool `perfnet_gpu`: give it as many slots as trainings may run at once.

**Parameters**: the configuration and the stages. See docs/airflow.md.
"""

from __future__ import annotations

import os
import sys

from airflow.sdk import DAG

sys.path.insert(0, os.path.dirname(__file__))  # Airflow's services do this themselves, a bare DagBag does not

from perfnet_settings import DATASET, DEFAULTS, GPU_POOL, NONE_FAILED, config_param, stages_param
from perfnet_tasks import CheckOperator, EvaluateOperator, PerfnetOperator

TEACHERS = ("rgb", "pose", "flow")
STAGES = (*TEACHERS, "student", "evaluate", "report")

with DAG(
    "perfnet_train",
    schedule=[DATASET],
    catchup=False,
    max_active_runs=1,
    default_args={**DEFAULTS, "trigger_rule": NONE_FAILED},
    params={"config": config_param(), "stages": stages_param(STAGES)},
    tags=["perfnet"],
    doc_md=__doc__,
) as dag:
    check = CheckOperator(task_id="check")
    train = {
        run: PerfnetOperator(task_id=run, stage=run, arguments=["train", run, "--skip_code"], pool=GPU_POOL)
        for run in (*TEACHERS, "student")
    }
    evaluate = EvaluateOperator(task_id="evaluate", stage="evaluate", pool=GPU_POOL)
    report = PerfnetOperator(task_id="report", stage="report", arguments=["report"])
    check >> [train[run] for run in TEACHERS] >> train["student"] >> evaluate >> report
