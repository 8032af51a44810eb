import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from moving_squares import SMALL, put_workspace, squares

from models.data import (
    AlignedWindows,
    BatchMemory,
    CentralWindows,
    ClipCache,
    EpochBatches,
    RandomWindows,
    StreamClips,
    batches_in_order,
    loader,
    mirror,
)
from models.options import DataOptions, EvaluateOptions
from models.ranks import Ranks
from models.selection import select_clips
from models.windows import Crop, central_window, epoch_order
from stores.records import FlowPair, Frame
from transforms import flow

STREAMS = ("rgb", "pose", "flow")


@pytest.fixture
def selection(workspace):
    return select_clips(str(workspace), streams=STREAMS, options=SMALL)


def windows(selection, *, choose, cache_mb=0):
    return AlignedWindows(selection.readers, selection.by_split["train"], choose=choose, cache_mb=cache_mb)


class Ramp:
    """A clip whose frame t is t·10 everywhere, with an x ramp; its flow at t is t px."""

    def __init__(self, frames, height=24, width=32):
        self.frames, self.height, self.width = frames, height, width

    def image(self, t):
        return np.full((self.height, self.width, 3), 10 * t, np.uint8)

    def records(self, clip_id, start, stop):
        return [Frame(t, t, simplejpeg.encode_jpeg(self.image(t), quality=100)) for t in range(start, stop)]


class RampFlow(Ramp):
    def records(self, clip_id, start, stop):
        shape = (self.height, self.width, 2)
        pairs = [flow.quantise(np.full(shape, t, np.float32), 20.0) for t in range(start, stop)]
        return [FlowPair(t, *flow.encode(p, "png")) for t, p in enumerate(pairs, start)]


def labelled(selection, frames, height=24, width=32):
    return replace(selection.clips[0], frames=frames, height_px=height, width_px=width)


def test_padding_repeats_frames_and_for_flow_the_last_flow(selection):
    clip = labelled(selection, 4)
    window = central_window(4, (24, 32), Crop(8, 24, 32))
    rgb = StreamClips("rgb", Ramp(4), ClipCache(0)).window(clip, window)
    assert (rgb[:, 0, 0, 0] / 10).round().tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    planes = StreamClips("flow", RampFlow(4), ClipCache(0)).window(clip, window)
    steps = [round(v * 127 / 20) for v in (0, 0, 0, 1, 2, 2, 2, 2)]
    assert (planes[:, 0, 0, 0].astype(int) - 128).tolist() == steps


def test_a_strided_window_shows_every_other_frame_of_all_streams(selection):
    clip, window = labelled(selection, 9), central_window(9, (24, 32), Crop(5, 16, 16, stride_frames=2))
    for cache_bytes in (0, 10**6):
        rgb = StreamClips("rgb", Ramp(9), ClipCache(cache_bytes)).window(clip, window)
        assert (rgb[:, 0, 0, 0] / 10).round().tolist() == [0, 2, 4, 6, 8]
        planes = StreamClips("flow", RampFlow(9), ClipCache(cache_bytes)).window(clip, window)
        steps = [round(v * 127 / 20) for v in (0, 2, 4, 6, 7)]
        assert (planes[:, 0, 0, 0].astype(int) - 128).tolist() == steps


def test_a_cached_clip_gives_the_same_windows(selection):
    clip, window = labelled(selection, 9), central_window(9, (24, 32), Crop(5, 16, 16))
    for stream, source in (("rgb", Ramp(9)), ("flow", RampFlow(9))):
        plain = StreamClips(stream, source, ClipCache(0)).window(clip, window)
        cached = StreamClips(stream, source, ClipCache(10**6))
        assert np.array_equal(cached.window(clip, window), plain)
        assert np.array_equal(cached.window(clip, window), plain)


