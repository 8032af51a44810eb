"""Classifies videos with a trained RGB network alone: no pose, no flow.

    from models.predict import load

    student = load("workspace/runs/student")
    print(student.predict("video.mp4")[:3])

Shape legend: B = 1 clip, N classes.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, cast

import torch

from models.checkpoint import Checkpoint, load_checkpoint
from models.data import AlignedWindows, CentralWindows, batches_in_order
from models.hardware import autocast, device
from models.options import EvaluateOptions
from models.selection import LabelledClip
from models.streams import network_input
from stores import files
from stores.records import Frame
from stores.rejections import ClipRejected
from transforms.decoder import Decoder
from transforms.options import FramesOptions
from transforms.stage import ClipOutput, Video

Ranked = list[tuple[str, float]]
"""Labels with their probabilities, the most probable first."""


@dataclass(frozen=True)
class WindowPrediction:
    """What the network says of the half-open segment [start_s, stop_s) of a video."""

    start_s: float
    stop_s: float
    labels: Ranked


@dataclass(frozen=True)
class _DecodedClip:
    """The frames of one video, as a store would give them."""

    frames: Sequence[Frame]

    def records(self, clip_id: str, start: int, stop: int) -> Iterator[Frame]:
        # Frames of a window in the middle of a video begin with another number than 0.
        for number, record in enumerate(islice(self.frames, start, stop), start=start):
            yield replace(record, frame=number)


class Predictor:
    """A trained network that looks at videos as it looked at the frames it was trained on.

    Args:
        checkpoint: of a run whose stream is rgb.
        precision: arithmetic of the network, as `train.precision`.

    Raises:
        ValueError: the network looks at another stream.
    """

    def __init__(self, checkpoint: Checkpoint, *, precision: str = "auto") -> None:
        if checkpoint.stream != "rgb":
            raise ValueError(
                f"the checkpoint is of run {checkpoint.run}, which looks at {checkpoint.stream}; "
                "predict takes videos, so it needs run rgb or student"
            )
        self.labels = checkpoint.labels
        self._checkpoint, self._precision = checkpoint, precision
        self._network = checkpoint.build().to(device())
        known = {field.name for field in fields(FramesOptions)}
        self._frames = FramesOptions(**{k: v for k, v in checkpoint.frames.items() if k in known})
        self._decoder = Decoder()

    @property
    def fps(self) -> float:
        """Frames a second that the network was trained on."""
        return self._frames.fps

    @property
    def window_s(self) -> float:
        """Length of the window that the network looks at."""
        return _span(self._checkpoint.evaluate) / self._frames.fps

    def predict(self, video: str, *, start_s: float = 0.0, stop_s: float | None = None) -> Ranked:
        """Labels with their probabilities, the most probable first, from the central crop of a video.

        Args:
            video: local path or gs:// address.
            start_s, stop_s: the half-open segment [start_s, stop_s) to look at; None means until the end.

        Raises:
            ValueError: the video cannot be decoded; says why.
        """
        try:
            clip = self._decoder.frames(Video(video, video, start_s, stop_s), self._frames)
            return self._rank(cast(list[Frame], list(clip.records)), clip)
        except ClipRejected as error:
            hint = "; predict it by windows with a stride" if error.reason == "too_long" else ""
            raise ValueError(f"{files.printable(video)}: {error}{hint}") from error

    def windows(
        self, video: str, *, stride_s: float, start_s: float = 0.0, stop_s: float | None = None
    ) -> Iterator[WindowPrediction]:
        """What is seen when a window slides over a video of any length; memory holds one window.

            |-window-|           windows begin every stride_s seconds, the last one ends with the video
               |-window-|        a video shorter than the window is one window, padded as in the evaluation
                    |-window-|

        Args:
            stride_s: seconds from the start of one window to the start of the next.
            others: as for `predict`.

        Raises:
            ValueError: as `predict`; also while the windows are consumed.
        """
        if not stride_s > 0:
            raise ValueError(f"stride_s: found {stride_s}, expected seconds, more than 0")
        fps, span = self._frames.fps, _span(self._checkpoint.evaluate)
        options = replace(self._frames, max_frames=2**31)
        try:
            clip = self._decoder.frames(Video(video, video, start_s, stop_s), options)
            for first, frames in sliding(clip.records, span=span, step=max(1, round(stride_s * fps))):
                begin_s = start_s + first / fps
                yield WindowPrediction(begin_s, begin_s + len(frames) / fps, self._rank(frames, clip))
        except ClipRejected as error:
            raise ValueError(f"{files.printable(video)}: {error}") from error

    def _rank(self, frames: Sequence[Frame], clip: ClipOutput) -> Ranked:
        shape = (len(frames), clip.height_px, clip.width_px)
        probabilities = self._probabilities(_DecodedClip(frames), LabelledClip("", (), "", 0, "", *shape))
        return sorted(zip(self.labels, probabilities, strict=True), key=lambda pair: -pair[1])

    @torch.inference_mode()
    def _probabilities(self, decoded: _DecodedClip, clip: LabelledClip) -> list[float]:
        dataset = AlignedWindows({"rgb": decoded}, [clip], choose=CentralWindows(self._checkpoint.evaluate))
        (batch,) = batches_in_order(dataset, 1)
        on_device = {k: v.to(device()) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        with autocast(self._precision):
            logits_BN = self._network(network_input(on_device, "rgb", self._checkpoint.normalisation))
        found: list[float] = torch.softmax(logits_BN[0].float(), dim=0).tolist()
        return found


def _span(options: EvaluateOptions) -> int:
    return (options.frames - 1) * options.stride_frames + 1


def sliding(records: Iterator[Any], *, span: int, step: int) -> Iterator[tuple[int, list[Any]]]:
    """(first index, records) of the windows [first, first + span) at 0, step, 2·step …, and one that ends at the end.

    Fewer records than `span` are one window. Holds `span` records.
    """
    held: deque[Any] = deque(maxlen=span)
    count = last = 0
    for record in records:
        held.append(record)
        count += 1
        first = count - span
        if first >= 0 and first % step == 0:
            yield first, list(held)
            last = count
    if count > last:
        yield max(0, count - span), list(held)


def mean_ranking(windows: Sequence[WindowPrediction]) -> Ranked:
    """The probabilities of the whole video: the mean over its windows."""
    total: dict[str, float] = {}
    for window in windows:
        for label, probability in window.labels:
            total[label] = total.get(label, 0.0) + probability / len(windows)
    return sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))


def load(path: str, **options: Any) -> Predictor:
    """A predictor from a checkpoint file or the folder of a run.

    Raises:
        ValueError: no checkpoint there, or one that does not look at RGB.
    """
    return Predictor(load_checkpoint(checkpoint_uri(path)), **options)


def checkpoint_uri(path: str) -> str:
    """The checkpoint file that a path names: itself, or that of a run's folder."""
    if path.endswith(".pt") or (files.is_local(path) and os.path.isfile(files.local_path(path))):
        return path
    return files.join(path, "checkpoints", "final.pt")
