"""Aligned windows of all streams of a clip, decoded from the stores as 8-bit values.

Shape legend: B clips, T frames, H rows, W columns, C channels.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from models.drawn import DrawnPose
from models.options import DataOptions, EvaluateOptions
from models.ranks import ALONE, Ranks
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

    def shape(self, window: Window) -> tuple[int, int, int, int]:
        """[T, H, W, C] of a window."""
        return window.frames, window.height_px, window.width_px, CHANNELS[self.stream]

    def window(
        self, clip: LabelledClip, window: Window, out_THWC: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Decoded, scaled, cropped and mirrored: uint8 [T, H, W, C], written into `out_THWC` where it is given.

        Flow i belongs to frame i; only where the clip ends is the last flow repeated. Mirroring changes the sign
        of its x. Values of flow are not multiplied by `window.scale` here, 8 bits could not hold them.
        """
        if out_THWC is None:
            out_THWC = np.empty(self.shape(window), np.uint8)
        draw_mirrored = window.mirrored and isinstance(self.reader, DrawnPose)
        place = self._place(clip, window, draw_mirrored)
        wanted, at = np.unique(window.indices(self._records(clip)), return_index=True)
        ends = [*at[1:], window.frames]
        images = self._frames(clip, wanted, mirrored=draw_mirrored)
        for image_HWC, begin, end in zip(images, at, ends, strict=True):
            if window.scale != 1:
                height_px, width_px = scaled_size(*clip.size_px, window.scale)
                image_HWC = cv2.resize(image_HWC, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
            if window.mirrored and not draw_mirrored:
                mirror(image_HWC[place], is_flow=self.stream == "flow", out_HWC=out_THWC[begin])
            else:
                out_THWC[begin] = image_HWC[place]
            out_THWC[begin + 1 : end] = out_THWC[begin]
        return out_THWC

    def _place(self, clip: LabelledClip, window: Window, draw_mirrored: bool) -> tuple[slice, slice]:
        """Rows and columns of the crop in the scaled picture."""
        left_px = window.left_px
        if draw_mirrored:
            left_px = scaled_size(*clip.size_px, window.scale)[1] - window.left_px - window.width_px
        rows = slice(window.top_px, window.top_px + window.height_px)
        return rows, slice(left_px, left_px + window.width_px)

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
            lambda: np.stack(list(self._decode(clip, every, mirrored, None))),
        )
        if cached is not None:
            return iter(cached[wanted])
        return self._decode(clip, wanted, mirrored, np.empty((*clip.size_px, 3), np.uint8))

    def _decode(
        self,
        clip: LabelledClip,
        wanted: NDArray[np.int64],
        mirrored: bool,
        scratch_HWC: NDArray[np.uint8] | None,
    ) -> Iterator[NDArray[np.uint8]]:
        """Frame after frame. With `scratch_HWC` each picture may stand where the one before it stood."""
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
                image_HWC = _picture(record.image, scratch_HWC)
            if image_HWC.shape[:2] != clip.size_px:
                found = f"{image_HWC.shape[1]} × {image_HWC.shape[0]}"
                raise ValueError(
                    f"clip {clip.clip_id!r}, frame {record.frame} of stream {self.stream}: {found} px, "
                    f"the clip has {clip.width_px} × {clip.height_px}; run `perfnet verify`"
                )
            yield image_HWC


