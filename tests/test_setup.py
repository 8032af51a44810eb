"""The package that Beam's --setup_file sends to workers: our four rooms, and what workers depend on."""

import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from dockerfile_steps import ROOT, copy


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as Beam builds it, in a copy, and unpacked."""
    folder = tmp_path_factory.mktemp("project")
    names = ["pyproject.toml", "setup.py", "requirements.lock", "README.md", "LICENSE"]
    for name in [*names, "models", "pipelines", "stores", "transforms", "tests"]:
        copy(ROOT / name, folder / name)
    command = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(folder / "dist")]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (archive,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    (root,) = (folder / "unpacked").iterdir()
    return root


def test_workers_get_what_stages_import(sdist: Path) -> None:
    project = tomllib.loads((sdist / "pyproject.toml").read_text())["project"]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {name.split("==")[0] for name in project["dependencies"]}
    assert found >= {
        "apache-beam[gcp]",
        "av",
        "gcsfs",
        "mediapipe",
        "numba",
        "opencv-contrib-python",
        "simplejpeg",
    }
    assert "torch" not in found
    assert len(project["dependencies"]) >= len(ours["dependencies"])
    assert project["optional-dependencies"] == ours["optional-dependencies"]


def test_versions_are_those_of_the_lock(sdist: Path) -> None:
    lock = set((ROOT / "requirements.lock").read_text().splitlines())
    project = tomllib.loads((sdist / "pyproject.toml").read_text())["project"]
    assert {name.replace("[gcp]", "").replace("[signatures]", "") for name in project["dependencies"]} <= lock


def test_only_our_rooms_are_sent(sdist: Path) -> None:
    folders = {path.name for path in sdist.iterdir() if path.is_dir()}
    assert folders - {"perfnet.egg-info"} == {"models", "pipelines", "stores", "transforms"}
    assert (sdist / "transforms" / "shards.py").exists()
