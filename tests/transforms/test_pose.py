"""Shape legend: T frames, H rows, W columns, C channels, P people, K = 17 keypoints."""

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores.records import Frame, People
from stores.rejections import ClipRejected
from transforms import pose
from transforms.images import encode_rgb
from transforms.options import PoseOptions
from transforms.pose import Found, PoseStage, keep_people

OPTIONS = PoseOptions()


def found(*people: tuple[float, tuple[float, float, float, float]]) -> Found:
    """People of the given (score, box), each with all keypoints in the middle of the box."""
    boxes_P4 = np.array([box for _, box in people], np.float32).reshape(-1, 4)
    middles_P2 = (boxes_P4[:, :2] + boxes_P4[:, 2:]) / 2
    keypoints_PK3 = np.concatenate(
        [np.repeat(middles_P2[:, None], 17, axis=1), np.full((len(people), 17, 1), 0.9)], axis=2
    )
    return Found(
        np.array([score for score, _ in people], np.float32), boxes_P4, keypoints_PK3.astype(np.float32)
    )


class Clip:
    """A stored clip of plain pictures."""

    clip_id = "clip"

    def __init__(self, frames_THWC: np.ndarray) -> None:
        self.frames, self.height_px, self.width_px = frames_THWC.shape[:3]
        self._frames_THWC = frames_THWC
        self.most_ahead = 0
        self.consumed = 0

    def records(self) -> Iterator[Frame]:
        for index, frame_HWC in enumerate(self._frames_THWC):
            self.most_ahead = max(self.most_ahead, index + 1 - self.consumed)
            yield Frame(index, index * 40_000, encode_rgb(frame_HWC, jpeg_quality=95))


class Scripted:
    """An estimator that answers what it is told to, whatever it sees."""

    def __init__(self, answer: Found | Exception) -> None:
        self.answer = answer
        self.batches: list[tuple[int, ...]] = []

    def estimate(self, frames_THWC: np.ndarray) -> Sequence[Found]:
        self.batches.append(frames_THWC.shape)
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer] * len(frames_THWC)


def stage_with(monkeypatch: pytest.MonkeyPatch, answer: Found | Exception) -> tuple[PoseStage, Scripted]:
    estimator = Scripted(answer)
    monkeypatch.setattr(pose, "make_estimator", lambda options, model_path: estimator)
    return PoseStage(OPTIONS, model_sha256="0" * 64, model_path="model.task"), estimator


def test_people_are_kept_by_size_times_score() -> None:
    small, large, middle = (0.9, (0, 0, 10, 10)), (0.5, (0, 0, 30, 20)), (0.5, (0, 0, 20, 19))
    people = keep_people(
        found(small, middle, large), frame=3, width_px=100, height_px=50, options=PoseOptions(max_people=2)
    )
    assert people.frame == 3
    assert people.boxes_P4.tolist() == [[0, 0, 30, 20], [0, 0, 20, 19]]
    assert people.scores_P.tolist() == [0.5, 0.5]


def test_equal_people_keep_the_estimators_order() -> None:
    people = keep_people(
        found((0.5, (0, 0, 10, 10)), (0.5, (20, 0, 30, 10))),
        frame=0,
        width_px=99,
        height_px=99,
        options=OPTIONS,
    )
    assert people.boxes_P4[:, 0].tolist() == [0, 20]


def test_low_scores_and_people_outside_are_dropped_and_boxes_clipped() -> None:
    answer = found(
        (0.29, (0, 0, 50, 50)), (0.9, (200, 0, 300, 50)), (0.9, (9, 9, 9, 9)), (0.9, (-20, -20, 300, 40))
    )
    people = keep_people(answer, frame=0, width_px=100, height_px=50, options=OPTIONS)
    assert people.boxes_P4.tolist() == [[-0.5, -0.5, 99.5, 40]]
    assert people.keypoints_PK3.shape == (1, 17, 3)