def _picture(image: bytes, scratch_HWC: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    try:
        return decode_rgb(image, scratch_HWC)
    except ValueError:  # larger than the clip says, which is said with its size, or no picture at all
        return decode_rgb(image)


def mirror(
    image_HWC: NDArray[np.uint8], *, is_flow: bool, out_HWC: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Columns reversed; the x component of flow changes its sign about 128."""
    mirrored_HWC = cv2.flip(image_HWC, 1, dst=out_HWC)
    if is_flow:
        # 1 ↔ 255 and 128 ↔ 128. A lossy encoding can make 0 of 1: it becomes 255 as well.
        np.subtract(0, np.maximum(mirrored_HWC[..., 0], 1), out=mirrored_HWC[..., 0])
    return mirrored_HWC


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
        self._memory = BatchMemory()

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, place: Place) -> Batch:
        """One sample: the same without B."""
        return {name: values[0] for name, values in self.__getitems__([place]).items()}

    def __getitems__(self, places: Sequence[Place]) -> Batch:
        """One batch: uint8 [B, T, H, W, C] under each stream's name, and what the training step needs with it.

        Frames are decoded straight into the batch: it is never put together from samples.
        """
        clips = [self._clips[index] for _, index in places]
        windows = [self._choose(clip, place) for clip, place in zip(clips, places, strict=True)]
        batch: Batch = {}
        for stream in self._streams:
            batch[stream.stream] = self._memory.take(len(places), *stream.shape(windows[0]))
            arrays = batch[stream.stream].numpy()
            for clip, window, out_THWC in zip(clips, windows, arrays, strict=True):
                stream.window(clip, window, out_THWC)
        return batch | {
            "class": torch.tensor([clip.class_index for clip in clips]),
            "clip_id": [clip.clip_id for clip in clips],
            "brightness": torch.tensor([window.brightness for window in windows], dtype=torch.float32),
            "contrast": torch.tensor([window.contrast for window in windows], dtype=torch.float32),
            "scale": torch.tensor([window.scale for window in windows], dtype=torch.float32),
        }


class BatchMemory:
    """Memory for batches, used again when nobody holds the batch any more: fresh pages cost as much as the copy.

    Loader processes share theirs with the training process, which cannot tell them when it is done with it.
    """

    _MOST_KEPT = 8
    _REFERENCES_OF_A_FREE_ARRAY = 3  # the list, the loop's name and getrefcount's argument

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": []}

    def take(self, *shape: int) -> torch.Tensor:
        """An uint8 tensor with arbitrary values."""
        if get_worker_info() is not None:
            storage = torch.UntypedStorage._new_shared(math.prod(shape))
            return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)
        for array in self._kept:
            if array.shape == shape and sys.getrefcount(array) == self._REFERENCES_OF_A_FREE_ARRAY:
                return torch.from_numpy(array)
        self._kept = [*self._kept, np.empty(shape, np.uint8)][-self._MOST_KEPT :]
        return torch.from_numpy(self._kept[-1])


class EpochBatches(Sampler):
    """Batches of places in the order of each epoch; what is left over at its end waits for the next one.

    Each batch is cut into equal parts, `accumulate` for each of the ranks, and one rank yields its own: all
    ranks yield equally many parts of equal size, so none waits for another that has no more.
    `start` skips the batches that an interrupted epoch has already seen.

    Raises:
        ValueError: the batch cannot be cut into that many equal parts.
    """

    def __init__(
        self, clips: int, *, batch_size: int, seed: int, accumulate: int = 1, ranks: Ranks = ALONE
    ) -> None:
        parts = accumulate * ranks.world
        if batch_size % parts:
            raise ValueError(
                f"train.batch_size: found {batch_size}, expected a multiple of {parts} (train.accumulate "
                f"{accumulate} × {ranks.world} devices)"
            )
        self._clips, self._batch_size, self._seed = clips, batch_size, seed
        self._accumulate, self._ranks = accumulate, ranks
        self._epoch = 0
        self.start = 0
        # Lightning sets the epoch on the sampler inside a batch sampler; here they are one.
        self.sampler = self

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self._clips // self._batch_size

    def __len__(self) -> int:
        return self.steps * self._accumulate

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[Place]]:
        order = epoch_order(self._seed, self._epoch, self._clips)
        size = self._batch_size // (self._accumulate * self._ranks.world)
        start, self.start = self.start, 0
        for batch in range(start, self.steps):
            for turn in range(self._accumulate):
                first = batch * self._batch_size + (turn * self._ranks.world + self._ranks.rank) * size
                yield [(self._epoch, int(index)) for index in order[first : first + size]]


def _start_worker(_: int) -> None:
    """One thread a loader process: the processes are what runs in parallel."""
    cv2.setNumThreads(1)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def loader(
    dataset: AlignedWindows, batches: EpochBatches | Sequence[Sequence[Place]], *, workers: int = 0
) -> DataLoader:
    """Loads the batches of these places, in `workers` processes if there are any."""
    processes: dict[str, Any] = {}
    if workers:
        processes = {
            "num_workers": workers,
            "persistent_workers": True,
            # Forking a process that runs threads (OpenMP, Arrow, object stores) can hang its children.
            "multiprocessing_context": "spawn",
            "worker_init_fn": _start_worker,
        }
    pinned = torch.cuda.is_available()
    return DataLoader(dataset, batch_sampler=batches, collate_fn=_as_it_is, pin_memory=pinned, **processes)


def batches_in_order(
    dataset: AlignedWindows, batch_size: int, *, epoch: int = 0, workers: int = 0
) -> Iterator[Batch]:
    """All clips once, in order; the last batch may be smaller."""
    places = [(epoch, index) for index in range(len(dataset))]
    batches = [places[i : i + batch_size] for i in range(0, len(places), batch_size)]
    return iter(loader(dataset, batches, workers=workers))
