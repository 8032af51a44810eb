"""A trained network as a file: weights and plain values, loaded with `weights_only=True`."""

import io
import pickle
import zipfile
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.normalisation import Normalisation
from models.options import EvaluateOptions, NetworkOptions
from models.r3d import R3D50G
from models.s3d import S3DG
from stores import files

FORMAT = 1
_NOT_IN_WEIGHTS = ("dropout", "inflate_from", "start_from")


def build_network(
    options: NetworkOptions, *, num_classes: int, in_channels: int, norm_momentum: float = 0.1
) -> nn.Module:
    """The backbone that the options describe, on the CPU, in channels_last_3d, with initial weights."""
    shape: dict[str, Any] = {
        "width": options.width,
        "blocks": options.blocks,
        "stem_kernel": options.stem_kernel,
        "gate": options.gate,
        "dropout": options.dropout,
        "norm_momentum": norm_momentum,
    }
    if options.backbone == "r3d50g":
        shape |= {"temporal_kernels": options.temporal_kernels, "temporal_pool": options.temporal_pool}
    kind = {"r3d50g": R3D50G, "s3dg": S3DG}[options.backbone]
    return kind(num_classes, in_channels, **shape).to(memory_format=torch.channels_last_3d)


@dataclass(frozen=True)
class Checkpoint:
    """Everything that using a network takes.

    Attributes:
        run: rgb, pose, flow or student.
        stream: what it looks at.
        labels: the label map.
        normalisation: of its input.
        evaluate: the central crop it is judged by.
        frames: options of the frames store it was trained on.
        key: of its training.
        weights: the network's state.
    """

    run: str
    stream: str
    labels: tuple[str, ...]
    network: NetworkOptions
    normalisation: Normalisation
    evaluate: EvaluateOptions
    frames: dict[str, Any]
    key: str
    weights: dict[str, Tensor]

    def build(self) -> nn.Module:
        """The network with its weights, in evaluation mode."""
        channels = self.normalisation.channels
        network = build_network(self.network, num_classes=len(self.labels), in_channels=channels)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ValueError(
                f"the checkpoint of run {self.run} says that its network is {self.network.backbone}, but its weights "
                "are those of another network; train it again"
            ) from error
        return network.eval()

    def transfer(self, network: nn.Module, options: NetworkOptions, *, stream: str) -> None:
        """Puts everything but the classifier into a network that is to be trained for `stream`.

        Raises:
            ValueError: the checkpoint is of another backbone, shape or kind of stream; names the difference.
        """
        refusal = f"network.start_from: the checkpoint of run {self.run}"
        if (self.stream == "flow") != (stream == "flow"):
            raise ValueError(f"{refusal} looks at {self.stream}, the run to be trained at {stream}")
        own = asdict(self.network)
        for name, wanted in asdict(options).items():
            if name not in _NOT_IN_WEIGHTS and own[name] != wanted:
                raise ValueError(f"{refusal} has network.{name} {own[name]}, the configuration {wanted}")
        body = {name: v for name, v in self.weights.items() if not name.startswith("classifier.")}
        network.load_state_dict(body, strict=False)

    def save(self, uri: str) -> None:
        """Writes the file whole."""
        content = {
            "format": FORMAT,
            "run": self.run,
            "stream": self.stream,
            "labels": list(self.labels),
            "network": asdict(replace(self.network, inflate_from=None, start_from=None)),
            "normalisation": self.normalisation.to_dict(),
            "evaluate": asdict(self.evaluate),
            "frames": self.frames,
            "key": self.key,
            "weights": {name: t.detach().cpu().contiguous() for name, t in self.weights.items()},
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        files.put_bytes(uri, buffer.getvalue())


def load_checkpoint(uri: str) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        ValueError: no such file, not a checkpoint of ours, or one of a backbone that this version does not know.
    """
    try:
        file = io.BytesIO(files.read_bytes(uri))
    except FileNotFoundError as error:
        raise ValueError(f"{files.printable(uri)} does not exist; make it with `perfnet train`") from error
    refusal = f"{files.printable(uri)} is not a checkpoint of perfnet"
    if not zipfile.is_zipfile(file):
        raise ValueError(refusal)
    file.seek(0)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, LookupError, ValueError, EOFError) as error:
        raise ValueError(f"{refusal} ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise ValueError(f"{files.printable(uri)}: checkpoint format {found!r}, this version reads {FORMAT}")
    try:
        return _parse(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{files.printable(uri)} does not fit this version: {error}") from error


def _parse(content: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        run=content["run"],
        stream=content["stream"],
        labels=tuple(content["labels"]),
        network=NetworkOptions(**content["network"]),
        normalisation=Normalisation.from_dict(content["normalisation"]),
        evaluate=EvaluateOptions(**content["evaluate"]),
        frames=dict(content["frames"]),
        key=content["key"],
        weights=content["weights"],
    )