def test_the_cache_never_grows_beyond_its_limit(selection):
    cache, one = ClipCache(2500), np.zeros(1000, np.uint8)
    kept = [cache.get(("rgb", str(i)), one.nbytes, one.copy) is not None for i in range(4)]
    assert kept == [True, True, False, False]
    assert cache.bytes == 2000
    assert cache.get(("rgb", "0"), one.nbytes, lambda: pytest.fail("decoded twice")) is not None
    assert pickle.loads(pickle.dumps(cache)).bytes == 0  # noqa: S301  our own bytes


def test_a_crop_larger_than_the_frame_sees_it_enlarged(selection):
    clip = labelled(selection, 2)
    window = central_window(2, (24, 32), Crop(2, 48, 48))
    source = Ramp(2)
    source.image = lambda t: np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], (24, 1, 3))
    found = StreamClips("rgb", source, ClipCache(0)).window(clip, window)
    expected = cv2.resize(source.image(0), (64, 48))[:, 8:56]
    assert found.shape == (2, 48, 48, 3)
    assert np.abs(found[0].astype(int) - expected).max() <= 4  # JPEG at quality 100


def test_mirroring_twice_is_the_identity_and_flow_changes_its_sign():
    random = np.random.default_rng(0)
    planes = random.integers(1, 256, (4, 5, 2), dtype=np.uint8)
    assert np.array_equal(mirror(mirror(planes, is_flow=True), is_flow=True), planes)
    mirrored = mirror(planes, is_flow=True).astype(int)
    assert np.array_equal(mirrored[..., 0] - 128, 128 - planes[:, ::-1, 0].astype(int))
    assert np.array_equal(mirrored[..., 1], planes[:, ::-1, 1])
    assert np.array_equal(mirror(planes, is_flow=False), planes[:, ::-1])


def test_a_mirrored_zero_from_lossy_flow_does_not_wrap_around():
    assert mirror(np.zeros((1, 1, 2), np.uint8), is_flow=True)[0, 0].tolist() == [255, 0]


def test_all_streams_of_a_sample_show_the_same_window(selection):
    """The pose frames are the rgb frames with a line: outside the line they are equal, in any window."""
    dataset = windows(selection, choose=RandomWindows(replace(SMALL.data, mirror=0.5), seed=7))
    for place in [(0, 0), (0, 5), (3, 5), (8, 11)]:
        sample = dataset[place]
        assert sample["rgb"].shape == sample["pose"].shape == (6, 32, 32, 3)
        assert sample["flow"].shape == (6, 32, 32, 2)
        difference = (sample["rgb"].int() - sample["pose"].int()).abs().amax(-1)
        assert float((difference > 40).float().mean()) < 0.2
        assert float(difference.float().median()) <= 4


def test_a_sample_is_a_function_of_its_place(selection):
    first, again = (windows(selection, choose=RandomWindows(SMALL.data, seed=1), cache_mb=c) for c in (0, 9))
    sample = first[(2, 3)]
    assert all(torch.equal(sample[s], again[(2, 3)][s]) for s in STREAMS)
    assert not torch.equal(sample["rgb"], first[(3, 3)]["rgb"])


def test_mirrored_samples_move_the_other_way(selection):
    always = RandomWindows(replace(SMALL.data, mirror=1.0), seed=1)
    never = RandomWindows(replace(SMALL.data, mirror=0.0), seed=1)
    index = next(i for i, c in enumerate(selection.by_split["train"]) if c.label == "left")
    mirrored, plain = (windows(selection, choose=choose)[(0, index)] for choose in (always, never))
    assert torch.equal(mirrored["rgb"], plain["rgb"].flip(2))
    assert (plain["flow"][..., 0] < 128).all()
    assert (mirrored["flow"][..., 0] > 128).all()


def test_memory_is_used_again_only_when_nobody_holds_the_batch():
    memory = BatchMemory()
    first = memory.take(2, 3)
    view = first.fill_(7)[0, 1:]
    second = memory.take(2, 3).fill_(8)
    assert first.data_ptr() != second.data_ptr()
    place = first.data_ptr()
    del first
    assert memory.take(2, 3).fill_(9).data_ptr() not in (place, second.data_ptr())
    assert view.tolist() == [7, 7]
    del view
    assert memory.take(2, 3).data_ptr() == place
    assert memory.take(3, 3).shape == (3, 3)


