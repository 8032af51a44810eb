import shutil
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition
from synthetic_videos import read_number, steady_times, write_video

from stores.rejections import ClipRejected
from transforms.options import FramesOptions
from transforms.stage import Video
from transforms.video_file import open_video
from transforms.video_reader import FORMATS, VideoReader, timed


def numbers(path, *, start_s=0, options=None):
    with open_video(Video("a", str(path))) as file:
        reader = VideoReader(file, options or FramesOptions())
        pictures = reader.pictures_from(Fraction(start_s))
        return [read_number(p.picture.to_ndarray(format="rgb24")) for p in pictures]


def rejection(path, **options):
    with pytest.raises(ClipRejected) as rejected:
        numbers(path, options=FramesOptions(**options))
    return rejected.value


TEXTS = {
    "ffconcat": "ffconcat version 1.0\nfile {target}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "subtitles": "1\n00:00:01,000 --> 00:00:02,000\n{target}\n\n",
    "plain": "{target}\n",
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".txt"])
def test_text_that_names_another_file_opens_nothing(tmp_path, kind, suffix, monkeypatch):
    target = write_video(tmp_path / "target.mp4", steady_times(5))
    trap = tmp_path / f"trap{suffix}"
    trap.write_text(TEXTS[kind].format(target=target))
    opened = []
    real_open = open
    monkeypatch.setattr(
        "builtins.open", lambda path, *a, **k: opened.append(str(path)) or real_open(path, *a, **k)
    )
    assert rejection(trap).reason == "not_a_video"
    assert opened == [str(trap)]


def test_the_concat_trap_is_real(tmp_path):
    """Without the allow-list FFmpeg follows the text, so that the test above can fail."""
    write_video(tmp_path / "target.mp4", steady_times(5))
    trap = tmp_path / "trap.mp4"
    trap.write_text("ffconcat version 1.0\nfile target.mp4\n")
    with av.open(str(trap)) as container:
        assert len(list(container.decode(video=0))) == 5


def test_the_allow_list_names_containers_of_this_ffmpeg():
    known = {name for names in av.formats_available for name in names.split(",")}
    allowed = set(FORMATS.split(","))
    assert allowed <= known
    openers = {
        "concat",
        "hls",
        "dash",
        "sdp",
        "rtsp",
        "image2",
        "image2pipe",
        "lavfi",
        "tty",
        "srt",
        "webvtt",
    }
    assert not allowed & openers


@pytest.mark.parametrize("image", [b"\x89PNG\r\n\x1a\n" + bytes(200), b"\xff\xd8\xff\xe0" + bytes(200)])
def test_images_are_no_videos(tmp_path, image):
    (tmp_path / "a.mp4").write_bytes(image)
    assert rejection(tmp_path / "a.mp4").reason == "not_a_video"


def test_the_name_does_not_matter(tmp_path):
    video = write_video(tmp_path / "a.mp4", steady_times(5))
    for name in ("no_extension", "file:concat.mp4", "%03d.jpg", "-i.m3u8"):
        shutil.copy(video, tmp_path / name)
        assert numbers(tmp_path / name) == list(range(5))


def test_a_cut_index_is_damage_in_words(tmp_path):
    path = write_video(tmp_path / "a.mp4", steady_times(50))
    path.write_bytes(path.read_bytes()[:1500])
    found = rejection(path)
    assert found.reason == "damaged"
    assert "moov atom not found" in found.detail


def test_cover_art_is_not_the_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 1280, 720, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        container.mux(cover.encode(av.VideoFrame(1280, 720, "yuvj420p")))
        for _ in range(3):
            container.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(video.encode())
    with open_video(Video("a", str(path))) as file:
        pictures = list(VideoReader(file, FramesOptions()).pictures_from(Fraction(0)))
    assert [(p.picture.width, p.picture.height) for p in pictures] == [(64, 48)] * 3


