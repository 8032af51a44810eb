import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from synthetic_videos import steady_times, write_video

from stores.rejections import ClipRejected
from transforms import decoder_pipe as pipe
from transforms.decode import decode_clip
from transforms.decoder import Decoder, DecoderError, thread_decoder
from transforms.options import FramesOptions
from transforms.stage import Video

OPTIONS = FramesOptions(shorter_side_px=32, timeout_s=20)
IMPATIENT = FramesOptions(shorter_side_px=32, timeout_s=0.5)

# A real child, except for videos whose name asks for trouble; it begins after the third frame.
TROUBLED_CHILD = """
import os, signal, sys, time
from transforms import decoder_child
from transforms.stage import ClipOutput

real = decoder_child.decode_clip

def trouble(name, records):
    for number, record in enumerate(records):
        yield record
        if number == 2:
            if "hang" in name:
                time.sleep(100)
            if "spin" in name:
                while True:
                    pass
            if "segv" in name:
                signal.signal(signal.SIGSEGV, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGSEGV)
            if "exit" in name:
                print("out of luck", file=sys.stderr, flush=True)
                os._exit(7)
            if "print" in name:
                os.system("echo noise")
            if "bug" in name:
                raise ZeroDivisionError("a bug")

def decode_clip(video, options, **arguments):
    clip = real(video, options, **arguments)
    return ClipOutput(clip.width_px, clip.height_px, trouble(os.path.basename(video.uri), clip.records))

decoder_child.decode_clip = decode_clip
decoder_child.main()
"""


@pytest.fixture
def videos(tmp_path):
    def make(name, count=10, **arguments):
        return Video(name, str(write_video(tmp_path / f"{name}.mp4", steady_times(count), **arguments)))

    return make


@pytest.fixture
def decoder():
    with_child = Decoder(command=[sys.executable, "-c", TROUBLED_CHILD])
    yield with_child
    with_child.close()


def outcome(decoder, video, options=OPTIONS):
    """Frames read and the rejection, if there was one."""
    frames = []
    try:
        frames.extend(decoder.frames(video, options).records)
    except ClipRejected as rejected:
        return len(frames), rejected
    return len(frames), None


def child_pid(decoder):
    return decoder._idle._process.pid


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_child_gives_what_decoding_here_gives(videos):
    video, decoder = videos("good"), Decoder()
    here, there = decode_clip(video, OPTIONS), decoder.frames(video, OPTIONS)
    assert (there.width_px, there.height_px) == (here.width_px, here.height_px) == (64, 32)
    assert list(there.records) == list(here.records)
    decoder.close()


def test_one_child_serves_many_clips_and_its_rejections(videos):
    decoder = Decoder()
    good = videos("good")
    assert outcome(decoder, good) == (10, None)
    pid = child_pid(decoder)
    _, rejected = outcome(decoder, Video("none", "/nowhere/none.mp4"))
    assert (rejected.reason, rejected.detail) == ("missing_file", "/nowhere/none.mp4")
    _, rejected = outcome(decoder, Video("late", good.uri, start_s=10, stop_s=11))
    assert rejected.reason == "empty_segment"
    assert outcome(decoder, good) == (10, None)
    assert child_pid(decoder) == pid
    decoder.close()
    assert not alive(pid)
    assert outcome(decoder, good) == (10, None)  # a closed decoder starts again
    decoder.close()


@pytest.mark.parametrize("kind", ["hang", "spin"])
def test_a_hanging_decoder_costs_one_clip(videos, decoder, kind):
    assert outcome(decoder, videos("good")) == (10, None)
    pid = child_pid(decoder)
    started = time.monotonic()
    count, rejected = outcome(decoder, videos(kind), IMPATIENT)
    assert time.monotonic() - started < 5
    assert count == 3
    assert (rejected.reason, rejected.cause, rejected.detail) == (
        "timeout",
        "transient",
        "no frame for 0.5 s",
    )
    assert not alive(pid)
    assert outcome(decoder, videos("good")) == (10, None)


