from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg
from av.video.reformatter import VideoReformatter
from synthetic_videos import read_number, steady_times, turn, write_video

from stores.rejections import ClipRejected
from transforms.decode import decode_clip
from transforms.images import encode_rgb
from transforms.options import FramesOptions
from transforms.picture import Orientation, to_rgb
from transforms.resample import BOUND_TOLERANCE_S
from transforms.stage import Video

SMALL = FramesOptions(shorter_side_px=32)


def frames(path, *, start_s=0.0, stop_s=None, options=SMALL):
    clip = decode_clip(Video("a", str(path), start_s, stop_s), options)
    records = list(clip.records)
    assert [r.frame for r in records] == list(range(len(records)))
    assert all(simplejpeg.decode_jpeg_header(r.image)[:2] == (clip.height_px, clip.width_px) for r in records)
    return records


def shown(records):
    return [read_number(simplejpeg.decode_jpeg(record.image)) for record in records]


def rejection(path, **arguments):
    with pytest.raises(ClipRejected) as rejected:
        frames(path, **arguments)
    return rejected.value


def naive_segment(path, start_s, stop_s):
    """The images of a segment by decoding everything and looking for the nearest picture of each moment."""
    with av.open(str(path)) as container:
        pictures = list(container.decode(video=0))
    start_s, stop_s = Fraction(str(start_s)), Fraction(str(stop_s))
    times_s = [(p.pts - pictures[0].pts) * p.time_base for p in pictures]
    inside = [
        n
        for n, t in enumerate(times_s)
        if start_s <= t + BOUND_TOLERANCE_S and t < stop_s - BOUND_TOLERANCE_S
    ]
    last = pictures[inside[-1]]
    end_s = (
        stop_s
        if inside[-1] + 1 < len(pictures)
        else times_s[-1] + (last.duration * last.time_base or Fraction(1, 25))
    )
    count = int((min(end_s, stop_s) - start_s) * 25 + Fraction(1, 2))
    nearest = [
        min(inside, key=lambda n, i=i: abs(times_s[n] - start_s - Fraction(i, 25))) for i in range(count)
    ]
    images = {
        n: to_rgb(pictures[n], Orientation(), VideoReformatter(), width_px=64, height_px=32)
        for n in set(nearest)
    }
    return [encode_rgb(images[n], jpeg_quality=95) for n in nearest]


@pytest.mark.parametrize(
    ("suffix", "codec", "codec_options"),
    [
        (".mp4", "libx264", {"bf": "3", "g": "250"}),
        (".mp4", "libx264", {"bf": "3", "g": "30", "flags": "-cgop", "x264-params": "open-gop=1"}),
        (".mkv", "libx264", {"bf": "2", "g": "25"}),
        (".ts", "libx264", {"bf": "2", "g": "25"}),
        (".avi", "mpeg4", {"bf": "2", "g": "12"}),
        (".webm", "libvpx-vp9", {"g": "25", "deadline": "realtime", "cpu-used": "8"}),
    ],
)
@pytest.mark.parametrize(("start_s", "stop_s"), [(0.0, 1.0), (0.5, 1.52), (2.01, 3.0), (3.3, 99.0)])
def test_segments_equal_a_naive_full_decode(tmp_path, suffix, codec, codec_options, start_s, stop_s):
    path = write_video(tmp_path / f"a{suffix}", steady_times(100), codec=codec, codec_options=codec_options)
    images = [record.image for record in frames(path, start_s=start_s, stop_s=stop_s)]
    assert images == naive_segment(path, start_s, stop_s)
    assert len(images) >= 17


def test_adjoining_segments_make_the_whole(tmp_path):
    path = write_video(tmp_path / "a.mkv", steady_times(60), codec_options={"bf": "2", "g": "20"})
    parts = [frames(path, start_s=n * 0.8, stop_s=(n + 1) * 0.8) for n in range(3)]
    assert [n for part in parts for n in shown(part)] == shown(frames(path)) == list(range(60))


