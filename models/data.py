"""Aligned windows of all streams of a clip, decoded from the stores as 8-bit values.

Shape legend: B clips, T frames, H rows, W columns, C channels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from models.drawn import DrawnPose
from models.options import DataOptions, EvaluateOptions
from models.selection import LabelledClip
from models.windows import (
    Augmentation,
    Crop,
    Window,
    central_window,
    epoch_order,
    generator,
    random_window,
    scaled_size,
)
from transforms import flow
from transforms.images import decode_rgb

CHANNELS = {"rgb": 3, "pose": 3, "flow": 2}
Batch = dict[str, Any]
Place = tuple[int, int]
"""(epoch, index of the clip): what a sample is a function of."""


class ClipCache:
    """Decoded clips of one process, the first that fit. It is not carried to other processes.

    Every clip is wanted equally often, so throwing one out for another would only cost time.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._clips: dict[tuple[str, str], NDArray[np.uint8]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"limit_bytes": self.limit_bytes, "bytes": 0, "_clips": {}}

    def get(
        self, key: tuple[str, str], size_bytes: int, decode: Callable[[], NDArray[np.uint8]]
    ) -> NDArray[np.uint8] | None:
        """The clip, decoded now if it is new; None where it does not fit."""
        if key not in self._clips:
            if self.bytes + size_bytes > self.limit_bytes:
                return None
            self._clips[key] = decode()
            self.bytes += size_bytes
        return self._clips[key]


class ClipRecords(Protocol):
    """Where a stream's records come from: a store, or one video decoded just now."""

    def records(self, clip_id: str, start: int, stop: int) -> Iterator[Any]:
        """Records of frames [start, stop) of a clip."""


@dataclass(frozen=True)
class StreamClips:
    """Windows of one stream.

    Attributes:
        stream: rgb, pose or flow.
        reader: of its store.
        cache: shared by the streams of a process.
    """

    stream: str
    reader: ClipRecords | DrawnPose
    cache: ClipCache

    def window(self, clip: LabelledClip, window: Window) -> NDArray[np.uint8]:
        """Decoded, scaled, cropped and mirrored: uint8 [T, H, W, C].

        Flow i belongs to frame i; only where the clip ends is the last flow repeated. Mirroring changes the sign
        of its x. Values of flow are not multiplied by `window.scale` here, 8 bits could not hold them.
        """
        indices_T = window.indices(self._records(clip))
        draw_mirrored = window.mirrored and isinstance(self.reader, DrawnPose)
        left_px = window.left_px
        if draw_mirrored:
            left_px = scaled_size(*clip.size_px, window.scale)[1] - window.left_px - window.width_px
        rows = slice(window.top_px, window.top_px + window.height_px)
        columns = slice(left_px, left_px + window.width_px)
        shape = (window.frames, window.height_px, window.width_px, CHANNELS[self.stream])
        out_THWC = np.empty(shape, np.uint8)
        wanted, at = np.unique(indices_T, return_index=True)
        ends = [*at[1:], window.frames]
        images = self._frames(clip, wanted, mirrored=draw_mirrored)
        for image_HWC, begin, end in zip(images, at, ends, strict=True):
            if window.scale != 1:
                height_px, width_px = scaled_size(*clip.size_px, window.scale)
                image_HWC = cv2.resize(image_HWC, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
            out_THWC[begin:end] = image_HWC[rows, columns]
        if not window.mirrored or draw_mirrored:
            return out_THWC
        return mirror(out_THWC, is_flow=self.stream == "flow")

    def _records(self, clip: LabelledClip) -> int:
        return clip.frames - (self.stream == "flow")

    def _frames(
        self, clip: LabelledClip, wanted: NDArray[np.int64], *, mirrored: bool
    ) -> Iterator[NDArray[np.uint8]]:
        """The decoded frames of the given indices, which are sorted and distinct."""
        size_bytes = self._records(clip) * clip.height_px * clip.width_px * CHANNELS[self.stream]
        every = np.arange(self._records(clip))
        cached = self.cache.get(
            (f"{self.stream} mirrored" if mirrored else self.stream, clip.clip_id),
            size_bytes,
            lambda: np.stack(list(self._decode(clip, every, mirrored))),
        )
        return self._decode(clip, wanted, mirrored) if cached is None else iter(cached[wanted])

    def _decode(
        self, clip: LabelledClip, wanted: NDArray[np.int64], mirrored: bool
    ) -> Iterator[NDArray[np.uint8]]:
        if isinstance(self.reader, DrawnPose):
            yield from self.reader.pictures(clip.clip_id, wanted, mirrored=mirrored)
            return
        chosen = set(wanted.tolist())
        for record in self.reader.records(clip.clip_id, int(wanted[0]), int(wanted[-1]) + 1):
            if record.frame not in chosen:
                continue
            if self.stream == "flow":
                image_HWC = flow.decode(record.x, record.y)
            else:
                image_HWC = decode_rgb(record.image)
            if image_HWC.shape[:2] != clip.size_px:
                found = f"{image_HWC.shape[1]} × {image_HWC.shape[0]}"
                raise ValueError(
                    f"clip {clip.clip_id!r}, frame {record.frame} of stream {self.stream}: {found} px, "
                    f"the clip has {clip.width_px} × {clip.height_px}; run `perfnet verify`"
                )
            yield image_HWC


def mirror(clip_THWC: NDArray[np.uint8], *, is_flow: bool) -> NDArray[np.uint8]:
    """Columns reversed; the x component of flow changes its sign about 128."""
    mirrored_THWC = np.ascontiguousarray(clip_THWC[:, :, ::-1])
    if is_flow:
        # 1 ↔ 255 and 128 ↔ 128. A lossy encoding can make 0 of 1: it becomes 255 as well.
        np.subtract(0, np.maximum(mirrored_THWC[..., 0], 1), out=mirrored_THWC[..., 0])
    return mirrored_THWC


@dataclass(frozen=True)
class RandomWindows:
    """Chooses a training window as a function of (seed, epoch, index of the clip)."""

    options: DataOptions
    seed: int

    def __call__(self, clip: LabelledClip, place: Place) -> Window:
        o = self.options
        return random_window(
            clip.frames,
            clip.size_px,
            Crop(o.window_frames, o.crop_height_px, o.crop_width_px, o.stride_frames),
            augmentation=Augmentation(o.mirror, o.brightness, o.contrast),
            random=generator(self.seed, *place),
        )


@dataclass(frozen=True)
class CentralWindows:
    """Chooses the one window by which a clip is judged."""

    options: EvaluateOptions

    def __call__(self, clip: LabelledClip, place: Place) -> Window:
        o = self.options
        crop = Crop(o.frames, o.crop_height_px, o.crop_width_px, o.stride_frames)
        return central_window(clip.frames, clip.size_px, crop)


class AlignedWindows(Dataset):
    """Samples: the same window, crop and mirroring of every stream of a clip.

    Args:
        readers: by stream.
        choose: the window of a clip at a place.
        cache_mb: megabytes of decoded clips kept in each process.
    """

    def __init__(
        self,
        readers: Mapping[str, ClipRecords | DrawnPose],
        clips: Sequence[LabelledClip],
        *,
        choose: Callable[[LabelledClip, Place], Window],
        cache_mb: int = 0,
    ) -> None:
        cache = ClipCache(cache_mb * 1_000_000)
        self._streams = [StreamClips(stream, reader, cache) for stream, reader in readers.items()]
        self._clips = list(clips)
        self._choose = choose

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, place: Place) -> Batch:
        """One sample: uint8 [T, H, W, C] under each stream's name, and what the training step needs with it."""
        clip = self._clips[place[1]]
        window = self._choose(clip, place)
        streams = {s.stream: torch.from_numpy(s.window(clip, window)) for s in self._streams}
        return streams | {
            "class": clip.class_index,
            "clip_id": clip.clip_id,
            "brightness": np.float32(window.brightness),
            "contrast": np.float32(window.contrast),
            "scale": np.float32(window.scale),
        }