@pytest.mark.parametrize("field", range(3))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_from_the_model_rejects_the_clip_and_names_the_frame(field: int, bad: float) -> None:
    answer = found((0.9, (0, 0, 10, 10)))
    answer[field].flat[0] = bad
    with pytest.raises(ClipRejected, match=r"frame 7: the pose model returned NaN or infinite"):
        keep_people(answer, frame=7, width_px=10, height_px=10, options=OPTIONS)


def test_arrays_that_do_not_fit_together_reject_the_clip() -> None:
    answer = found((0.9, (0, 0, 10, 10)))._replace(boxes_P4=np.zeros((2, 4), np.float32))
    with pytest.raises(ClipRejected, match=r"frame 1: .*shapes \(\(1,\), \(2, 4\), \(1, 17, 3\)\)"):
        keep_people(answer, frame=1, width_px=10, height_px=10, options=OPTIONS)


def test_a_hundred_people_become_the_six_largest() -> None:
    crowd = found(*((0.5, (0, 0, 1 + side, 1 + side)) for side in range(100)))
    people = keep_people(crowd, frame=0, width_px=200, height_px=200, options=OPTIONS)
    assert people.boxes_P4[:, 2].tolist() == [100, 99, 98, 97, 96, 95]


def test_stage_yields_one_record_a_frame_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, estimator = stage_with(monkeypatch, found((0.9, (0, 0, 10, 10))))
    clip = Clip(np.zeros((40, 24, 32, 3), np.uint8))
    output = stage.process(clip)
    assert (output.width_px, output.height_px) == (32, 24)
    frames = []
    for record in output.records:
        assert isinstance(record, People)
        frames.append(record.frame)
        clip.consumed = len(frames)
    assert frames == list(range(40))
    assert [shape[0] for shape in estimator.batches] == [16, 16, 8]
    assert clip.most_ahead <= 16


def test_nobody_is_a_record_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, _ = stage_with(monkeypatch, found())
    records = list(stage.process(Clip(np.zeros((3, 24, 32, 3), np.uint8))).records)
    assert [len(record.scores_P) for record in records] == [0, 0, 0]


def test_a_model_that_raises_is_not_taken_for_a_bad_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, _ = stage_with(monkeypatch, RuntimeError("graph stopped"))
    with pytest.raises(RuntimeError, match=r"the pose model failed in frames .0, 3.: graph stopped"):
        list(stage.process(Clip(np.zeros((3, 24, 32, 3), np.uint8))).records)


def test_spec_has_the_digest_and_not_the_path() -> None:
    spec = PoseStage(OPTIONS, model_sha256="ab" * 32, model_path="/home/me/model.task").spec()
    assert spec == {
        "backend": "mediapipe",
        "model_sha256": "ab" * 32,
        "max_people": 6,
        "min_person_score": 0.3,
        "min_keypoint_score": 0.3,
    }


