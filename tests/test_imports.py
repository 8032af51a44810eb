"""The import law: each room knows only what it may, and light things stay light."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("pipelines", "transforms", "stores", "models")
ALLOWED = {
    "stores": {"stores"},
    "transforms": {"transforms", "stores"},
    "models": {"models", "transforms", "stores"},
    "pipelines": set(ROOMS),
    "dags": set(),
}
HEAVY = {"apache_beam", "tensorflow", "torch", "pytorch_lightning", "cv2", "mediapipe", "av", "numba"}
BEAM_IN_TRANSFORMS = {"transforms/shards.py"}


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("room", [r for r in ALLOWED if any((ROOT / r).glob("*.py"))])
def test_rooms_import_one_way(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        other_rooms = imports(path) & {*ROOMS, "dags"}
        assert other_rooms <= ALLOWED[room], path


TFRECORD_IN_STORES = {"stores/tfrecord.py", "stores/sequence_example.py"}


def test_stores_know_three_libraries_and_tfrecord_two_more() -> None:
    for path in (ROOT / "stores").rglob("*.py"):
        foreign = {name for name in imports(path) if name not in sys.stdlib_module_names and name != "stores"}
        more = {"google", "google_crc32c"} if str(path.relative_to(ROOT)) in TFRECORD_IN_STORES else set()
        assert foreign <= {"numpy", "pyarrow", "fsspec"} | more, path


def test_beam_stays_in_its_rooms() -> None:
    for room in ("stores", "models", "transforms"):
        for path in (ROOT / room).rglob("*.py"):
            if str(path.relative_to(ROOT)) not in BEAM_IN_TRANSFORMS:
                assert "apache_beam" not in imports(path), path


def test_models_use_kernels_only() -> None:
    for path in (ROOT / "models").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("transforms.shards", "transforms.update"), path


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(m for m in sys.modules if '.' not in m))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import pipelines.cli, pipelines.commands, pipelines.config, pipelines.chain",
        "import stores.reader, stores.plan, stores.commit",
        "import transforms.options, transforms.stage, transforms.update",
        "import models.options, models.runs, models.predictions",
    ],
)
def test_light_modules_load_no_framework(statement: str) -> None:
    assert not loaded_by(statement) & HEAVY


@pytest.mark.parametrize("module", ["models.train", "models.predict", "transforms.decode", "transforms.flow"])
def test_models_and_kernels_never_load_beam(module: str) -> None:
    assert "apache_beam" not in loaded_by(f"import {module}")


def test_our_names_are_ours() -> None:
    """Nobody else's package in the environment is called pipelines, transforms, stores or models."""
    owners = packages_distributions()
    for room in ROOMS:
        assert set(owners.get(room, ["perfnet"])) == {"perfnet"}


def test_help_loads_no_library_of_arrays_or_object_stores() -> None:
    """`perfnet --help` answers at once."""
    loaded = loaded_by("import pipelines.cli, pipelines.commands")
    assert not loaded & {"numpy", "pyarrow", "fsspec", "jsonargparse", "pandas"}