def test_time_is_the_regular_grid(tmp_path):
    records = frames(write_video(tmp_path / "a.mp4", steady_times(30)), options=FramesOptions(fps=30))
    assert [r.time_us for r in records[:4]] == [0, 33333, 66667, 100000]
    assert len(records) == 36


def test_variable_frame_rate(tmp_path):
    times_ms = [0, 40, 80, 410, 430, 1010, 1050]
    found = shown(frames(write_video(tmp_path / "a.mkv", times_ms)))
    assert len(found) == 27
    nearest = [min(range(7), key=lambda n, i=i: abs(times_ms[n] - 40 * i)) for i in range(27)]
    assert found == nearest


@pytest.mark.parametrize(
    ("step_ms", "count", "expected"), [(1000, 2, 50), (4, 250, 25), (100, 10, 25), (33, 61, 50)]
)
def test_frame_rates(tmp_path, step_ms, count, expected):
    path = write_video(
        tmp_path / "a.mkv", steady_times(count, step_ms=step_ms), framerate=Fraction(1000, step_ms)
    )
    found = shown(frames(path))
    assert abs(len(found) - expected) <= 1
    nearest = [min(range(count), key=lambda n, i=i: abs(n * step_ms - i * 40)) for i in range(len(found))]
    assert found == nearest


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"])
def test_pixel_formats(tmp_path, pix_fmt):
    path = write_video(tmp_path / "a.mkv", steady_times(5), pix_fmt=pix_fmt)
    assert shown(frames(path)) == list(range(5))


def test_matrix_and_range_of_a_stream(tmp_path):
    colour = np.broadcast_to(np.array([200, 60, 30], np.uint8), (48, 64, 3))
    options = {"qp": "0"}
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 2
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(colour))
            frame = frame.reformat(format="yuv444p", dst_colorspace="ITU709", dst_color_range="JPEG")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    rgb_HWC = simplejpeg.decode_jpeg(frames(path)[0].image)
    np.testing.assert_allclose(rgb_HWC.mean(axis=(0, 1)), (200, 60, 30), atol=3)


def test_gif(tmp_path):
    path = write_video(tmp_path / "a.gif", steady_times(6, step_ms=100), codec="gif", pix_fmt="rgb8")
    assert sorted(set(shown(frames(path)))) == list(range(6))


def test_pixel_aspect_and_rotation(tmp_path):
    corner = np.full((64, 128, 3), 40, np.uint8)
    corner[:32, :64] = 220  # bright at the top left
    path = write_video(
        tmp_path / "a.mp4", steady_times(3), pictures=[corner] * 3, pixel_aspect=Fraction(3, 2)
    )
    plain = simplejpeg.decode_jpeg(frames(path)[0].image)
    assert plain.shape == (32, 96, 3)
    for matrix, shape, bright in [
        ((0, 1, -1, 0), (96, 32, 3), (0, -1)),  # a quarter clockwise: top right
        ((0, -1, 1, 0), (96, 32, 3), (-1, 0)),  # a quarter the other way: bottom left
        ((-1, 0, 0, -1), (32, 96, 3), (-1, -1)),
        ((-1, 0, 0, 1), (32, 96, 3), (0, -1)),  # mirrored
    ]:
        turn(path, matrix)
        rgb_HWC = simplejpeg.decode_jpeg(frames(path)[0].image)
        assert rgb_HWC.shape == shape
        corners = {(y, x): rgb_HWC[3 * (1 | y), 3 * (1 | x), 0] for y in (0, -1) for x in (0, -1)}
        assert max(corners, key=corners.__getitem__) == bright


def test_odd_sizes(tmp_path):
    picture = np.zeros((33, 51, 3), np.uint8)
    path = write_video(tmp_path / "a.mkv", steady_times(3), pictures=[picture] * 3, pix_fmt="yuv444p")
    clip = decode_clip(Video("a", str(path)), FramesOptions(shorter_side_px=99))
    assert (clip.width_px, clip.height_px, len(list(clip.records))) == (153, 99, 3)


