"""Performs the Python steps of a Dockerfile's target in a clean virtual environment, where no Docker is.

    python tests/dockerfile_steps.py [target]        default: worker; downloads one to two gigabytes

Everything else (apt-get, files of other images, users) is printed as left out. Ends with the size of the environment.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: `RUN` and its text, with continued lines joined."""

    name: str
    text: str


def instructions(dockerfile: str) -> Iterator[Instruction]:
    """All instructions in order, without comments."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, text = line.strip().partition(" ")
            yield Instruction(name.upper(), " ".join(text.split()))


def stages(dockerfile: str) -> dict[str, tuple[str, list[Instruction]]]:
    """Stage → what it starts from, and its instructions. ARGs before the first FROM are the stage ""."""
    found: dict[str, tuple[str, list[Instruction]]] = {"": ("", [])}
    name = ""
    for instruction in instructions(dockerfile):
        if instruction.name == "FROM":
            image, _, name = instruction.text.partition(" AS ")
            found[name] = (image, [])
        else:
            found[name][1].append(instruction)
    return found


def steps(dockerfile: str, target: str) -> list[Instruction]:
    """What is done for a target, also in the stages that it starts from and copies its environment from."""
    known = stages(dockerfile)
    done: list[str] = []

    def visit(stage: str) -> None:
        if stage not in known or stage in done:
            return
        image, own = known[stage]
        visit(image)
        for instruction in own:
            if found := re.match(r"--from=(build\S*)", instruction.text):
                visit(found[1])
        done.append(stage)

    visit(target)
    return [instruction for stage in done for instruction in known[stage][1]]


def defaults(dockerfile: str) -> dict[str, str]:
    """The ARGs at the top of the file."""
    return dict(i.text.split("=", 1) for i in stages(dockerfile)[""][1] if i.name == "ARG")  # type: ignore[misc]


def perform(target: str, folder: Path) -> None:
    """Runs the steps in `folder`, with the virtual environment below it."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    sources, venv, commands = folder / "src", folder / "venv", folder / "bin"
    sources.mkdir()
    commands.mkdir()
    (commands / "python").symlink_to(sys.executable)
    clean = {
        name: value
        for name, value in os.environ.items()
        if name in ("HOME", "PIP_INDEX_URL", "PIP_CONFIG_FILE")
    }
    environment = clean | defaults(dockerfile) | {"VENV": str(venv)}
    environment["PATH"] = f"{venv}/bin:{commands}:/usr/bin:/bin"
    for step in steps(dockerfile, target):
        if step.name == "COPY" and not step.text.startswith("--from"):
            *names, _ = step.text.split()
            for name in names:
                copy(ROOT / name, sources / name)
        elif step.name == "RUN" and re.match(r"if |device=|pip |python |mkdir models", step.text):
            print(f"RUN {step.text}", flush=True)
            where = sources if "pip" in step.text or "mkdir" in step.text or "venv" in step.text else folder
            subprocess.run(["/bin/sh", "-e", "-c", step.text], cwd=where, env=environment, check=True)
        else:
            print(f"left out: {step.name} {step.text[:90]}", flush=True)
    size = subprocess.run(
        ["du", "-sm", str(venv)], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    print(f"{target}: all Python steps done, the environment has {size} MB")


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="dockerfile-") as temporary:
        perform(sys.argv[1] if len(sys.argv) > 1 else "worker", Path(temporary))