def test_a_batch_is_its_samples_side_by_side(selection):
    dataset = windows(selection, choose=RandomWindows(replace(SMALL.data, mirror=0.5), seed=7))
    places = [(0, 0), (4, 5), (2, 11)]
    batch = dataset.__getitems__(places)
    for index, place in enumerate(places):
        sample = dataset[place]
        assert all(torch.equal(batch[name][index], sample[name]) for name in (*STREAMS, "class", "contrast"))
        assert batch["clip_id"][index] == sample["clip_id"]


def test_batches_go_through_each_epoch_in_its_order_and_resume_inside_it():
    batches = EpochBatches(10, batch_size=3, seed=4)
    assert len(batches) == 3
    batches.set_epoch(2)
    whole = list(batches)
    assert [index for batch in whole for _, index in batch] == epoch_order(4, 2, 10)[:9].tolist()
    assert {epoch for batch in whole for epoch, _ in batch} == {2}
    batches.start = 1
    assert list(batches) == whole[1:]
    assert list(batches) == whole


@pytest.mark.parametrize(("ranks", "accumulate"), [(1, 3), (3, 1), (2, 2)])
def test_ranks_and_parts_share_each_batch_equally(ranks, accumulate):
    size = 2 * ranks * accumulate
    whole = EpochBatches(29, batch_size=size, seed=4)
    parts = [
        EpochBatches(29, batch_size=size, seed=4, accumulate=accumulate, ranks=Ranks(rank, ranks))
        for rank in range(ranks)
    ]
    for one in (whole, *parts):
        one.set_epoch(3)
        one.start = 1
    assert {len(part) for part in parts} == {whole.steps * accumulate}
    shares = [list(part) for part in parts]
    assert {len(share) for share in shares} == {(whole.steps - 1) * accumulate}
    for step, batch in enumerate(whole):
        turns = range(step * accumulate, (step + 1) * accumulate)
        assert [place for turn in turns for share in shares for place in share[turn]] == batch


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(ValueError, match=r"train.batch_size: found 10, expected a multiple of 4 "):
        EpochBatches(20, batch_size=10, seed=0, accumulate=2, ranks=Ranks(0, 2))


def test_loader_processes_give_the_same_batches(selection):
    dataset = windows(selection, choose=RandomWindows(DataOptions(window_frames=4), seed=0), cache_mb=1)
    batches = EpochBatches(len(dataset), batch_size=4, seed=0)
    here, there = (list(loader(dataset, batches, workers=n)) for n in (0, 1))
    assert len(here) == 3
    for a, b in zip(here, there, strict=True):
        assert a["clip_id"] == b["clip_id"]
        assert all(torch.equal(a[name], b[name]) for name in (*STREAMS, "class", "contrast"))


def test_clips_in_order_come_once_each_with_a_smaller_last_batch(selection):
    dataset = windows(
        selection, choose=CentralWindows(EvaluateOptions(frames=3, crop_height_px=16, crop_width_px=16))
    )
    batches = list(batches_in_order(dataset, 5))
    assert [len(b["class"]) for b in batches] == [5, 5, 2]
    names = [name for b in batches for name in b["clip_id"]]
    assert names == [clip.clip_id for clip in selection.by_split["train"]]


def test_a_frame_of_another_size_is_named(tmp_path):
    put_workspace(tmp_path, squares(1, split="train"))
    selection = select_clips(str(tmp_path), streams=("rgb",), options=SMALL)
    clip = replace(selection.clips[0], width_px=50)
    stream = StreamClips("rgb", selection.readers["rgb"], ClipCache(0))
    with pytest.raises(ValueError, match=r"frame 3 of stream rgb: 48 × 40 px, the clip has 50 × 40"):
        stream.window(clip, central_window(10, (40, 50), Crop(4, 20, 20)))
