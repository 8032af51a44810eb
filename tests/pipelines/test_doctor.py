"""perfnet doctor: what is broken on a machine is named, with what it is needed for."""

import json
import os
import shutil
import time
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import cli, doctor, system_libraries
from pipelines.config import load_config

DECLARED = [
    "numpy<3,>=2.1",
    'apache-beam>=2.70; extra == "beam"',
    'torch>=2.6; extra == "train"',
    'matplotlib>=3; extra == "report"',
    'pytest; extra == "dev"',
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The versions that seem to be installed, to be changed by a test."""
    found = {"numpy": "2.4.6", "apache-beam": "2.77.0", "torch": "2.13.0+cpu", "matplotlib": "3.11.2"}

    def version(package: str) -> str:
        if package not in found:
            raise metadata.PackageNotFoundError(package)
        return found[package]

    monkeypatch.setattr(metadata, "requires", lambda package: DECLARED)
    monkeypatch.setattr(metadata, "version", version)
    return found


def libraries(*needs: str) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor._libraries(needs)}


def test_every_extra_has_a_purpose() -> None:
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert set(extras) - {"dev"} == set(doctor.PURPOSES) - {"base"}


def test_whole_libraries_are_ok(installed: dict[str, str]) -> None:
    found = libraries("base", "beam", "train")
    assert {name: check.state for name, check in found.items()} == dict.fromkeys(
        ("libraries", "libraries [beam]", "libraries [train]", "libraries [report]"), "ok"
    )
    assert found["libraries [train]"].found == "torch 2.13.0+cpu"


def test_missing_old_and_unneeded_libraries_are_told_apart(installed: dict[str, str]) -> None:
    del installed["torch"], installed["matplotlib"]
    installed["numpy"] = "1.26.0"
    found = libraries("base", "beam", "train")
    assert found["libraries"].state == "missing"
    assert found["libraries"].found == "numpy is 1.26.0, expected <3,>=2.1"
    assert found["libraries [train]"].state == "missing"
    assert (
        found["libraries [train]"].cure == "needed for train, evaluate and predict: pip install -e '.[train]'"
    )
    assert (found["libraries [report]"].state, found["libraries [report]"].found) == (
        "note",
        "not installed: matplotlib",
    )
    assert libraries("base", "report")["libraries [train]"].state == "note"


def test_two_wheels_of_one_library_are_seen(installed: dict[str, str]) -> None:
    installed |= {"opencv-contrib-python": "5.0", "opencv-python": "4.9"}
    (check,) = doctor._rivals()
    assert (check.state, check.found) == ("missing", "opencv-python 4.9 is installed beside it")


def test_a_check_that_breaks_is_one_line_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> None:
        raise ImportError("libGL.so.1: cannot open\x1b[2J shared object file\nat line 3")

    monkeypatch.setattr(doctor, "_machine", breaks)
    checks = {check.name: check for check in doctor.examine(load_config(None))}
    assert checks["machine"].state == "missing"
    assert checks["machine"].found == "ImportError: at line 3"
    assert checks["disk"].state in ("ok", "note")


def test_this_installation_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """The environment of the tests has all that the chain needs, OpenCV with TV-L1 among it."""
    assert cli.run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert found["ok"] is True
    assert states["OpenCV"] == states["video codecs"] == states["system libraries"] == "ok"
    assert not [check for check in found["checks"] if check["state"] != "ok" and not check["cure"]]


def test_what_is_missing_fails_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(system_libraries.PACKAGE_OF, "libperfnet-absent.so.1", "libperfnet1")
    assert cli.run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "missing  system libraries" in out
    assert "on Debian: apt-get install libperfnet1" in out


def test_a_pose_model_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (named,) = doctor._pose_model(load_config(None, {"pose.model": str(tmp_path / "none.task")}))
    assert (named.state, named.found) == ("missing", f"pose.model: {tmp_path}/none.task does not exist")
    monkeypatch.setenv("PERFNET_CACHE", str(tmp_path))
    (movenet,) = doctor._pose_model(load_config(None, {"pose.backend": "movenet"}))
    assert (movenet.state, movenet.cure) == ("missing", "with a network: perfnet models fetch movenet")
    (blazepose,) = doctor._pose_model(load_config(None))
    assert blazepose.state == "note"
    assert blazepose.cure.startswith("fetched at first use")


def test_little_disk_and_memory_are_worth_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, {"workspace": str(tmp_path / "not" / "yet")})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(2e9)))
    (disk,) = doctor._disk(config)
    assert (disk.state, disk.found.split(" for ")[0]) == ("note", "2.0 GB free")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(doctor, "_memory_bytes", lambda: int(3.9e9))
    (machine,) = doctor._machine()
    assert (machine.state, machine.found) == ("note", "8 cores, 3.9 GB of memory")
    assert machine.cure.endswith("give run --workers 3")


def test_an_object_store_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_GCS_TIMEOUT_S", 0.1)
    monkeypatch.setattr(doctor.files, "list_names", lambda uri: time.sleep(3))
    began = time.monotonic()
    (check,) = doctor._object_store(load_config(None), "gs://bucket")
    assert time.monotonic() - began < 2
    assert (check.state, check.found) == ("missing", "gs://bucket: no answer within 0 s")


def test_an_object_store_is_listed_where_the_workspace_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(doctor.files, "list_names", lambda uri: asked.append(uri))
    (check,) = doctor._object_store(load_config(None, {"workspace": "gs://bucket/w"}), None)
    assert (check.state, asked) == ("ok", ["gs://bucket/w"])

    def refuse(uri: str) -> None:
        raise PermissionError("403 no\naccess")

    monkeypatch.setattr(doctor.files, "list_names", refuse)
    (refused,) = doctor._object_store(load_config(None), "gs://bucket")
    assert (refused.state, refused.found) == ("missing", "gs://bucket: 403 no")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--needs", "trian"], "--needs: found 'trian', expected some of base, beam, train, report"),
        (["--gcs", "s3://x"], "--gcs: found 's3://x', expected a gs:// address"),
    ],
)
def test_wrong_uses(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert cli.run(["doctor", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"perfnet: {message}")
