"""What both DAGs are made of: operators that run one perfnet command each.

perfnet may live in another Python environment than Airflow, so it is only ever called as a command: a list of
arguments, never text for a shell. perfnet_settings.py says where it lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from perfnet_settings import DATAFLOW, DATASET, LOCAL, beam_options, config_of, home, setting

EXIT_USAGE, EXIT_NOTHING = 2, 99
_KNOWN_EVENTS = 100


def rejected_option(params: Mapping[str, Any]) -> dict[str, Any]:
    most = params.get("max_rejected")
    return {} if most is None else {"max_rejected": most}


def flags(options: Mapping[str, Any]) -> list[str]:
    """One argument an option, so that a value that begins with a dash stays a value; as the Beam provider does it."""
    found = []
    for name, value in options.items():
        if value is True:
            found.append(f"--{name}")
        elif isinstance(value, list):
            found += [f"--{name}={one}" for one in value]
        elif value is not False and value is not None:
            found.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return found


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
    """Refuses a run that cannot go well before any work: wrong conf, configuration, clips table or Beam options.

    Writes the clips table where the configuration gives another one: labels and splits change no store, so no other
    task would.
    """

    def execute(self, context: Any) -> list[str]:
        """Returns the variants to render; "" stands for the one of the configuration."""
        params = context["params"]
        self._refuse_unknown(context["dag_run"].conf or {})
        beam: list[str] = []
        if params.get("runner") == DATAFLOW:
            beam = ["--", *flags({"runner": DATAFLOW, **beam_options(params)})]
        elif params.get("beam_options"):
            raise AirflowFailException(f"beam_options: they are for runner {DATAFLOW}, found runner {LOCAL}")
        options = {"config": config_of(context)} | rejected_option(params)
        self.run_command(["clips", "check", "--write", *flags(options), *beam])
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


class PublishOperator(PerfnetOperator):
    """Emits the data set when all that training reads is up to date, and is not what training was last told of.

    What it compares with are the events themselves: a run that ends early loses nothing, the next one makes up for it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(inlets=[DATASET], outlets=[DATASET], **kwargs)

    def execute(self, context: Any) -> list[str]:
        """Returns what has changed: the clips table and stores by name."""
        config = context["params"].get("train_config") or config_of(context)
        holds = json.loads(self.run_command(["ready", "--skip_code", f"--config={config}"]))
        known = _last_told(context, config)
        changed = [name for name in holds if holds[name] != known.get(name)]
        if not changed:
            raise AirflowSkipException("nothing has changed")
        context["outlet_events"][DATASET].extra = {"config": config, "changed": changed, "holds": holds}
        return changed


def _last_told(context: Mapping[str, Any], config: str) -> Mapping[str, str]:
    """What the data set of a configuration held when it was last emitted; nothing where that is not known."""
    events = context["inlet_events"][DATASET].ascending(False).limit(_KNOWN_EVENTS)
    return next((event.extra.get("holds", {}) for event in events if event.extra.get("config") == config), {})
