"""What perfnet finds on this machine, what is missing, and what for."""

import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from pipelines.config import Config
from pipelines.system_libraries import complaint
from pipelines.units import size
from stores import files

PURPOSES = {
    "base": "all commands",
    "beam": "run and prepare",
    "train": "train, evaluate and predict",
    "report": "report and look",
    "export": "models export",
    "demo": "the sample videos of demo",
    "gcp": "gs:// and Dataflow",
    "airflow": "the DAGs",
    "score": "pose-score",
}
"""Extra → what it is for. The first three are what `doctor` insists on unless told otherwise."""
NEEDED = ("base", "beam", "train")

# Two wheels of one library overwrite each other's files, and which one wins is luck.
_RIVALS = {
    "opencv-contrib-python": (
        "opencv-python",
        "opencv-python-headless",
        "opencv-contrib-python-headless",
    ),
    "tensorflow": ("tensorflow-cpu",),
}
_CODECS = ("h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "mjpeg")
_CREDENTIALS = "~/.config/gcloud/application_default_credentials.json"
_GCS_TIMEOUT_S = 15.0
_LITTLE_DISK_BYTES = 5e9
_LITTLE_MEMORY_BYTES = 1e9

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        state: ok; note is worth knowing; missing fails the examination.
        found: in words.
        cure: what to do about it; "" where nothing is wrong.
    """

    name: str
    state: State
    found: str
    cure: str = ""


def examine(config: Config, *, needs: Sequence[str] = NEEDED, gcs: str | None = None) -> list[Check]:
    """Looks at everything; a check that breaks is reported as missing and the others go on.

    Args:
        needs: extras that must be whole; the others are notes.
        gcs: gs:// address to try; None tries the workspace where it is one.

    Raises:
        ValueError: an unknown extra, or an address that is not gs://.
    """
    for extra in needs:
        if extra not in PURPOSES:
            raise ValueError(f"--needs: found {files.quoted(extra)}, expected some of {', '.join(PURPOSES)}")
    if gcs is not None and not gcs.startswith("gs://"):
        raise ValueError(f"--gcs: found {files.quoted(gcs)}, expected a gs:// address")
    looks: dict[str, Callable[[], Iterator[Check]]] = {
        "Python": _python,
        "libraries": lambda: _libraries(needs),
        "rival wheels": _rivals,
        "system libraries": _system_libraries,
        "OpenCV": lambda: _tvl1(config, "beam" in needs),
        "video codecs": lambda: _codecs("beam" in needs),
        "pose model": lambda: _pose_model(config),
        "machine": _machine,
        "GPU": _gpu,
        "disk": lambda: _disk(config),
        "gs://": lambda: _object_store(config, gcs),
    }
    return [check for name, look in looks.items() for check in _guarded(name, look)]


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001  a broken library may raise anything at import
        last = (str(error).strip().splitlines() or [""])[-1]
        yield Check(name, "missing", f"{type(error).__name__}: {files.printable(last)}", "reinstall perfnet")


def _python() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    right = sys.version_info[:2] == (3, 11)
    yield Check("Python", "ok" if right else "missing", version, "" if right else "install Python 3.11")


def _libraries(needs: Sequence[str]) -> Iterator[Check]:
    """One line an extra: its libraries with their versions, or which are missing or too old or new."""
    try:
        declared = [Requirement(text) for text in metadata.requires("perfnet") or ()]
    except metadata.PackageNotFoundError:
        yield Check("perfnet", "missing", "not installed", "pip install --editable . in the checkout")
        return
    for extra, purpose in PURPOSES.items():
        wanted = [r for r in declared if _extra_of(r) == extra]
        if not wanted:
            continue
        wrong = _wrong(wanted)
        name = "libraries" if extra == "base" else f"libraries [{extra}]"
        if not wrong:
            yield Check(name, "ok", ", ".join(f"{r.name} {_version(r.name)}" for r in wanted))
            continue
        install = "." if extra == "base" else f".[{extra}]"
        state: State = "missing" if extra in needs else "note"
        yield Check(name, state, "; ".join(wrong), f"needed for {purpose}: pip install -e '{install}'")


def _extra_of(requirement: Requirement) -> str:
    found = re.search(r'extra == "([^"]+)"', str(requirement.marker or ""))
    return found[1] if found else "base"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _wrong(wanted: Sequence[Requirement]) -> list[str]:
    """What is missing, too old or too new, in words."""
    versions = {r.name: _version(r.name) for r in wanted}
    absent = [name for name, version in versions.items() if version is None]
    unfit = [
        f"{r.name} is {versions[r.name]}, expected {r.specifier}"
        for r in wanted
        if r.name not in absent and not r.specifier.contains(str(versions[r.name]), prereleases=True)
    ]
    return [*([f"not installed: {', '.join(absent)}"] if absent else []), *unfit]


def _rivals() -> Iterator[Check]:
    for package, rivals in _RIVALS.items():
        for rival in rivals:
            if _version(rival) and _version(package):
                cure = f"pip uninstall {rival} {package}, then pip install {package}"
                yield Check(package, "missing", f"{rival} {_version(rival)} is installed beside it", cure)


def _system_libraries() -> Iterator[Check]:
    problem = complaint()
    if problem:
        yield Check("system libraries", "missing", problem, "needed for run, prepare, status and predict")
    else:
        yield Check("system libraries", "ok", "all that OpenCV and MediaPipe load")


def _tvl1(config: Config, needed: bool) -> Iterator[Check]:
    """OpenCV's TV-L1 is only in the contrib wheel; the other back ends do without."""
    if _version("opencv-contrib-python") is None:
        return  # said of the libraries already
    import cv2

    there = hasattr(cv2, "optflow") and hasattr(cv2.optflow, "DualTVL1OpticalFlow_create")
    found = f"{cv2.__version__}, {'with' if there else 'without'} TV-L1"
    wanted = needed and config.flow.backend == "opencv"
    state: State = "ok" if there else "missing" if wanted else "note"
    cure = "" if there else "needed for flow.backend opencv: pip install opencv-contrib-python"
    yield Check("OpenCV", state, found, cure)


def _codecs(needed: bool) -> Iterator[Check]:
    if _version("av") is None:
        return
    import av
    from av.codec import Codec

    def has(name: str, mode: Literal["r", "w"]) -> bool:
        try:
            return bool(Codec(name, mode))
        except ValueError:
            return False

    lacking = [name for name in _CODECS if not has(name, "r")]
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    found = f"libavcodec {ffmpeg} reads {', '.join(n for n in _CODECS if n not in lacking)}"
    state: State = "ok" if not lacking else "missing" if needed and "h264" in lacking else "note"
    cure = f"videos in {', '.join(lacking)} are rejected; reinstall av" if lacking else ""
    yield Check("video codecs", state, found, cure)
    if not has("libx264", "w"):
        yield Check(
            "video encoder", "note", "no libx264", "needed for preview to MP4 and for demo: reinstall av"
        )


def _pose_model(config: Config) -> Iterator[Check]:
    if config.pose.backend == "file":
        return
    fetch = "movenet" if config.pose.backend == "movenet" else "blazepose"
    path = Path(config.pose.model) if config.pose.model else _known_model(fetch)
    if path.exists():
        yield Check("pose model", "ok", f"{files.printable(str(path))}")
    elif config.pose.model:
        yield Check("pose model", "missing", f"pose.model: {files.printable(str(path))} does not exist")
    else:
        # The one is fetched by whoever needs it first, the other by command only.
        at_first_use = fetch == "blazepose"
        cure = f"{'fetched at first use; now, ' if at_first_use else ''}with a network: perfnet models fetch {fetch}"
        found = f"{fetch} is not in the cache {files.printable(str(path.parent))}"
        yield Check("pose model", "note" if at_first_use else "missing", found, cure)


def _known_model(name: str) -> Path:
    from transforms import movenet_model, pose_model

    file = movenet_model.ARCHIVE_NAME if name == "movenet" else pose_model.BUNDLE_NAME
    return pose_model.cache_folder() / file


def _machine() -> Iterator[Check]:
    cores, memory_bytes = len(os.sched_getaffinity(0)), _memory_bytes()
    found = f"{cores} core{'s' if cores > 1 else ''}, {size(memory_bytes)} of memory"
    fits = max(1, int(memory_bytes / _LITTLE_MEMORY_BYTES))
    if fits < cores:
        cure = f"less than {size(_LITTLE_MEMORY_BYTES)} a core: give run --workers {fits}"
        yield Check("machine", "note", found, cure)
    else:
        yield Check("machine", "ok", found)


def _memory_bytes() -> int:
    """What this process may use: the machine's memory, or the container's limit where that is less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def _gpu() -> Iterator[Check]:
    if _version("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Check("GPU", "ok", f"{', '.join(names)}, CUDA {torch.version.cuda}")
    else:
        yield Check(
            "GPU", "note", f"none that torch {torch.__version__} can use", "networks train on the CPU"
        )


def _disk(config: Config) -> Iterator[Check]:
    if not files.is_local(config.workspace):
        return
    path = Path(files.local_path(config.workspace)).absolute()
    while not path.exists():
        path = path.parent
    free_bytes = shutil.disk_usage(path).free
    found = f"{size(free_bytes)} free for the workspace {files.printable(config.workspace)}"
    little = free_bytes < _LITTLE_DISK_BYTES
    yield Check("disk", "note" if little else "ok", found, "little for stores of videos" if little else "")


def _object_store(config: Config, gcs: str | None) -> Iterator[Check]:
    """Lists the address that was named; credentials alone are only mentioned."""
    uri = gcs or (None if files.is_local(config.workspace) else config.workspace)
    if uri is None:
        found = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or os.path.expanduser(_CREDENTIALS)
        if os.path.exists(found):
            yield Check(
                "gs://", "note", f"credentials in {found}, not tried", "perfnet doctor --gcs gs://BUCKET"
            )
        return
    problems: list[str] = []

    def look() -> None:
        try:
            files.list_names(uri)
        except Exception as error:  # noqa: BLE001  whatever the library says is the answer
            problems.append((str(error).strip().splitlines() or [type(error).__name__])[0])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(_GCS_TIMEOUT_S)
    if thread.is_alive():
        problems.append(f"no answer within {_GCS_TIMEOUT_S:.0f} s")
    if problems:
        cure = (
            "needed for a workspace on gs://: gcloud auth application-default login, and access to the bucket"
        )
        yield Check("gs://", "missing", f"{files.printable(uri)}: {files.printable(problems[0])}", cure)
    else:
        yield Check("gs://", "ok", f"{files.printable(uri)} can be listed")
