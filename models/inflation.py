"""Weights of a 2D image network as the start of a 3D one (Carreira and Zisserman 2017).

A 2D kernel is repeated along time and divided by the number of frames it then spans: on a video that stands still,
the 3D network gives the features of the 2D network, away from the clip's two ends, where padding is no frame.

Shape legend: O output channels, I input channels, T frames, H rows, W columns.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.gates import FeatureGate
from models.normalisation import IMAGENET, PIXELS, Normalisation
from stores import files

# Gates start open rather than half closed: behind them stand statistics of the 2D network, which had none.
OPEN_GATE_BIAS = 4.0

_RESNET_LAYERS = {"1": "reduce", "2": "spatial", "3": "expand"}
_INCEPTION_STEM = {"conv1": "conv_1a", "conv2": "conv_2b", "conv3": "conv_2c"}
_KINDS = {"conv": "0", "bn": "1"}
# Whose inputs the published weights of the two networks were trained on.
_NORMALISATIONS = {"r3d50g": IMAGENET, "s3dg": PIXELS}


@dataclass(frozen=True)
class InflationReport:
    """What became of a file of 2D weights.

    Attributes:
        used: tensors of the file that went into the network.
        left_over: tensors of the file that it has no place for, the 2D classifier among them.
        untouched: tensors of the network that keep their own initial values.
    """

    used: tuple[str, ...]
    left_over: tuple[str, ...]
    untouched: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{len(self.used)} tensors inflated, {_named('not used', self.left_over)}, "
            f"{_named('left at their initial values', self.untouched)}"
        )


def _named(what: str, names: tuple[str, ...]) -> str:
    stems = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in names))
    more = ", …" if len(stems) > 4 else ""
    return f"{len(names)} {what}" + (
        f" ({', '.join(map(files.printable, stems[:4]))}{more})" if stems else ""
    )


def inflate(network: nn.Module, uri: str, *, backbone: str) -> InflationReport:
    """Puts the 2D weights of a file into a 3D network of the same backbone.

    Args:
        network: R3D50G for `backbone` r3d50g, S3DG for s3dg.
        uri: file of a state dict: a ResNet-50 as torchvision and timm name its layers, or torchvision's GoogLeNet.

    Raises:
        ValueError: no such file, not a file of weights, another architecture, or another width or depth.
    """
    weights = read_weights(uri)
    own, moved, left_over = network.state_dict(), {}, []
    for name, value in weights.items():
        target = resnet_name(name) if backbone == "r3d50g" else inception_name(name)
        if target not in own:
            left_over.append(name)
            continue
        moved[target] = _inflated(name, value, own[target], uri)
    untouched = [n for n in own if n not in moved and not n.endswith("num_batches_tracked")]
    odd = [name for name in untouched if not re.search(r"classifier|gate|project|\.3\.(weight|bias)$", name)]
    if odd:
        raise ValueError(
            f"network.inflate_from: {files.printable(uri)} has nothing for {len(odd)} layers of {backbone}, "
            f"the first is {odd[0]}; it must be a 2D {_WANTED[backbone]}, and network.blocks at most the paper's"
        )
    network.load_state_dict(moved, strict=False)
    for module in network.modules():
        if isinstance(module, FeatureGate):
            nn.init.zeros_(module.project.weight)
            nn.init.constant_(module.project.bias, OPEN_GATE_BIAS)
    return InflationReport(
        tuple(n for n in weights if n not in left_over), tuple(left_over), tuple(untouched)
    )


_WANTED = {"r3d50g": "ResNet-50 of torchvision or timm", "s3dg": "GoogLeNet (Inception-v1) of torchvision"}


def read_weights(uri: str) -> dict[str, Tensor]:
    """The tensors of a file of weights, plain or under the key `state_dict`; nothing else is unpickled.

    Raises:
        ValueError: no such file, or something else in it.
    """
    refusal = f"network.inflate_from: {files.printable(uri)}"
    try:
        content = torch.load(files.local_path(uri), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{refusal} does not exist") from error
    except (pickle.UnpicklingError, RuntimeError, LookupError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{refusal} is no file of weights ({type(error).__name__})") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = isinstance(content, Mapping) and all(isinstance(v, Tensor) for v in content.values())
    if not tensors or not content:
        raise ValueError(f"{refusal} holds no weights by name")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def resnet_name(name: str) -> str:
    """R3D50-G's name of a tensor of ResNet-50; itself where there is none: fc is not used."""
    if stem := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"stem.{_KINDS[stem[1]]}.{stem[2]}"
    if layer := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn)([123])\.(\w+)", name):
        stage, cell, kind, number, what = layer.groups()
        return f"res{int(stage) + 1}.{cell}.{_RESNET_LAYERS[number]}.{_KINDS[kind]}.{what}"
    if shortcut := re.fullmatch(r"layer(\d)\.(\d+)\.downsample\.([01])\.(\w+)", name):
        stage, cell, kind, what = shortcut.groups()
        return f"res{int(stage) + 1}.{cell}.shortcut.{kind}.{what}"
    return name


def inception_name(name: str) -> str:
    """S3D-G's name of a tensor of GoogLeNet; itself where there is none: fc and the auxiliary heads are not used."""
    if stem := re.fullmatch(r"(conv[123])\.(conv|bn)\.(\w+)", name):
        return f"{_INCEPTION_STEM[stem[1]]}.{_KINDS[stem[2]]}.{stem[3]}"
    block = re.fullmatch(r"inception(\d[a-e])\.branch([1-4])\.(?:([01])\.)?(conv|bn)\.(\w+)", name)
    if not block:
        return name
    which, branch, place, kind, what = block.groups()
    mixed = which[0] + chr(ord(which[1]) + 1)  # the reference counts from b, where torchvision counts from a
    inside = f"{place}." if place is not None else ""
    return f"mixed_{mixed[0]}.{mixed}.branch{branch}.{inside}{_KINDS[kind]}.{what}"


def _inflated(name: str, value: Tensor, like: Tensor, uri: str) -> Tensor:
    """A 2D kernel [O, I, H, W] as [O, I, T, H, W]; anything else as it is."""
    if like.dim() == 5 and value.dim() == 4:
        if (
            like.shape[1] == 2 and value.shape[1] == 3
        ):  # flow has two channels: the mean over the colours for each
            value = value.mean(dim=1, keepdim=True).expand(-1, 2, -1, -1)
        value = value[:, :, None].expand(-1, -1, like.shape[2], -1, -1) / like.shape[2]
    if value.shape != like.shape:
        raise ValueError(
            f"network.inflate_from: {files.printable(uri)}: {files.printable(name)} is {tuple(value.shape)}, the "
            f"network has {tuple(like.shape)}; inflation needs network.width 1 and 7 × 7 in network.stem_kernel"
        )
    return value


def inflated_normalisation(stream: str, normalisation: Normalisation, *, backbone: str) -> Normalisation:
    """What pixels must become for a network that starts from 2D weights; flow stays as it is."""
    return normalisation if stream == "flow" else _NORMALISATIONS[backbone]
