import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from transforms import pose_model


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERFNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERFNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert pose_model.cache_folder() == Path("/x/perfnet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert pose_model.cache_folder() == Path("/h/.cache/perfnet")
    monkeypatch.setenv("PERFNET_CACHE", "/own")
    assert pose_model.cache_folder() == Path("/own")


def test_offline_without_cache_says_which_file_to_put_where(empty_cache: Path, offline: None) -> None:
    with pytest.raises(ValueError, match="cannot be fetched") as error:
        pose_model.default_model_path()
    message = str(error.value)
    assert "\n" not in message
    assert f"put {pose_model.WHEEL} from PyPI into {empty_cache}" in message
    assert "--pose.model PATH" in message


def test_bundle_is_the_same_to_the_byte_and_aligned(pose_bundle: Path) -> None:
    content = pose_bundle.read_bytes()
    assert hashlib.sha256(content).hexdigest() == pose_model.BUNDLE_SHA256
    with zipfile.ZipFile(pose_bundle) as archive:
        assert archive.namelist() == ["pose_detector.tflite", "pose_landmarks_detector.tflite"]
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            start = content.index(archive.read(info))
            assert start % 4 == 0


def test_warm_cache_needs_no_network(pose_bundle: Path, offline: None) -> None:
    assert pose_model.default_model_path() == pose_bundle


def test_damaged_cache_is_not_used(empty_cache: Path, offline: None) -> None:
    empty_cache.mkdir()
    (empty_cache / pose_model.BUNDLE_NAME).write_bytes(b"half a download")
    with pytest.raises(ValueError, match="is not in the cache"):
        pose_model.default_model_path()


def _wheel_with(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member, _, _, _ in pose_model.PARTS.values():
            archive.writestr(member, content)
    return path


def test_a_part_with_another_digest_is_refused(empty_cache: Path) -> None:
    empty_cache.mkdir()
    _wheel_with(empty_cache / pose_model.WHEEL, b"something else")
    with pytest.raises(ValueError, match=r"pose_detection.tflite has sha256 \w+, expected 9ba9dd3d"):
        pose_model.default_model_path()
    (empty_cache / pose_model.WHEEL).write_bytes(b"no zip at all")
    with pytest.raises(ValueError, match="not the wheel"):
        pose_model.default_model_path()
    assert not (empty_cache / pose_model.BUNDLE_NAME).exists()


def test_wheel_is_fetched_by_pip_and_a_failure_is_told_by_its_last_error(tmp_path: Path) -> None:
    calls = []

    def pip(command: list[str], **kwargs: object) -> SimpleNamespace:
        calls.append(command)
        return SimpleNamespace(
            returncode=1, stderr="noise\nERROR: one\nERROR: No matching distribution\nnoise"
        )

    with pytest.raises(ValueError, match=r"\(ERROR: No matching distribution\)"):
        pose_model._fetch_wheel(tmp_path, tmp_path / "cache", run=pip)
    assert calls[0][:5] == [sys.executable, "-m", "pip", "download", "mediapipe==0.10.21"]
    assert "--no-deps" in calls[0]


def test_aligned_zip_keeps_content(tmp_path: Path) -> None:
    files = {"a": b"1", "longer name": b"22" * 50, "c": b""}
    path = tmp_path / "x.zip"
    path.write_bytes(pose_model.aligned_zip(files))
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    assert pose_model.aligned_zip(files) == path.read_bytes()


def test_model_sha256_names_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"abc")
    assert pose_model.model_sha256(path) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(ValueError, match=r"pose.model: found .*none.*cannot be read"):
        pose_model.model_sha256(tmp_path / "none")


def test_importing_mediapipe_leaves_tensorflow_out_and_importable() -> None:
    code = (
        "import sys\n"
        "from transforms.pose_model import tensorflow_kept_out\n"
        "with tensorflow_kept_out():\n"
        "    from mediapipe.tasks.python import vision\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_profiler_of_mediapipe_runs_beside_us(pose_bundle: Path) -> None:
    """Its timers send SIGPROF, which ends a process that does not expect it."""
    code = (
        "import sys\n"
        "from transforms.pose_mediapipe import MediapipeEstimator\n"
        "MediapipeEstimator(sys.argv[1], max_people=2, min_person_score=0.3, min_keypoint_score=0.3)\n"
        "lines = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "used = [name for name in ('SigIgn', 'SigCgt') if int(lines[name], 16) >> 26 & 1]\n"
        "assert not used, used\n"
    )
    subprocess.run([sys.executable, "-c", code, str(pose_bundle)], check=True, timeout=120)
