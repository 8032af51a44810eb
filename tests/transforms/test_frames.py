import csv
import json
import pickle

import av
import numpy as np
import pytest
import simplejpeg
from synthetic_videos import steady_times, write_video

from stores.rejections import ClipRejected
from transforms.frames import FramesStage
from transforms.options import FramesOptions
from transforms.stage import Video

REJECTED = {
    "audio_only.mp4": "no_video_stream",
    "bitflips.mp4": "damaged",
    "decord_corrupted.mp4": "damaged",
    "no_frames.mp4": "no_video_stream",
    "one_frame.mp4": "too_short",
    "random_bytes.avi": "not_a_video",
    "text_named.mp4": "not_a_video",
    "truncated.avi": "damaged",
    "truncated_faststart.mp4": "damaged",
    "truncated_moov_at_end.mp4": "damaged",
    "zero_bytes.mp4": "empty_file",
}
KEPT = {"bitflips.mp4", "decord_corrupted.mp4", "truncated.avi", "truncated_faststart.mp4"}


def test_the_spec_holds_what_determines_the_output_and_nothing_else():
    spec = FramesStage(FramesOptions()).spec()
    assert spec == json.loads(json.dumps(spec))
    assert FramesStage(FramesOptions(timeout_s=1)).spec() == spec
    changes = {"fps": 30.0, "shorter_side_px": 128, "jpeg_quality": 90, "max_frames": 10, "max_pixels": 1000}
    for name, value in {**changes, "keep_damaged": True}.items():
        assert FramesStage(FramesOptions(**{name: value})).spec() != spec


def test_stage_contract(tmp_path):
    stage = pickle.loads(pickle.dumps(FramesStage(FramesOptions(shorter_side_px=32))))  # noqa: S301  our own
    assert (stage.name, stage.version, stage.inputs) == ("frames", 1, ())
    stage.setup()
    path = write_video(tmp_path / "a.mp4", steady_times(12))
    clip = stage.process(Video("a", str(path), 0.1, 0.3))
    records = list(clip.records)
    assert (clip.width_px, clip.height_px) == (64, 32)
    assert [(r.frame, r.time_us) for r in records] == [(n, n * 40_000) for n in range(5)]


def decoded(path, **options):
    """Shape and RGB frames, or the rejection."""
    try:
        clip = FramesStage(FramesOptions(**options)).process(Video(path.name, str(path)))
        frames = [simplejpeg.decode_jpeg(record.image) for record in clip.records]
    except ClipRejected as rejected:
        return rejected
    assert {frame.shape for frame in frames} == {(clip.height_px, clip.width_px, 3)}
    return frames


def expected_count(path):
    """(last timestamp - first + last frame's length) x 25, from the stream's own packets."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    last = max(packets, key=lambda p: p.pts)
    length = last.pts - min(p.pts for p in packets) + last.duration
    return float(length * last.time_base * 25)


@pytest.mark.real_data
def test_every_hard_file_is_decoded_or_rejected_with_a_reason(real_data):
    with open(real_data / "hard" / "MANIFEST.csv") as manifest:
        names = sorted(row["path"] for row in csv.DictReader(manifest))
    assert len(names) == 31
    for name in names:
        found = decoded(real_data / "hard" / name)
        if name in REJECTED:
            assert found.reason == REJECTED[name], name
            assert found.cause == "data", name
        else:
            assert abs(len(found) - expected_count(real_data / "hard" / name)) <= 1, name
            assert min(found[0].shape[:2]) == 256, name


@pytest.mark.real_data
def test_damaged_hard_files_keep_what_decodes(real_data):
    for name in REJECTED:
        found = decoded(real_data / "hard" / name, keep_damaged=True)
        assert isinstance(found, list) == (name in KEPT), name
    assert len(decoded(real_data / "hard" / "bitflips.mp4", keep_damaged=True)) == 48
    assert abs(len(decoded(real_data / "hard" / "decord_corrupted.mp4", keep_damaged=True)) - 125) <= 1


@pytest.mark.real_data
def test_damage_is_said_in_words(real_data):
    found = decoded(real_data / "hard" / "decord_corrupted.mp4")
    assert found.detail.startswith("decoding failed after 28 frames: Invalid data found")
    assert "moov atom not found" in decoded(real_data / "hard" / "truncated_moov_at_end.mp4").detail


def difference(one, other):
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["rotate90.mp4", "rotate180.mp4"])
def test_turned_hard_files_come_out_upright(real_data, name):
    """Their pixels are those of ok_h264.mp4, stored as they are; only the header says how to hold them."""
    plain = decoded(real_data / "hard" / "ok_h264.mp4")[20]
    found = decoded(real_data / "hard" / name)[20]
    turns = {"rotate90.mp4": 1, "rotate180.mp4": 2}[name]
    assert difference(found, np.rot90(plain, turns)) < 2
    assert difference(found, np.rot90(plain, turns + 2)) > 10


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["yuv444p.mp4", "yuv420p10.mp4", "vp9.webm", "longgop_bframes.mp4", "mjpeg.avi"]
)
def test_the_same_scene_in_other_formats_looks_the_same(real_data, name):
    plain = decoded(real_data / "hard" / "ok_h264.mp4")
    assert difference(decoded(real_data / "hard" / name)[0], plain[0]) < 12
    assert len({frame.shape for frame in plain}) == 1
    gray = decoded(real_data / "hard" / "gray.mp4")[0]
    assert np.ptp(gray.astype(int), axis=2).max() <= 6
