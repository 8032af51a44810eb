"""Brings the stores up to date: frames, then pose and flow side by side, then the rendered variants.

Each stage is a plan task, cheap and skipped where the store is fresh, and the task that computes. Tasks wait for the
ones above them with `none_failed`: fresh frames do not skip a stale pose. The last task emits the data set, which
starts `perfnet_train`, when all that training reads is up to date and something of it has changed.

**Parameters**: the configuration, the stages to look at, where Beam runs, and whether to compute afresh. With
`DataflowRunner` each stage is one job, and `beam_options` needs `project`, `region` and `temp_location`; training then
needs a `train_config` with a local workspace.

Run it again at any time, with the same conf: only what is stale is computed. See docs/airflow.md.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from airflow.sdk import DAG, Param

sys.path.insert(0, os.path.dirname(__file__))  # Airflow's services do this themselves, a bare DagBag does not

from perfnet_settings import (
    BEAM_OPTIONS,
    DATAFLOW,
    DEFAULTS,
    LOCAL,
    NONE_FAILED,
    config_param,
    stages_param,
)
from perfnet_tasks import CheckOperator, ComputeOperator, PlanOperator, PublishOperator

AFTER = {"frames": "check", "pose": "frames", "render": "pose", "flow": "frames"}
VARIANTS = [
    f"{background}-{marker}-{colours}-{thickness}"
    for background in ("rgb", "black")
    for marker in ("bar", "dot")
    for colours in ("13", "6")
    for thickness in ("ratio", "uniform")
]

params = {
    "config": config_param(),
    "stages": stages_param(list(AFTER)),
    "variants": Param(
        [],
        type="array",
        items={"type": "string", "enum": VARIANTS},
        examples=VARIANTS,
        uniqueItems=True,
        title="Render variants",
        description="Each is rendered by a task of its own; none means the one of the configuration.",
    ),
    "runner": Param(LOCAL, type="string", enum=[LOCAL, DATAFLOW], title="Where Beam runs"),
    "beam_options": Param(
        {},
        type="object",
        properties=BEAM_OPTIONS,
        additionalProperties=False,
        title="Beam options",
        description=f"For {DATAFLOW}: {', '.join(BEAM_OPTIONS)}.",
    ),
    "force": Param(False, type="boolean", title="Compute again", description="Also what is fresh."),
    "max_rejected": Param(
        None,
        type=["null", "number"],
        minimum=0,
        maximum=1,
        title="Largest share of rejected clips",
        description="With more, a store is not committed. Empty: as configured.",
    ),
    "train_config": Param(
        None,
        type=["null", "string"],
        minLength=1,
        title="Configuration of the training",
        description="For a workspace on gs://, which training cannot write to: one with a local workspace of the same "
        "stores, such as a mount of the bucket. Empty: the same as above.",
    ),
}


with DAG(
    "perfnet_prepare",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=params,
    tags=["perfnet"],
    doc_md=__doc__,
) as dag:
    check = CheckOperator(task_id="check")
    tasks: dict[str, Any] = {"check": check}
    for stage, before in AFTER.items():
        about = {"stage": stage, "trigger_rule": NONE_FAILED}
        if stage == "render":
            plan = PlanOperator.partial(task_id="plan_render", **about).expand(variant=check.output)
            compute = ComputeOperator.partial(task_id="render", plan="plan_render", **about).expand(
                variant=check.output
            )
        else:
            plan = PlanOperator(task_id=f"plan_{stage}", **about)
            compute = ComputeOperator(task_id=stage, plan=f"plan_{stage}", **about)
        tasks[stage] = compute
        tasks[before] >> plan >> compute
    [tasks[stage] for stage in AFTER] >> PublishOperator(task_id="publish", trigger_rule=NONE_FAILED)
