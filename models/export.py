"""Trained networks for other programs: ONNX, or a program of torch.export; checked against PyTorch before they count.

The exported network takes clips as they are decoded, uint8, and holds the normalisation of its input.

Shape legend: B clips, T frames, H rows, W columns, C channels, N classes.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from models.normalisation import Normalisation, normalise
from models.options import EvaluateOptions
from stores import files
from stores.checks import StageFailed

TOLERANCE = 1e-4
"""Largest allowed difference of a logit, as a share of the largest logit: float32 sums in another order."""

SUFFIXES = (".onnx", ".pt2")
INPUT, OUTPUT = "clips", "logits"
_METADATA = "perfnet.json"


class ClipsToLogits(nn.Module):
    """uint8 [B, T, H, W, C] to logits [B, N]."""

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.network, self.normalisation = network, normalisation

    def forward(self, clips_BTHWC: Tensor) -> Tensor:
        ones_B = torch.ones(clips_BTHWC.shape[0], device=clips_BTHWC.device)
        plain = {"brightness_B": torch.zeros_like(ones_B), "contrast_B": ones_B, "scale_B": ones_B}
        return self.network(normalise(clips_BTHWC, self.normalisation, **plain))


@dataclass(frozen=True)
class Exported:
    """An exported file and how far it is from PyTorch.

    Attributes:
        shape_THWC: of the clips that it takes; any number of them at once.
        difference: the largest difference of a logit as a share of the largest logit, on random clips.
    """

    path: str
    shape_THWC: tuple[int, int, int, int]
    difference: float


def export(checkpoint: Checkpoint, path: str, *, evaluate: EvaluateOptions | None = None) -> Exported:
    """Writes a network as ONNX (.onnx) or as a program of torch.export (.pt2); labels travel as metadata.

    Args:
        evaluate: frames and size of the clips it will see; none takes those it was judged by.

    Raises:
        ValueError: another ending, or a package is missing.
        StageFailed: the file's logits differ from PyTorch's by more than TOLERANCE; nothing is written.
    """
    if not path.endswith(SUFFIXES):
        raise ValueError(
            f"--output: found {files.quoted(path)}, expected a name that ends in {' or '.join(SUFFIXES)}"
        )
    options = evaluate or checkpoint.evaluate
    channels = checkpoint.normalisation.channels
    shape = (options.frames, options.crop_height_px, options.crop_width_px, channels)
    # Contiguous: the exporters write down the memory format that they see.
    network = checkpoint.build().to(memory_format=torch.contiguous_format)
    module = ClipsToLogits(network, checkpoint.normalisation).eval()
    clips_BTHWC = _random_clips(2, shape)
    metadata = describe(replace(checkpoint, evaluate=options), shape)
    write, run = (_write_onnx, _run_onnx) if path.endswith(".onnx") else (_write_program, _run_program)
    with files.staged(path) as partial, torch.no_grad(), _quiet():
        write(module, clips_BTHWC, partial, metadata)
        others_BTHWC = _random_clips(3, shape)
        difference = _difference(run(partial, others_BTHWC), module(others_BTHWC).numpy())
        if difference > TOLERANCE:
            raise StageFailed(
                f"{files.printable(path)}: logits differ from PyTorch's by {difference:.1e} of the largest, "
                f"more than {TOLERANCE:.0e}; nothing was written"
            )
    return Exported(path, shape, difference)


def describe(checkpoint: Checkpoint, shape_THWC: tuple[int, int, int, int]) -> dict[str, Any]:
    """What using the file takes, as plain values."""
    return {
        "run": checkpoint.run,
        "stream": checkpoint.stream,
        "labels": list(checkpoint.labels),
        "input": f"uint8 [clips, frames, rows, columns, channels], each clip {list(shape_THWC)}",
        "output": "logits; their softmax are probabilities",
        "frames": checkpoint.frames,
        "stride_frames": checkpoint.evaluate.stride_frames,
    }


def _random_clips(clips: int, shape_THWC: tuple[int, ...]) -> Tensor:
    random = torch.Generator().manual_seed(clips)
    return torch.randint(0, 256, (clips, *shape_THWC), dtype=torch.uint8, generator=random)


def _difference(found_BN: NDArray[np.float32], expected_BN: NDArray[np.float32]) -> float:
    largest = max(float(np.abs(expected_BN).max()), 1e-30)
    return float(np.abs(found_BN - expected_BN).max()) / largest


def _write_onnx(module: nn.Module, clips_BTHWC: Tensor, path: str, metadata: dict[str, Any]) -> None:
    onnx = _package("onnx")
    _package("onnxscript")
    torch.onnx.export(
        module,
        (clips_BTHWC,),
        path,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("clips")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"perfnet": json.dumps(metadata, ensure_ascii=False)})
    onnx.save(model, path)


def _run_onnx(path: str, clips_BTHWC: Tensor) -> NDArray[np.float32]:
    session = _package("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {INPUT: clips_BTHWC.numpy()})
    return found


def _write_program(module: nn.Module, clips_BTHWC: Tensor, path: str, metadata: dict[str, Any]) -> None:
    program = torch.export.export(
        module, (clips_BTHWC,), dynamic_shapes=({0: torch.export.Dim("clips")},), strict=False
    )
    torch.export.save(program, path, extra_files={_METADATA: json.dumps(metadata, ensure_ascii=False)})


def _run_program(path: str, clips_BTHWC: Tensor) -> NDArray[np.float32]:
    return torch.export.load(path).module()(clips_BTHWC).numpy()


def _package(name: str) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"models export needs {error.name}: pip install -e '.[export]'") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporters' chatter from the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