def test_a_crashing_decoder_costs_one_clip(videos, decoder):
    count, rejected = outcome(decoder, videos("segv"))
    assert (count, rejected.reason, rejected.detail) == (3, "decoder_crashed", "killed by SIGSEGV")
    count, rejected = outcome(decoder, videos("exit"))
    assert (count, rejected.reason) == (3, "decoder_crashed")
    assert rejected.detail == "exit code 7: out of luck"
    assert outcome(decoder, videos("good")) == (10, None)


def test_a_child_that_died_between_clips_is_replaced(videos, decoder):
    assert outcome(decoder, videos("good")) == (10, None)
    pid = child_pid(decoder)
    os.kill(pid, signal.SIGKILL)
    while alive(pid) and decoder._idle.alive:
        time.sleep(0.01)
    assert outcome(decoder, videos("good")) == (10, None)


def test_prints_do_not_get_between_the_messages(videos, decoder):
    assert outcome(decoder, videos("print")) == (10, None)


def test_a_bug_is_reported_with_its_traceback_and_the_child_goes_on(videos, decoder):
    assert outcome(decoder, videos("good")) == (10, None)
    pid = child_pid(decoder)
    with pytest.raises(DecoderError, match=r"(?s)Traceback.*ZeroDivisionError: a bug"):
        outcome(decoder, videos("bug"))
    assert outcome(decoder, videos("good")) == (10, None)
    assert child_pid(decoder) == pid


def test_a_reader_that_stops_early_leaves_the_decoder_usable(videos):
    decoder = Decoder()
    long = videos("long", count=200)
    records = decoder.frames(long, OPTIONS).records
    assert [next(records).frame for _ in range(3)] == [0, 1, 2]
    records.close()
    assert outcome(decoder, videos("good")) == (10, None)
    abandoned = decoder.frames(long, OPTIONS).records
    next(abandoned)
    assert outcome(decoder, videos("good")) == (10, None)  # while the other reader has not even closed
    with pytest.raises(DecoderError, match="given another clip"):
        list(abandoned)
    assert outcome(decoder, videos("good")) == (10, None)
    decoder.close()


def test_a_slow_reader_is_not_a_slow_decoder(videos):
    """The pipe is full while the reader pauses for longer than the time-out and the alarm."""
    script = "from transforms import decoder_child; decoder_child.ALARM_MARGIN_S = 0.1; decoder_child.main()"
    decoder = Decoder(command=[sys.executable, "-c", script])
    options = FramesOptions(shorter_side_px=256, timeout_s=0.3)
    records = decoder.frames(videos("long", count=200), options).records
    next(records)
    time.sleep(0.8)
    assert len(list(records)) == 199
    decoder.close()


def test_decoding_on_the_way_to_a_segment_is_progress(tmp_path):
    """A long way without any output must not count as a hang: FLV has no index to seek by."""
    script = """
import time
from transforms import decoder_child
from transforms.stage import ClipOutput

def decode_clip(video, options, *, on_progress):
    for _ in range(40):
        time.sleep(0.02)
        on_progress()
    return ClipOutput(8, 8, iter(()))

decoder_child.decode_clip = decode_clip
decoder_child.main()
"""
    decoder = Decoder(command=[sys.executable, "-c", script])
    assert outcome(decoder, Video("a", "a.mp4"), FramesOptions(timeout_s=0.4)) == (0, None)
    decoder.close()


