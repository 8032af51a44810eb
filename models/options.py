"""Options of networks, data, training, distillation and evaluation. Free of torch, so that they load at once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from stores.checks import require
from stores.files import quoted
from transforms.options import RenderOptions

Stream = Literal["rgb", "pose", "flow"]
STREAMS: tuple[str, ...] = get_args(Stream)
RUNS = (*STREAMS, "student")
"""The roles of runs, and the names of those that `perfnet run` trains."""

_RUN_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def role_of(run: str) -> str:
    """What a run is, as its name says: rgb in rgb, rgb-seed1 and table4/rgb-seed1-fold2.

    Raises:
        ValueError: the last part of the name does not begin with a role, or a part is no plain word.
    """
    role = run.split("/")[-1].split("-")[0]
    if not _is_run(run, RUNS):
        raise ValueError(
            f"unknown run {quoted(run)}; known: {', '.join(RUNS)}, "
            "each also with an ending and in a folder: rgb-seed1, trial/rgb-seed1"
        )
    return role


def _is_run(run: str, roles: Sequence[str]) -> bool:
    parts = run.split("/")
    return parts[-1].split("-")[0] in roles and all(_RUN_PART.fullmatch(part) for part in parts)


def _freeze(options: object, *names: str) -> None:
    """Turns the lists that a YAML file gives into tuples, so that equal options compare equal."""
    for name in names:
        if getattr(options, name) is not None:
            object.__setattr__(options, name, tuple(getattr(options, name)))


def _positive_integers(values: Sequence[object]) -> bool:
    return bool(values) and all(isinstance(value, int) and value >= 1 for value in values)


def _odd_integers(values: Sequence[Any]) -> bool:
    return _positive_integers(values) and all(value % 2 for value in values)


# What the papers say of each backbone, where the configuration says nothing.
_OWN: dict[str, dict[str, Any]] = {
    "r3d50g": {
        "blocks": (3, 4, 6, 3),
        "temporal_kernels": ((3,), (3, 1), (3, 1), (1, 3)),
        "stem_kernel": (5, 7, 7),
        "gate": "block",
        "dropout": 0.0,
    },
    "s3dg": {"blocks": (2, 5, 2), "stem_kernel": (3, 7, 7), "gate": "cell", "dropout": 0.2},
}


@dataclass(frozen=True)
class NetworkOptions:
    """The backbone. What is left out is the backbone's own: the paper's full size.

    Attributes:
        backbone: r3d50g (table 1 of the paper) or s3dg (Xie et al. 2018).
        width: factor on the number of channels of every layer; 1.0 is the paper's.
        blocks: r3d50g: residual cells in res2, res3, res4, res5, by default 3 4 6 3; s3dg: Mixed blocks after each
            of the last three poolings, by default and at most 2 5 2.
        temporal_kernels: r3d50g only: for each of the four stages, temporal kernel lengths that its cells take in
            turn; by default [3], [3, 1], [3, 1], [1, 3].
        stem_kernel: frames, rows and columns that the first convolution sees; by default 5 7 7, s3dg 3 7 7.
        gate: where features are gated: after each stage or group of Mixed blocks (block, r3d50g's default), after
            each cell or branch of a Mixed block (cell, s3dg's default), or nowhere (none).
        temporal_pool: r3d50g only: halve the frames after res2 by max pooling, an ablation of the paper.
        dropout: share of pooled features dropped before the classifier while training; by default 0, s3dg 0.2.
        inflate_from: file with ImageNet weights, from which training starts: a 2D ResNet-50 as torchvision or timm
            save it (r3d50g), or torchvision's GoogLeNet, that is Inception-v1 (s3dg).
        start_from: checkpoint of a run, from which training starts with everything but the classifier.
    """

    backbone: Literal["r3d50g", "s3dg"] = "r3d50g"
    width: float = 1.0
    blocks: tuple[int, ...] | None = None
    temporal_kernels: tuple[tuple[int, ...], ...] | None = None
    stem_kernel: tuple[int, ...] | None = None
    gate: str | None = None
    temporal_pool: bool = False
    dropout: float | None = None
    inflate_from: str | None = None
    start_from: str | None = None

    def __post_init__(self) -> None:
        require("network.backbone", self.backbone, self.backbone in _OWN, " or ".join(_OWN))
        for name, value in _OWN[self.backbone].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        _freeze(self, "blocks", "stem_kernel", "temporal_kernels")
        require("network.width", self.width, 0.05 <= self.width <= 8, "between 0.05 and 8")
        self._require_r3d() if self.backbone == "r3d50g" else self._require_s3d()
        stem = self.stem_kernel or ()
        odd = len(stem) == 3 and _odd_integers(stem)
        require("network.stem_kernel", stem, odd, "three odd numbers: frames, rows, columns")
        require("network.gate", self.gate, self.gate in ("block", "cell", "none"), "block, cell or none")
        kept = self.dropout is not None and 0 <= self.dropout < 1
        require("network.dropout", self.dropout, kept, "at least 0 and less than 1")
        one = self.inflate_from is None or self.start_from is None
        require("network.start_from", self.start_from, one, "null, because network.inflate_from is given")

    def _require_r3d(self) -> None:
        blocks = self.blocks or ()
        four = len(blocks) == 4 and _positive_integers(blocks)
        require("network.blocks", blocks, four, "four numbers of at least 1 for backbone r3d50g")
        patterns = tuple(tuple(pattern) for pattern in self.temporal_kernels or ())
        object.__setattr__(self, "temporal_kernels", patterns)
        odd = len(patterns) == 4 and all(map(_odd_integers, patterns))
        require("network.temporal_kernels", patterns, odd, "four lists of odd numbers")

    def _require_s3d(self) -> None:
        blocks, most = self.blocks or (), _OWN["s3dg"]["blocks"]
        three = len(blocks) == 3 and _positive_integers(blocks)
        fits = three and all(n <= m for n, m in zip(blocks, most, strict=True))
        require("network.blocks", blocks, fits, "three numbers, at most 2 5 2, for backbone s3dg")
        kernels = self.temporal_kernels
        require("network.temporal_kernels", kernels, kernels is None, "null for backbone s3dg")
        pool = self.temporal_pool
        require("network.temporal_pool", pool, not pool, "false for backbone s3dg")


@dataclass(frozen=True)
class DataOptions:
    """What the networks look at while training.

    Attributes:
        split: column of the clips table that says train, val or test.
        window_frames: frames in the random window.
        stride_frames: from one frame of the window to the next; 1, the paper's, takes consecutive frames, more
            lets a short window span a whole action.
        crop_height_px, crop_width_px: size of the random crop, the same for all frames of a window.
        mirror: chance that a sample is mirrored.
        brightness: a random shift of up to this share of the pixel range, 0 to 1; pixels only, never flow.
        contrast: a random factor between 1 − contrast and 1 + contrast about the mean; pixels only.
        workers: loader processes; 0 loads in the training process.
        cache_mb: megabytes of decoded clips each process keeps in memory; 0 decodes every time.
    """

    split: str = "split"
    window_frames: int = 64
    stride_frames: int = 1
    crop_height_px: int = 224
    crop_width_px: int = 224
    mirror: float = 0.5
    brightness: float = 0.125
    contrast: float = 0.5
    workers: int = 0
    cache_mb: int = 1024

    def __post_init__(self) -> None:
        require("data.split", self.split, bool(self.split), "the name of a split column")
        for name in ("window_frames", "stride_frames"):
            require(f"data.{name}", getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("crop_height_px", "crop_width_px"):
            require(f"data.{name}", getattr(self, name), getattr(self, name) >= 16, "at least 16")
        for name in ("mirror", "brightness"):
            require(f"data.{name}", getattr(self, name), 0 <= getattr(self, name) <= 1, "between 0 and 1")
        require("data.contrast", self.contrast, 0 <= self.contrast < 1, "at least 0 and less than 1")
        require("data.workers", self.workers, 0 <= self.workers <= 256, "between 0 and 256")
        require("data.cache_mb", self.cache_mb, self.cache_mb >= 0, "at least 0")


@dataclass(frozen=True)
class TrainOptions:
    """How a network is fitted: momentum SGD, linear warm-up, then cosine to zero, per step.

    Attributes:
        epochs: passes over the training clips, one window a clip and pass; ignored where `steps` is set.
        steps: optimiser steps; none means `epochs` passes.
        batch_size: clips a step, over all devices and accumulated parts together.
        accumulate: parts in which each device goes through its share of a batch, one after the other, so that
            less fits in memory at once.
        learning_rate: peak rate, reached after the warm-up.
        learning_rate_batch: the batch size that `learning_rate` is meant for: the rate is scaled linearly to
            `batch_size`; none takes the rate as it is.
        warmup_steps: steps of the linear rise from 0; at most half of all steps are used for it.
        momentum: of SGD.
        weight_decay: L2 penalty on the parameters.
        decay: which parameters: all, or only the weights of convolutions and linear layers, neither
            normalisation layers nor biases.
        norm_momentum: share of the newest batch in the running statistics of the normalisation layers.
        freeze_norm: normalisation layers keep their statistics (of the weights that training starts from) and
            do not look at the batch.
        sync_norm: normalisation statistics over all GPUs instead of each device's own; needs GPUs.
        recalibration_batches: batches of training windows over which those statistics are averaged anew
            after the last step; 0 keeps the running ones.
        label_smoothing: share of the target spread evenly over all classes.
        seed: of initialisation, order, windows and augmentation.
        precision: arithmetic of the forward and backward pass; auto takes bf16 where the hardware has matrix
            units for it (a GPU, or a CPU with AMX or AVX-512 bfloat16).
        compile: compile the networks with torch.compile: minutes at the start, less time a step.
        checkpoint_activations: keep the activations of block borders only and compute the others again: less
            memory, about a third more time.
        devices: GPUs of this machine, or processes where there is no GPU; 0 takes all GPUs, or one process.
        checkpoint_minutes: minutes between two checkpoints from which an interrupted training goes on.
        validate_epochs: epochs between two looks at the val split, where there is one: the weights that were best
            there are kept. Without a val split the last weights are kept.
        threads: CPU threads of each process; 0 takes all cores, shared between the processes.
    """

    epochs: int = 120
    steps: int | None = None
    batch_size: int = 2048
    accumulate: int = 1
    learning_rate: float = 1.6
    learning_rate_batch: int | None = None
    warmup_steps: int = 2000
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay: Literal["all", "weights"] = "all"
    norm_momentum: float = 0.01
    freeze_norm: bool = False
    sync_norm: bool = False
    recalibration_batches: int = 0
    label_smoothing: float = 0.0
    seed: int = 0
    precision: Literal["auto", "32", "bf16"] = "auto"
    compile: bool = False
    checkpoint_activations: bool = False
    devices: int = 0
    checkpoint_minutes: float = 5.0
    validate_epochs: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        require("train.steps", self.steps, self.steps is None or self.steps >= 1, "none or at least 1")
        for name in ("epochs", "batch_size", "accumulate", "validate_epochs"):
            require(f"train.{name}", getattr(self, name), getattr(self, name) >= 1, "at least 1")
        require("train.learning_rate", self.learning_rate, 0 < self.learning_rate <= 100, "in (0, 100]")
        meant_for = self.learning_rate_batch
        known = meant_for is None or meant_for >= 1
        require("train.learning_rate_batch", meant_for, known, "none or at least 1")
        for name in ("warmup_steps", "recalibration_batches"):
            require(f"train.{name}", getattr(self, name), getattr(self, name) >= 0, "at least 0")
        require("train.momentum", self.momentum, 0 <= self.momentum < 1, "at least 0 and less than 1")
        require("train.weight_decay", self.weight_decay, 0 <= self.weight_decay < 1, "in [0, 1)")
        require("train.decay", self.decay, self.decay in ("all", "weights"), "all or weights")
        require("train.norm_momentum", self.norm_momentum, 0 < self.norm_momentum <= 1, "in (0, 1]")
        frozen = not (self.freeze_norm and (self.sync_norm or self.recalibration_batches))
        allowed = "false beside train.sync_norm or train.recalibration_batches"
        require("train.freeze_norm", self.freeze_norm, frozen, allowed)
        require("train.label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "in [0, 1)")
        require("train.seed", self.seed, 0 <= self.seed < 2**63, "between 0 and 2**63 - 1")
        known = self.precision in ("auto", "32", "bf16")
        require("train.precision", self.precision, known, "auto, 32 or bf16 (in quotes: '32')")
        minutes = self.checkpoint_minutes
        require("train.checkpoint_minutes", minutes, minutes > 0, "more than 0")
        for name in ("devices", "threads"):
            require(
                f"train.{name}", getattr(self, name), 0 <= getattr(self, name) <= 1024, "between 0 and 1024"
            )

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate * self.batch_size / (self.learning_rate_batch or self.batch_size)


@dataclass(frozen=True)
class StudentOptions:
    """How the RGB student learns from the teachers (section 3.3 of the paper).

    Attributes:
        teachers: runs whose frozen networks it learns from, by name: pose, or pose-seed1; at least one.
        loss: a separate loss for each teacher, or one against the sum of their logits (unified).
        weight: of the distillation losses beside the cross-entropy. The paper gives none.
        reduction: mean or sum over the classes of the squared difference. The paper does not say.
        epochs: passes over the training clips; none takes those of `train`.
    """

    teachers: tuple[str, ...] = ("pose", "flow")
    loss: Literal["separate", "unified"] = "separate"
    weight: float = 1.0
    reduction: Literal["mean", "sum"] = "mean"
    epochs: int | None = None

    def __post_init__(self) -> None:
        _freeze(self, "teachers")
        known = bool(self.teachers) and all(_is_run(teacher, STREAMS) for teacher in self.teachers)
        require("student.teachers", self.teachers, known, "one or more runs of " + ", ".join(STREAMS))
        distinct = len(set(self.teachers)) == len(self.teachers)
        require("student.teachers", self.teachers, distinct, "each teacher once")
        require("student.loss", self.loss, self.loss in ("separate", "unified"), "separate or unified")
        require("student.weight", self.weight, 0 <= self.weight <= 1e6, "between 0 and 1e6")
        require("student.reduction", self.reduction, self.reduction in ("mean", "sum"), "mean or sum")
        require("student.epochs", self.epochs, self.epochs is None or self.epochs >= 1, "none or at least 1")


@dataclass(frozen=True)
class EvaluateOptions:
    """The one central crop a clip is judged by; the defaults are the paper's for Kinetics.

    Attributes:
        frames: frames in the central window.
        stride_frames: from one frame of it to the next.
        crop_height_px, crop_width_px: size of the central crop.
        batch_size: clips at a time.
        on: the split that is evaluated.
    """

    frames: int = 250
    stride_frames: int = 1
    crop_height_px: int = 256
    crop_width_px: int = 256
    batch_size: int = 1
    on: Literal["test", "val"] = "test"

    def __post_init__(self) -> None:
        for name in ("frames", "stride_frames"):
            require(f"evaluate.{name}", getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("crop_height_px", "crop_width_px"):
            require(f"evaluate.{name}", getattr(self, name), getattr(self, name) >= 16, "at least 16")
        require("evaluate.batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        require("evaluate.on", self.on, self.on in ("test", "val"), "test or val")


@dataclass(frozen=True)
class ModelOptions:
    """Everything that the models need to know, one attribute for each section of the configuration.

    Attributes:
        pose_store: store that the pose stream reads, e.g. render/rgb-bar-13-ratio.
        drawn: how people are drawn at load time; none reads `pose_store`.
    """

    network: NetworkOptions = field(default_factory=NetworkOptions)
    data: DataOptions = field(default_factory=DataOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    student: StudentOptions = field(default_factory=StudentOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    pose_store: str = "render/rgb-bar-13-ratio"
    drawn: RenderOptions | None = None

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.pose_store).parts
        inside = len(parts) == 2 and parts[0] == "render" and ".." not in parts
        require("render.variant", self.pose_store, inside, "a store render/<variant>")

    def store_of(self, stream: str) -> str:
        """Name of the store that a stream reads, or of what is drawn in place of one."""
        pose = f"drawn/{self.drawn.variant}" if self.drawn else self.pose_store
        return {"rgb": "frames", "pose": pose, "flow": "flow"}[stream]
