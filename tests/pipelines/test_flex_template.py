"""The metadata of the Flex Template says what its entry takes."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

from pipelines.beam_main import OURS, SWITCHES, split
from pipelines.beam_options import check_known
from pipelines.commands import prepare
from pipelines.config import load_config
from pipelines.dataflow import check_job
from pipelines.flex_template import LEFT_OUT, metadata

ROOT = Path(__file__).parents[2]
TYPED = [
    "--runner=DataflowRunner",
    "--project=p",
    "--region=europe-west4",
    "--temp_location=gs://bucket/temp",
]
IMAGE = "--sdk_container_image=europe-docker.pkg.dev/p/r/perfnet:1"


def test_the_templates_parameters_are_flags_of_its_entry() -> None:
    found = {p["name"]: p for p in metadata()["parameters"]}
    values = {
        "stage": "flow",
        "config": "gs://b/c.yaml",
        "sdk_container_image": "europe-docker.pkg.dev/p/r/i:1",
    }
    values |= {"max_rejected": "0.05", "retry_rejected": "true", "force": "false"}
    assert set(found) == set(values)
    for name, value in values.items():
        (pattern,) = found[name]["regexes"]
        assert re.fullmatch(pattern, value)
        assert not re.fullmatch(pattern, "; rm")
        assert found[name]["helpText"].endswith((".", ")"))
    stage, ours, beam = split([f"--{name}={value}" for name, value in values.items()])
    assert stage == "flow"
    assert ours == ["--config=gs://b/c.yaml", "--max_rejected=0.05", "--retry_rejected"]
    check_known(beam)
    assert set(inspect.signature(prepare).parameters) - set(LEFT_OUT) == set(found) - {"sdk_container_image"}
    assert set(found) - {"stage", "sdk_container_image"} <= {*OURS, *SWITCHES}  # or Beam would be given them


def test_what_a_job_needs_is_a_parameter_or_dataflows_own() -> None:
    required = {p["name"] for p in metadata()["parameters"] if not p["isOptional"]}
    assert required == {"stage", "config", "sdk_container_image"}
    check_job([*TYPED, IMAGE], load_config(None, {"workspace": "gs://b/w"}))


def test_the_metadata_is_what_the_command_prints() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pipelines.flex_template"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == metadata()