class EpochBatches(Sampler):
    """Batches of places in the order of each epoch; what is left over at its end waits for the next one.

    `start` skips the batches that an interrupted epoch has already seen.
    """

    def __init__(self, clips: int, *, batch_size: int, seed: int) -> None:
        self._clips, self._batch_size, self._seed = clips, batch_size, seed
        self._epoch = 0
        self.start = 0
        # Lightning sets the epoch on the sampler inside a batch sampler; here they are one.
        self.sampler = self

    def __len__(self) -> int:
        return self._clips // self._batch_size

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[Place]]:
        order = epoch_order(self._seed, self._epoch, self._clips)
        start, self.start = self.start, 0
        for batch in range(start, len(self)):
            chosen = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            yield [(self._epoch, int(index)) for index in chosen]


def _start_worker(_: int) -> None:
    """One thread a loader process: the processes are what runs in parallel."""
    cv2.setNumThreads(1)


def training_loader(dataset: AlignedWindows, batches: EpochBatches, *, workers: int) -> DataLoader:
    """Loads training batches, in `workers` processes if there are any."""
    if not workers:
        return DataLoader(dataset, batch_sampler=batches)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=True,
        # Forking a process that runs threads (OpenMP, Arrow, object stores) can hang its children.
        multiprocessing_context="spawn",
        worker_init_fn=_start_worker,
    )


def batches_in_order(dataset: AlignedWindows, batch_size: int, *, epoch: int = 0) -> Iterator[Batch]:
    """All clips once, in order, in this process; the last batch may be smaller."""
    places = [(epoch, index) for index in range(len(dataset))]
    batches = [places[i : i + batch_size] for i in range(0, len(places), batch_size)]
    return iter(DataLoader(dataset, batch_sampler=batches))
