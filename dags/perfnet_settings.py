"""What both DAGs are told: parameters, the settings of the deployment, pools and retries.

Where perfnet lives is told by three settings, environment variables or Airflow Variables:

PERFNET_PYTHON        interpreter that has perfnet; default: the one that runs Airflow
PERFNET_HOME          folder that the commands run in, which relative paths start from; default: the one above dags/
PERFNET_BEAM_OPTIONS  JSON object of Beam options for Dataflow that no trigger may choose: image, account, network
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, Param, TriggerRule, Variable
from airflow.sdk.exceptions import AirflowFailException

# A scheme without x- would make Airflow load all its providers, in search of who knows it: more than a second.
DATASET = Asset("perfnet_dataset", uri="x-perfnet://dataset")
CPU_POOL, GPU_POOL = "perfnet_cpu", "perfnet_gpu"
DEFAULTS = {
    "owner": "perfnet",
    "retries": 3,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "pool": CPU_POOL,
}
NONE_FAILED = TriggerRule.NONE_FAILED
LOCAL, DATAFLOW = "DirectRunner", "DataflowRunner"

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_COUNT = {"type": "integer", "minimum": 1}
BEAM_OPTIONS: dict[str, dict[str, Any]] = {
    "project": {"type": "string", "pattern": _NAME},
    "region": {"type": "string", "pattern": _NAME},
    "worker_zone": {"type": "string", "pattern": _NAME},
    "temp_location": {"type": "string", "pattern": "^gs://"},
    "staging_location": {"type": "string", "pattern": "^gs://"},
    "machine_type": {"type": "string", "pattern": _NAME},
    "disk_size_gb": _COUNT,
    "num_workers": _COUNT,
    "max_num_workers": _COUNT,
    "autoscaling_algorithm": {"type": "string", "enum": ["NONE", "THROUGHPUT_BASED"]},
    "number_of_worker_harness_threads": _COUNT,
}
"""What a trigger may say to Dataflow. Which code runs, as whom and in which network is not among it."""
_REQUIRED = ("project", "region", "temp_location")


def config_param() -> Param:
    return Param(
        "recipes/demo.yaml",
        type="string",
        minLength=1,
        title="Configuration",
        description="YAML file, local or gs://; a relative path starts from PERFNET_HOME.",
    )


def stages_param(stages: Sequence[str]) -> Param:
    """A multiple choice in the trigger form."""
    return Param(
        list(stages),
        type="array",
        items={"type": "string", "enum": list(stages)},
        examples=list(stages),
        uniqueItems=True,
        minItems=1,
        title="Stages",
        description="Only these; the others are skipped.",
    )


def setting(name: str) -> str | None:
    """An environment variable, or else the Airflow Variable of that name."""
    return os.environ.get(name) or Variable.get(name, default=None)


def home() -> str:
    """The folder that commands run in."""
    return setting("PERFNET_HOME") or str(Path(__file__).resolve().parents[1])


def config_of(context: Mapping[str, Any]) -> str:
    """The configuration of this run: of the data set that started it, else of the parameter."""
    events = context["triggering_asset_events"].get(DATASET) or ()
    configs = [event.extra["config"] for event in events if event.extra.get("config")]
    return configs[-1] if configs else context["params"]["config"]


def beam_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """The Beam options of a Dataflow job: what the trigger chose, below what the deployment says.

    Raises:
        AirflowFailException: an option that a trigger may not set, or one that is missing.
    """
    chosen = dict(params.get("beam_options") or {})
    for name, value in chosen.items():
        if name not in BEAM_OPTIONS:
            raise AirflowFailException(
                f"beam_options: {name!r} is not allowed; known: {', '.join(BEAM_OPTIONS)}"
            )
        if not re.fullmatch(r"[\w./:@-]+", str(value)):
            raise AirflowFailException(f"beam_options: {name}: found {value!r}, expected one word")
    options = {**chosen, **_deployed_options()}
    missing = [name for name in _REQUIRED if not options.get(name)]
    if missing:
        raise AirflowFailException(
            f"runner {DATAFLOW} needs {', '.join(missing)}: give beam_options, or set PERFNET_BEAM_OPTIONS"
        )
    return options


def _deployed_options() -> dict[str, Any]:
    text = setting("PERFNET_BEAM_OPTIONS") or "{}"
    try:
        found = json.loads(text)
    except ValueError as error:
        raise AirflowFailException(f"PERFNET_BEAM_OPTIONS is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise AirflowFailException("PERFNET_BEAM_OPTIONS: expected a JSON object of options")
    return found