def test_the_child_ends_with_its_parent(videos):
    """The parent is killed while the child hangs: the alarm ends the child."""
    script = f"""
import sys
from transforms.decoder import Decoder
from transforms.options import FramesOptions
from transforms.stage import Video
decoder = Decoder(command=[sys.executable, "-c", {TROUBLED_CHILD!r}])
records = decoder.frames(Video("a", sys.argv[1]), FramesOptions(timeout_s=0.2)).records
next(records)
print(decoder._busy._process.pid, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, videos("hang").uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(pid)


def running(pid):
    """Whether a process is there and no zombie (nobody may reap it here)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "answer",
    [
        pipe.pack(b"?"),
        pipe.pack(pipe.SIZE, b"1"),
        pipe.pack(pipe.FRAME, b"1"),
        pipe.pack_size(8, 8) + pipe.pack(pipe.FRAME, b"\0" * 12),
        pipe.pack_size(8, 8) + pipe.pack(pipe.SIZE, b"1"),
        pipe.pack(pipe.REJECTED, b"{"),
        pipe.pack(pipe.REJECTED, b'{"reason": "lunch"}'),
        pipe.HEADER.pack(pipe.FRAME, pipe.MAX_PAYLOAD_BYTES + 1),
    ],
)
def test_senseless_answers_are_a_crash(answer):
    script = f"""
import sys
sys.stdout.buffer.write({pipe.pack(pipe.READY)!r})
sys.stdout.flush()
sys.stdin.buffer.read(20)
sys.stdout.buffer.write({answer!r})
sys.stdout.flush()
sys.stdin.read()
"""
    decoder = Decoder(command=[sys.executable, "-c", script])
    _, rejected = outcome(decoder, Video("a", "a.mp4"))
    assert rejected.reason == "decoder_crashed"
    decoder.close()


def peak_kib(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def test_memory_does_not_grow_with_the_clip(videos):
    """440 more pictures of 112 KiB would be 48 MiB."""
    decoder = Decoder()
    picture = np.zeros((240, 320, 3), np.uint8)
    fast = {"codec_options": {"preset": "ultrafast"}}
    peaks = []
    for count in (60, 500):
        video = videos(f"{count}", count, pictures=[picture] * count, **fast)
        assert outcome(decoder, video, FramesOptions(shorter_side_px=240)) == (count, None)
        peaks.append(peak_kib(child_pid(decoder)))
    decoder.close()
    assert peaks[1] - peaks[0] < 12 * 1024


def test_a_child_that_does_not_start_is_no_fault_of_the_video():
    decoder = Decoder(command=[sys.executable, "-c", "raise ImportError('no module named av')"])
    with pytest.raises(DecoderError, match=r"does not start: exit code 1: .*no module named av"):
        outcome(decoder, Video("a", "a.mp4"))


def test_the_child_loads_nothing_heavy_and_starts_anywhere(videos, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "av.py").write_text("raise SystemExit('the wrong av')")
    video = videos("good")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert outcome(Decoder(), video) == (10, None)
    heavy = {"torch", "apache_beam", "tensorflow", "mediapipe", "cv2", "pyarrow", "gcsfs"}
    code = f"import sys, transforms.decoder_child; print(sorted({heavy!r} & set(sys.modules)))"
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path}
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, check=True
    )
    assert found.stdout == b"[]\n"


def test_a_relative_path_means_the_callers_folder(videos, tmp_path, monkeypatch):
    decoder = Decoder()
    assert outcome(decoder, videos("good")) == (10, None)  # the child was started in another folder
    monkeypatch.chdir(tmp_path)
    assert outcome(decoder, Video("good", "good.mp4")) == (10, None)
    decoder.close()


def test_each_thread_has_its_decoder_and_takes_it_along(videos):
    video = videos("good")
    found = {}

    def work(name):
        found[name] = outcome(thread_decoder(), video), child_pid(thread_decoder()), thread_decoder()

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first, pid_a, decoder_a), (second, pid_b, decoder_b) = found["a"], found["b"]
    assert first == second == (10, None)
    assert pid_a != pid_b
    assert decoder_a is not decoder_b
    found.clear()
    del decoder_a, decoder_b
    assert not alive(pid_a)
    assert not alive(pid_b)


def test_requests_and_rejections_survive_the_pipe():
    video = Video("a\n\udce9", "/x/\udce9.mp4", 1.5, None, 3, "4")
    message = pipe.pack_request(video, OPTIONS)
    assert pipe.unpack_request(message[pipe.HEADER.size :]) == (video, OPTIONS)
    rejected = pipe.unpack_rejected(pipe.pack_rejected(ClipRejected("damaged", "é"))[pipe.HEADER.size :])
    assert (rejected.reason, rejected.detail) == ("damaged", "é")
