"""What both DAGs are made of: parameters, and operators that run one perfnet command each.

perfnet may live in another Python environment than Airflow, so it is only ever called as a command: a list of
arguments, never text for a shell. Where it lives is told by three settings, environment variables or Airflow Variables:

PERFNET_PYTHON        interpreter that has perfnet; default: the one that runs Airflow
PERFNET_HOME          folder that the commands run in, which relative paths start from; default: the one above dags/
PERFNET_BEAM_OPTIONS  JSON object of Beam options for Dataflow that no trigger may choose: image, account, network
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, BaseOperator, Param, TriggerRule, Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred

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
EXIT_USAGE, EXIT_NOTHING = 2, 99
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


def rejected_option(params: Mapping[str, Any]) -> dict[str, Any]:
    most = params.get("max_rejected")
    return {} if most is None else {"max_rejected": most}


def flags(options: Mapping[str, Any]) -> list[str]:
    """One argument an option, so that a value that begins with a dash stays a value."""
    return [f"--{name}={value}" for name, value in options.items()]


def _die_with_parent() -> None:
    """Ends the command when the task's own process is killed: a retry must not find it still at work."""
    if _prctl:
        _prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _started(command: Sequence[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            cwd=home(),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        raise AirflowFailException(f"PERFNET_PYTHON or PERFNET_HOME: {error}") from error


class PerfnetOperator(BaseOperator):
    """Runs `perfnet <arguments> --config=<the run's configuration>`.

    Exit code 99 skips the task, 2 (a user's mistake) fails it for good, any other is tried again.

    Args:
        arguments: of the command, without --config.
        stage: skip unless the parameter `stages` has it.
    """

    def __init__(self, *, arguments: Sequence[str] = (), stage: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.arguments = list(arguments)
        self.stage = stage
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> str:
        """Returns the command's last line."""
        self.skip_unless_chosen(context)
        return self.run_command([*self.arguments, f"--config={config_of(context)}"])

    def skip_unless_chosen(self, context: Any) -> None:
        if self.stage and self.stage not in context["params"]["stages"]:
            raise AirflowSkipException(f"{self.stage} is not among the chosen stages")

    def run_command(self, arguments: Sequence[str]) -> str:
        """Runs perfnet with its output in the task's log, and returns the last line."""
        command = [setting("PERFNET_PYTHON") or sys.executable, "-m", "pipelines.cli", *arguments]
        self.log.info("%s", shlex.join(command))
        lines: list[str] = []
        with _started(command) as self._process:
            try:
                for line in self._process.stdout or ():
                    self.log.info("%s", line.rstrip())
                    lines = [*lines[-20:], line.strip()]
            except BaseException:
                self.on_kill()
                raise
        return self._judge(self._process.returncode, [line for line in lines if line])

    def _judge(self, code: int, lines: Sequence[str]) -> str:
        last = lines[-1] if lines else ""
        said = next((line for line in reversed(lines) if line.startswith("perfnet: ")), last)
        if code == EXIT_NOTHING:
            raise AirflowSkipException(last or "nothing to do")
        if code == EXIT_USAGE:
            raise AirflowFailException(said)
        if code:
            ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise AirflowException(f"the command {ended}: {said}")
        return last

    def on_kill(self) -> None:
        """Stops the command, which keeps its finished shards and checkpoints."""
        if self._process and self._process.poll() is None:
            self._process.terminate()


class EvaluateOperator(PerfnetOperator):
    """Judges the runs whose training was chosen; all of them where none was."""

    def execute(self, context: Any) -> str:
        self.skip_unless_chosen(context)
        runs = [run for run in ("rgb", "pose", "flow", "student") if run in context["params"]["stages"]]
        return self.run_command(["evaluate", *runs, "--skip_code", f"--config={config_of(context)}"])


class CheckOperator(PerfnetOperator):
    """Refuses a run that cannot go well before any work: wrong conf, configuration or clips table."""

    def execute(self, context: Any) -> list[str]:
        """Returns the variants to render; "" stands for the one of the configuration."""
        params = context["params"]
        self._refuse_unknown(context["dag_run"].conf or {})
        if params.get("runner") == DATAFLOW:
            beam_options(params)
        elif params.get("beam_options"):
            raise AirflowFailException(f"beam_options: they are for runner {DATAFLOW}, found runner {LOCAL}")
        self.run_command(["clips", "check", *flags({"config": config_of(context)} | rejected_option(params))])
        return list(params.get("variants") or [""])

    def _refuse_unknown(self, conf: Mapping[str, Any]) -> None:
        """Airflow itself takes any key: a misspelt `stages` would run everything."""
        declared = self.dag.params
        for name in conf:
            if name not in declared:
                raise AirflowFailException(f"conf: unknown key {name!r}; known: {', '.join(declared)}")


class StageOperator(PerfnetOperator):
    """What the two tasks of a stage share.

    Args:
        stage: frames, pose, render or flow.
        variant: how to render; "" means as configured.
    """

    template_fields = ("variant",)

    def __init__(self, *, stage: str, variant: str = "", **kwargs: Any) -> None:
        super().__init__(stage=stage, **kwargs)
        self.variant = variant

    def prepare(self, context: Any, *more: str) -> str:
        return self.run_command(["prepare", str(self.stage), *flags(self.stage_options(context)), *more])

    def stage_options(self, context: Any) -> dict[str, Any]:
        """What a stage's command is told, by option."""
        variant = {"render.variant": self.variant} if self.variant else {}
        return {"config": config_of(context)} | rejected_option(context["params"]) | variant


class PlanOperator(StageOperator):
    """Looks whether a stage is stale; skipped where it is fresh or not chosen."""

    def execute(self, context: Any) -> str:
        """Returns why the stage is stale."""
        self.skip_unless_chosen(context)
        if context["params"]["force"]:
            return f"{self.stage}: computed again as asked for"
        return self.prepare(context, "--dry_run", "--skip_code")


class ComputeOperator(StageOperator):
    """Brings a stage up to date, here or on Dataflow; skipped where its plan was.

    Args:
        plan: task_id of the plan.
    """

    def __init__(self, *, plan: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self._beam: Any = None

    def execute(self, context: Any) -> str:
        """Returns what the stage did. Its plan found something stale, so what an earlier try did counts as done."""
        ti = context["ti"]
        if not ti.xcom_pull(task_ids=self.plan, map_indexes=ti.map_index):
            raise AirflowSkipException(f"{self.plan} was skipped")
        force = ["--force"] if context["params"]["force"] else []
        if context["params"]["runner"] == LOCAL:
            return self.prepare(context, *force)
        return self._launch(context, force=bool(force))

    def _launch(self, context: Any, *, force: bool) -> str:
        """Submits to Dataflow, and frees this worker until the job has ended."""
        self._beam = self.beam_operator(context, force=force)
        with contextlib.chdir(home()):
            try:
                self._beam.execute(context)
            except TaskDeferred:
                if self._beam.dataflow_job_id:
                    raise
                # Nothing was left to compute, so there is no job to wait for.
            except AirflowException as error:
                if str(error).endswith(f"return code {EXIT_USAGE}"):
                    raise AirflowFailException(str(error)) from error
                raise
        return self.execute_complete(context, {"status": "success", "message": "nothing was submitted"})

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> str:
        """Called when the Dataflow job has ended: commits what its workers have computed."""
        if event["status"] != "success":
            raise AirflowException(str(event["message"]))
        return self.prepare(context, "--commit")

    def beam_operator(self, context: Any, *, force: bool = False) -> Any:
        """The provider's operator: imported here, because it takes a second and needs the Google provider."""
        from airflow.providers.apache.beam.operators.beam import BeamRunPythonPipelineOperator

        options = beam_options(context["params"])
        ours: dict[str, Any] = {"stage": self.stage, **self.stage_options(context), "force": force}
        # perfnet names the job by the state that it brings the store to, so a retry meets the job that still runs.
        # The operator would add a name of its own; an option that is False is left out.
        ours["job_name"] = False
        return BeamRunPythonPipelineOperator(
            task_id=f"{self.task_id}_on_dataflow",
            runner=DATAFLOW,
            py_interpreter=setting("PERFNET_PYTHON") or sys.executable,
            py_options=["-m"],
            py_file="pipelines.beam_main",
            pipeline_options={**options, **ours},
            dataflow_config={
                "job_name": f"perfnet-{self.stage}",
                "append_job_name": False,
                "project_id": options["project"],
                "location": options["region"],
            },
            deferrable=True,
        )

    def on_kill(self) -> None:
        super().on_kill()
        if self._beam:
            self._beam.on_kill()


class PublishOperator(BaseOperator):
    """Emits the data set where a stage of this run did something.

    Args:
        stages: task_ids of what computes.
    """

    def __init__(self, *, stages: Sequence[str], **kwargs: Any) -> None:
        super().__init__(outlets=[DATASET], **kwargs)
        self.stages = list(stages)

    def execute(self, context: Any) -> list[str]:
        """Returns the stages that did something."""
        ti = context["ti"]
        changed = [stage for stage in self.stages if _did_something(ti.xcom_pull(task_ids=stage))]
        if not changed:
            raise AirflowSkipException("nothing has changed")
        context["outlet_events"][DATASET].extra = {"config": config_of(context), "changed": changed}
        return changed


def _did_something(pulled: Any) -> bool:
    """Whether a task, or any task of a mapped one, returned something."""
    return any(pulled) if isinstance(pulled, (list, tuple)) else bool(pulled)


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


NONE_FAILED = TriggerRule.NONE_FAILED