def test_latin1_metadata(tmp_path):
    path = write_video(tmp_path / "a.avi", steady_times(4), codec="mpeg4")
    data = path.read_bytes()
    assert b"Lavf" in data
    path.write_bytes(data.replace(b"Lavf", b"L\xe9vf"))
    assert len(frames(path)) == 4


def test_short_clips(tmp_path):
    path = write_video(tmp_path / "a.mkv", steady_times(50))
    assert rejection(path, start_s=1.0, stop_s=1.04).reason == "too_short"
    assert len(frames(path, start_s=1.0, stop_s=1.08)) == 2
    for start_s, stop_s in [(5.0, 6.0), (5.0, None), (1.0, 1.0), (1.0, 0.5), (1.01, 1.03)]:
        assert rejection(path, start_s=start_s, stop_s=stop_s).reason == "empty_segment"
    assert rejection(write_video(tmp_path / "b.mp4", [0])).reason == "too_short"


def test_long_clips(tmp_path):
    path = write_video(tmp_path / "a.mkv", steady_times(50))
    options = FramesOptions(shorter_side_px=32, max_frames=49)
    found = rejection(path, options=options)
    assert found.reason == "too_long"
    assert "frames.max_frames" in found.detail
    assert len(frames(path, stop_s=1.96, options=options)) == 49


@pytest.fixture
def damaged(tmp_path):
    """60 frames; packet 20 is overwritten."""
    path = write_video(tmp_path / "a.mkv", steady_times(60), codec_options={"g": "15", "bf": "0"})
    with av.open(str(path)) as container:
        position, size = [(p.pos, p.size) for p in container.demux(video=0) if p.size][20]
    data = bytearray(path.read_bytes())
    data[position + 12 : position + size + 4] = b"\xff" * (size - 8)
    path.write_bytes(data)
    return path


def test_damage_is_told(damaged):
    found = rejection(damaged)
    assert found.reason == "damaged"
    assert "decoding failed after 20 frames: " in found.detail


def test_damage_is_kept_if_wanted(damaged):
    found = shown(frames(damaged, options=FramesOptions(shorter_side_px=32, keep_damaged=True)))
    assert len(found) == 60
    assert found[:20] == list(range(20))
    assert found[30:] == list(range(30, 60))  # from the next key frame on all is well


def test_two_frames_must_be_left(tmp_path):
    path = write_video(tmp_path / "a.mkv", steady_times(20), codec_options={"g": "250", "bf": "0"})
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[1:]:
        data[position + 6 : position + size + 3] = b"\xff" * (size - 3)
    path.write_bytes(data)
    options = FramesOptions(shorter_side_px=32, keep_damaged=True)
    assert rejection(path, options=options).reason == "damaged"


def test_a_failing_disk_is_no_damage(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", steady_times(100))

    class Failing:
        def __init__(self, path):
            self.file, self.left = open(path, "rb"), 2  # noqa: SIM115

        def read(self, size):
            self.left -= 1
            if self.left < 0:
                raise OSError(5, "Input/output error")
            return self.file.read(min(size, 1000))

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr("stores.files.open_read", Failing)
    found = rejection(path)
    assert (found.reason, found.cause) == ("io_error", "transient")


def test_progress_is_told_for_each_picture(tmp_path):
    path = write_video(tmp_path / "a.mkv", steady_times(100, step_ms=4), framerate=Fraction(250))
    calls = []
    clip = decode_clip(Video("a", str(path)), SMALL, on_progress=lambda: calls.append(1))
    assert len(list(clip.records)) == 10
    assert len(calls) == 100


def test_the_same_bytes_each_time(tmp_path):
    path = write_video(tmp_path / "a.mp4", steady_times(30))
    assert frames(path) == frames(path)