def test_only_sound(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    found = rejection(path)
    assert (found.reason, found.detail) == ("no_video_stream", "streams found: audio")


def test_giants_are_refused_before_they_are_decoded(tmp_path):
    path = write_video(tmp_path / "a.mp4", steady_times(3))
    found = rejection(path, max_pixels=128 * 64 - 1)
    assert found.reason == "too_large"
    assert "128 x 64" in found.detail
    assert numbers(path, options=FramesOptions(max_pixels=128 * 64)) == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".flv", ".mov"])
@pytest.mark.parametrize("start_s", ["0.02", "1", "1.999", "3.2", "5.96", "7"])
def test_a_seek_gives_what_decoding_from_the_start_gives(tmp_path, suffix, start_s):
    options = {"bf": "3", "g": "40", "sc_threshold": "0"}
    path = write_video(tmp_path / f"a{suffix}", steady_times(150), codec_options=options)
    read = numbers(path, start_s=Fraction(start_s))
    wanted = int(Fraction(start_s) * 25)
    if wanted < 150:
        assert read[0] <= wanted
        assert read[0] >= wanted - 80 or suffix in (".ts", ".flv")  # without an index: from the start
    assert read == list(range(read[0], 150))


def test_damage_before_the_segment_does_not_matter(tmp_path):
    path = write_video(tmp_path / "a.mkv", steady_times(100), codec_options={"g": "25", "bf": "0"})
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    position, size = packets[10]
    data[position + 20 : position + size] = bytes(size - 20)
    path.write_bytes(data)
    assert rejection(path).reason == "damaged"
    assert numbers(path, start_s=3)[-25:] == list(range(75, 100))


def test_a_stream_that_appears_late_does_not_disturb(tmp_path):
    """PyAV raises IndexError at the end of such a file, before it has flushed the decoder."""

    class Late:
        def __init__(self, container):
            self.container = container

        def demux(self, stream):
            yield from (packet for packet in self.container.demux(stream) if packet.size)
            raise IndexError("list index out of range")

    path = write_video(tmp_path / "a.ts", steady_times(20), codec_options={"bf": "3"})
    with open_video(Video("a", str(path))) as file:
        reader = VideoReader(file, FramesOptions())
        reader._container = Late(reader._container)
        found = [read_number(p.picture.to_ndarray(format="rgb24")) for p in reader.pictures_from(Fraction(0))]
    assert found == list(range(20))


def stamped(*stamps):
    return [SimpleNamespace(pts=pts, dts=None, duration=duration) for pts, duration in stamps]


def times(pictures):
    found = timed(pictures, origin_s=Fraction(1), tick_s=Fraction(1, 10), nominal_length_s=Fraction(7, 10))
    return [(round(p.time_s * 10), round(p.length_s * 10)) for p in found]


def test_times_count_from_the_origin():
    assert times(stamped((10, 1), (12, 3), (15, 2))) == [(0, 1), (2, 3), (5, 2)]


def test_missing_timestamps_follow_their_predecessor():
    assert times(stamped((None, 2), (None, 3), (None, 1), (19, 4))) == [(0, 2), (2, 3), (5, 1), (9, 4)]


def test_decoding_times_stand_in_for_missing_times_of_display():
    pictures = stamped((None, 1), (None, 1), (13, 1), (None, 1))
    for picture, dts in zip(pictures, (10, 12, 99, None), strict=True):
        picture.dts = dts
    assert times(pictures) == [(0, 1), (2, 1), (3, 1), (4, 1)]


def test_repeated_and_backward_timestamps_are_dropped():
    assert times(stamped((10, 1), (11, 1), (11, 1), (3, 1), (11, 1), (12, 1))) == [(0, 1), (1, 1), (2, 1)]


def test_missing_lengths():
    assert times(stamped((10, 0), (14, None), (15, -3))) == [(0, 7), (4, 4), (5, 1)]
