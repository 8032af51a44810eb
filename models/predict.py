"""Classifies videos with a trained RGB network alone: no pose, no flow.

    from models.predict import load

    student = load("workspace/runs/student")
    print(student.predict("video.mp4")[:3])

Shape legend: B = 1 clip, N classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import torch

from models.checkpoint import Checkpoint, load_checkpoint
from models.data import AlignedWindows, CentralWindows, batches_in_order
from models.hardware import autocast, device
from models.selection import LabelledClip
from models.streams import network_input
from stores import files
from stores.records import Record
from stores.rejections import ClipRejected
from transforms.decoder import Decoder
from transforms.options import FramesOptions
from transforms.stage import Video


@dataclass(frozen=True)
class _DecodedClip:
    """The frames of one video, as a store would give them."""

    frames: Sequence[Record]

    def records(self, clip_id: str, start: int, stop: int) -> Iterator[Record]:
        return islice(self.frames, start, stop)


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

    def predict(
        self, video: str, *, start_s: float = 0.0, stop_s: float | None = None
    ) -> list[tuple[str, float]]:
        """Labels with their probabilities, the most probable first, from the central crop of a video.

        Args:
            video: local path or gs:// address.
            start_s, stop_s: the half-open segment [start_s, stop_s) to look at; None means until the end.

        Raises:
            ValueError: the video cannot be decoded; says why.
        """
        try:
            clip = self._decoder.frames(Video(video, video, start_s, stop_s), self._frames)
            frames = list(clip.records)
        except ClipRejected as error:
            raise ValueError(f"{files.printable(video)}: {error}") from error
        shape = (len(frames), clip.height_px, clip.width_px)
        probabilities = self._probabilities(_DecodedClip(frames), LabelledClip(video, (), "", 0, "", *shape))
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


def load(path: str, **options: Any) -> Predictor:
    """A predictor from a checkpoint file or the folder of a run.

    Raises:
        ValueError: no checkpoint there, or one that does not look at RGB.
    """
    uri = path if path.endswith(".pt") else files.join(path, "checkpoints", "final.pt")
    return Predictor(load_checkpoint(uri), **options)
