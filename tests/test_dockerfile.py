"""The Dockerfile says the versions of the lock, the libraries of the check, and passes a linter."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfile_steps import ROOT, Instruction, defaults, instructions, stages, steps

from pipelines.system_libraries import PACKAGE_OF

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LOCK = dict(
    line.split("==")
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if re.match(r"[\w.-]+==", line)
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_python_and_beam_are_those_of_the_lock() -> None:
    given = defaults(TEXT)
    assert given["BEAM"] == LOCK["apache-beam"]
    assert PROJECT["project"]["requires-python"].startswith(f">={given['PYTHON']},")
    assert given["PYTHON"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert stages(TEXT)["beam"][0] == "apache/beam_python${PYTHON}_sdk:${BEAM}"


def test_system_libraries_are_those_that_perfnet_asks_for() -> None:
    (run,) = [i.text for i in stages(TEXT)["base"][1] if "apt-get" in i.text]
    found = run.split("--no-install-recommends ")[1].split(" &&")[0].split()
    assert found == sorted(PACKAGE_OF.values())


def test_all_that_is_packaged_is_copied() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for target in ("build-worker", "build-train"):
        copied = {name for i in steps(TEXT, target) if i.name == "COPY" for name in i.text.split()[:-1]}
        assert copied >= set(PROJECT["tool"]["setuptools"]["packages"]), target
        assert {f"!{name}" for name in copied} <= set(ignored)
        assert all((ROOT / name).exists() for name in copied)


def test_dependencies_are_checked_in_every_environment() -> None:
    for target in ("build-worker", "build-train"):
        runs = [i.text for i in stages(TEXT)[target][1] if i.name == "RUN"]
        assert runs[-1].endswith("pip check")
        assert any("--constraint requirements.lock" in run for run in runs)


@pytest.mark.parametrize(
    ("target", "user", "starts"),
    [
        ("worker", None, "/opt/apache/beam/boot"),
        ("template", None, "/opt/apache/beam/boot"),  # it is the image of its job's workers, too
        ("launcher", "1000", "perfnet"),
        ("train", "1000", "perfnet"),
    ],
)
def test_who_runs_what(target: str, user: str | None, starts: str) -> None:
    """Dataflow mounts folders of root's into workers; everything else needs none."""
    done = steps(TEXT, target)
    assert [i.text for i in done if i.name == "USER"] == ([user] if user else [])
    assert [i.text for i in done if i.name == "ENTRYPOINT"][-1] == f'["{starts}"]'


def test_workers_use_the_environment_that_was_built() -> None:
    """Beam's boot would otherwise make one of its own that does not see ours."""
    found = {i.text for i in steps(TEXT, "worker")}
    assert "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1" in found
    assert "--from=beam /opt/apache/beam /opt/apache/beam" in found
    assert "--from=build-worker $VENV $VENV" in found


def test_every_instruction_has_its_reason() -> None:
    """Above it, above the first of several of one kind, or where the same instruction stands earlier in the file."""
    lines = TEXT.splitlines()
    explained: set[str] = set()
    for number, line in enumerate(lines):
        if not re.match(r"[A-Z]+ ", line):
            continue
        above = lines[number - 1]
        together = above.startswith(f"{line.split()[0]} ") and above in explained
        assert above.startswith("# ") or together or line in explained, line
        explained.add(line)
    assert {line.split()[0] for line in explained} == {i.name for i in instructions(TEXT)}


def test_hadolint_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    found = linter if linter.exists() else shutil.which("hadolint")
    assert found, "hadolint is missing: pip install -e '.[dev]'"
    run = subprocess.run([str(found), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert run.stdout + run.stderr == ""


def test_instructions_are_read_as_docker_reads_them() -> None:
    text = "# a\nFROM x AS build-z\nRUN c\nFROM x AS y\nRUN a \\\n    # why\n    && b\nCOPY --from=build-z /v /v\n"
    assert list(instructions(text))[3] == Instruction("RUN", "a && b")
    assert [i.text for i in steps(text, "y")] == ["c", "a && b", "--from=build-z /v /v"]