def test_model_file_is_the_users_own_or_the_back_ends(
    tmp_path: Path, pose_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pose.model_file(PoseOptions()) == str(pose_bundle)
    assert pose.model_file(PoseOptions(model="mine.task")) == "mine.task"
    monkeypatch.setenv("PERFNET_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="run `perfnet models fetch movenet`"):
        pose.model_file(PoseOptions(backend="movenet"))
    (tmp_path / "net.json").write_text('{"weightsManifest": []}')
    packed = pose.model_file(PoseOptions(backend="movenet", model=str(tmp_path / "net.json")))
    assert Path(packed).parent == tmp_path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "openpose"}, "pose.backend: found 'openpose', expected one of mediapipe, movenet, file"),
        ({"backend": "file"}, "pose.keypoints: found None, expected a path if and only if"),
        ({"keypoints": "x.json"}, "pose.keypoints: found 'x.json', expected a path if and only if"),
        ({"input_side_px": 250}, "pose.input_side_px: found 250, expected a multiple of 32"),
        ({"min_person_score": 1.5}, "pose.min_person_score: found 1.5, expected between 0 and 1"),
        ({"keypoints_fps": 0}, "pose.keypoints_fps: found 0"),
    ],
)
def test_options_name_what_is_wrong(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PoseOptions(**options)


def test_stage_can_be_pickled() -> None:
    stage = PoseStage(OPTIONS, model_sha256="0" * 64, model_path="x")
    assert pickle.loads(pickle.dumps(stage)).spec() == stage.spec()  # noqa: S301 - our own bytes


def test_importing_the_stage_loads_no_framework() -> None:
    code = (
        "import sys, transforms.pose, transforms.render\n"
        "assert not {'mediapipe', 'tensorflow', 'torch', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestMediapipe:
    def stage(self, pose_bundle: Path) -> PoseStage:
        return PoseStage(OPTIONS, model_sha256="0" * 64, model_path=str(pose_bundle))

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "no.task").write_bytes(b"text")
        stage = PoseStage(OPTIONS, model_sha256="0" * 64, model_path=str(tmp_path / "no.task"))
        with pytest.raises(ValueError, match=r"pose.model: MediaPipe cannot use .*no.task"):
            stage.setup()

    @pytest.mark.parametrize("shape", [(12, 16), (16, 12), (256, 340), (1, 1)])
    @pytest.mark.parametrize("grey", [0, 127, 255])
    def test_nobody_in_a_picture_of_one_colour(
        self, pose_bundle: Path, shape: tuple[int, int], grey: int
    ) -> None:
        stage = self.stage(pose_bundle)
        stage.setup()
        (record,) = stage.process(Clip(np.full((1, *shape, 3), grey, np.uint8))).records
        assert len(record.scores_P) == 0

    def test_the_astronaut_is_where_she_is_whatever_the_shape(self, pose_bundle: Path) -> None:
        photograph = pytest.importorskip("skimage.data").astronaut()
        wide = np.zeros((256, 512, 3), np.uint8)
        wide[:, 200:456] = photograph[::2, ::2]
        estimator = pose.make_estimator(OPTIONS, str(pose_bundle))
        (alone,) = estimator.estimate(photograph[None])
        (aside,) = estimator.estimate(wide[None])
        face_K2 = alone.keypoints_PK3[0, :5, :2]
        # pixel centres: x in the halved picture is (x + 0.5) / 2 - 0.5
        np.testing.assert_allclose(
            (face_K2 + 0.5) / 2 - 0.5 + (200, 0), aside.keypoints_PK3[0, :5, :2], atol=4
        )
        assert np.hypot(*(face_K2[0] - (221, 122))) < 12, "the nose of the photograph is at (221, 122)"

    def test_threads_get_the_same_people_as_one_alone(self, pose_bundle: Path) -> None:
        photograph = pytest.importorskip("skimage.data").astronaut()[None, ::2, ::2]
        estimator = pose.make_estimator(OPTIONS, str(pose_bundle))
        alone = estimator.estimate(photograph)[0]
        others: list[Found] = []
        threads = [
            threading.Thread(target=lambda: others.extend(estimator.estimate(photograph))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(others) == 3
        for other in others:
            for one, two in zip(alone, other, strict=True):
                np.testing.assert_array_equal(one, two)

    def test_nothing_is_printed(self, pose_bundle: Path) -> None:
        code = (
            "import sys, numpy as np\n"
            "from skimage.data import astronaut\n"
            "from transforms.options import PoseOptions\n"
            "from transforms.pose import make_estimator\n"
            "found, = make_estimator(PoseOptions(), sys.argv[1]).estimate(astronaut()[None])\n"
            "assert len(found.scores_P) == 1\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(pose_bundle)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.real_data
    def test_real_people_are_found(self, pose_bundle: Path, real_data: Path) -> None:
        import cv2

        estimator = pose.make_estimator(OPTIONS, str(pose_bundle))
        people = []
        for path in sorted((real_data / "pose_truth").glob("*.jpg")):
            picture_HWC = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            people.append(len(estimator.estimate(picture_HWC[None])[0].scores_P))
        assert len(people) == 4
        assert min(people) >= 1
        assert people[3] == 1, "one person reported twice is one person"
