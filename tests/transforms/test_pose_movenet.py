"""Shape legend: H rows, W columns, C channels, P people, K = 17 keypoints."""

import io
import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from transforms import tfjs
from transforms.images import decode_rgb
from transforms.keypoints import mirror_keypoints, similarity
from transforms.movenet_model import pack_model
from transforms.options import PoseOptions
from transforms.pose import PoseEstimator, PoseStage, make_estimator
from transforms.pose_movenet import MovenetEstimator, letterbox, people_from_output

SHAPES = [(480, 640), (640, 480), (100, 1000), (256, 256), (12, 16), (1, 1), (1000, 3)]


class TestLetterbox:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("side_px", [256, 384])
    def test_longer_side_and_multiples_of_32(self, shape: tuple[int, int], side_px: int) -> None:
        input_HWC, (scale_x, scale_y) = letterbox(np.full((*shape, 3), 200, np.uint8), side_px)
        assert max(input_HWC.shape[:2]) == side_px
        assert input_HWC.shape[0] % 32 == input_HWC.shape[1] % 32 == 0
        inner_height, inner_width = round(shape[0] * scale_y), round(shape[1] * scale_x)
        assert (input_HWC[:inner_height, :inner_width] == 200).all()
        assert input_HWC[inner_height:].size == 0 or input_HWC[inner_height:].max() == 0
        assert input_HWC[:, inner_width:].size == 0 or input_HWC[:, inner_width:].max() == 0

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_point_comes_back_to_its_pixel(self, shape: tuple[int, int]) -> None:
        """The brightest pixel of the input, reported by the model's convention, is the marked pixel."""
        height_px, width_px = shape
        input_HWC, scale_xy = letterbox(np.zeros((*shape, 3), np.uint8), 256)
        row, column = height_px // 3, width_px // 4
        # by the corner convention the centre of pixel (row, column) is at (column + 1/2) × scale
        y = (row + 0.5) * scale_xy[1] / input_HWC.shape[0]
        x = (column + 0.5) * scale_xy[0] / input_HWC.shape[1]
        output_PN = np.zeros((1, 56), np.float32)
        output_PN[0, :51] = np.tile([y, x, 0.7], 17)
        output_PN[0, 51:] = [y, x, y, x, 0.9]
        found = people_from_output(output_PN, input_shape=input_HWC.shape[:2], scale_xy=scale_xy)
        np.testing.assert_allclose(found.keypoints_PK3[0, :, 0], column, atol=1e-3)
        np.testing.assert_allclose(found.keypoints_PK3[0, :, 1], row, atol=1e-3)
        np.testing.assert_allclose(found.boxes_P4[0], [column, row, column, row], atol=1e-3)
        assert found.scores_P.tolist() == [np.float32(0.9)]


def archive_of(topology: dict[str, object], manifest: list[object], weights: bytes = b"") -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(), "w")
    archive.writestr("net.json", json.dumps({"modelTopology": topology, "weightsManifest": manifest}))
    archive.writestr("w.bin", weights)
    return archive


class TestTfjs:
    def test_weights_of_two_types_by_hand(self) -> None:
        manifest = [
            {
                "paths": ["w.bin"],
                "weights": [
                    {"name": "a", "shape": [2], "dtype": "float32",
                     "quantization": {"dtype": "float16", "original_dtype": "float32"}},
                    {"name": "b", "shape": [], "dtype": "int32"},
                ],
            }
        ]  # fmt: skip
        content = np.array([0.5, -2], np.float16).tobytes() + np.int32(7).tobytes()
        weights = tfjs.read_weights(archive_of({}, manifest, content), manifest)
        assert weights["a"].tolist() == [0.5, -2]
        assert weights["a"].dtype == np.float32
        assert weights["b"] == 7
        with pytest.raises(ValueError, match="its weights have 9 bytes, the manifest says 8"):
            tfjs.read_weights(archive_of({}, manifest, content + b"x"), manifest)

    def test_weights_quantised_to_integers_are_refused(self) -> None:
        quantised = {
            "name": "a",
            "shape": [1],
            "dtype": "float32",
            "quantization": {"dtype": "uint8", "scale": 1},
        }
        manifest = [{"paths": ["w.bin"], "weights": [quantised]}]
        with pytest.raises(ValueError, match="weight a is quantised to uint8"):
            tfjs.read_weights(archive_of({}, manifest, b"1"), manifest)

    def test_a_graph_that_writes_files_is_refused(self, tmp_path: Path) -> None:
        nodes = [
            {"name": "t", "op": "Placeholder", "attr": {"dtype": {"type": "DT_STRING"}}},
            {"name": "w", "op": "WriteFile", "input": ["t", "t"]},
        ]
        path = tmp_path / "net.zip"
        with zipfile.ZipFile(path, "w") as archive:
            topology = {"node": nodes, "versions": {"producer": 808}}
            archive.writestr("net.json", json.dumps({"modelTopology": topology, "weightsManifest": []}))
        with pytest.raises(ValueError, match=r"net.zip' is no MoveNet: it holds operations .*: WriteFile"):
            MovenetEstimator(str(path), input_side_px=256)

    @pytest.mark.parametrize("content", [b"text", b""])
    def test_a_file_that_is_no_archive(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "net.zip").write_bytes(content)
        with pytest.raises(ValueError, match=r"pose.model: .*net.zip' is no MoveNet"):
            MovenetEstimator(str(tmp_path / "net.zip"), input_side_px=256)


@pytest.fixture(scope="module")
def estimator(movenet: str) -> PoseEstimator:
    return make_estimator(PoseOptions(backend="movenet", input_side_px=384), movenet)


@pytest.mark.real_data
class TestModel:
    def test_the_stage_uses_it_and_its_side_is_in_the_spec(
        self, movenet: str, estimator: PoseEstimator
    ) -> None:
        options = PoseOptions(backend="movenet", input_side_px=384)
        stage = PoseStage(options, model_sha256="0" * 64, model_path=movenet)
        stage.setup()
        assert make_estimator(options, movenet) is estimator
        spec = stage.spec()
        assert (spec["backend"], spec["input_side_px"], spec["min_person_score"]) == ("movenet", 384, 0.2)

    def test_mirrored_pictures_have_mirrored_people(self, estimator: PoseEstimator, real_data: Path) -> None:
        picture_HWC = decode_rgb((real_data / "pose_truth/000000000785.jpg").read_bytes())
        (found,) = estimator.estimate(picture_HWC[None])
        (mirrored,) = estimator.estimate(np.ascontiguousarray(picture_HWC[None, :, ::-1]))
        back_PK3 = mirror_keypoints(mirrored.keypoints_PK3, picture_HWC.shape[1])
        assert similarity(found.keypoints_PK3[0], back_PK3[0], found.boxes_P4[0]) > 0.9

    @pytest.mark.parametrize("shape", [(142, 214), (425, 1500), (900, 640)])
    def test_a_person_stays_where_they_are_in_other_pictures(
        self, estimator: PoseEstimator, real_data: Path, shape: tuple[int, int]
    ) -> None:
        """Smaller, or with black around: the person is the same one, letterboxed or not."""
        picture_HWC = decode_rgb((real_data / "pose_truth/000000000785.jpg").read_bytes())
        (found,) = estimator.estimate(picture_HWC[None])
        scale = min(1.0, shape[0] / picture_HWC.shape[0])
        small_HWC = cv2.resize(picture_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        canvas_HWC = np.zeros((*shape, 3), np.uint8)
        top, left = shape[0] - small_HWC.shape[0], shape[1] - small_HWC.shape[1]
        canvas_HWC[top:, left:] = small_HWC
        (again,) = estimator.estimate(canvas_HWC[None])
        keypoints_K3 = again.keypoints_PK3[again.scores_P.argmax()].copy()
        keypoints_K3[:, :2] = (keypoints_K3[:, :2] - (left, top) + 0.5) / scale - 0.5
        assert similarity(found.keypoints_PK3[0], keypoints_K3, found.boxes_P4[0]) > 0.75

    @pytest.mark.parametrize("shape", [(12, 16), (1, 1), (256, 340)])
    def test_nobody_in_a_picture_of_one_colour(
        self, estimator: PoseEstimator, shape: tuple[int, int]
    ) -> None:
        for grey in (0, 127, 255):
            (found,) = estimator.estimate(np.full((1, *shape, 3), grey, np.uint8))
            assert (found.scores_P < 0.2).all()

    def test_a_failure_of_tensorflow_is_told_as_ours(
        self, movenet: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import tensorflow as tf

        def fail(_: np.ndarray) -> np.ndarray:
            raise tf.errors.InternalError(None, None, "out of luck")

        estimator = MovenetEstimator(movenet, input_side_px=64)
        monkeypatch.setattr(estimator, "_run", fail)
        with pytest.raises(RuntimeError, match="TensorFlow: out of luck"):
            estimator.estimate(np.zeros((1, 8, 8, 3), np.uint8))

    def test_nothing_is_printed(self, movenet: str) -> None:
        code = (
            "import sys, numpy as np\n"
            "from transforms.options import PoseOptions\n"
            "from transforms.pose import make_estimator\n"
            "make_estimator(PoseOptions(backend='movenet'), sys.argv[1]).estimate(np.zeros((1, 9, 9, 3), np.uint8))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, movenet], capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_threads_share_it(self, estimator: PoseEstimator, real_data: Path) -> None:
        picture_THWC = decode_rgb((real_data / "pose_truth/000000196141.jpg").read_bytes())[None]
        alone = estimator.estimate(picture_THWC)[0]
        others = []
        threads = [
            threading.Thread(target=lambda: others.extend(estimator.estimate(picture_THWC))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for other in others:
            np.testing.assert_array_equal(other.keypoints_PK3, alone.keypoints_PK3)
        assert len(others) == 2

    @pytest.mark.slow
    def test_a_saved_model_folder_gives_the_same_people(
        self,
        movenet: str,
        estimator: PoseEstimator,
        real_data: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("PERFNET_CACHE", str(tmp_path / "cache"))
        code = (
            "import sys, zipfile\nimport tensorflow as tf\nfrom transforms.tfjs import read_graph\n"
            "graph = read_graph(zipfile.ZipFile(sys.argv[1]))\n"
            "whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=''), [])\n"
            "net = whole.prune('input:0', 'Identity:0')\n"
            "call = tf.function(lambda image: {'output_0': net(image)},\n"
            "    input_signature=[tf.TensorSpec((1, None, None, 3), tf.int32, name='input')])\n"
            "tf.saved_model.save(tf.Module(), sys.argv[2], signatures={'serving_default': call})\n"
        )
        folder = tmp_path / "saved"
        subprocess.run(
            [sys.executable, "-c", code, movenet, str(folder)], check=True, timeout=300, capture_output=True
        )
        saved = MovenetEstimator(str(pack_model(str(folder))), input_side_px=384)
        picture_THWC = decode_rgb((real_data / "pose_truth/000000196141.jpg").read_bytes())[None]
        (expected,), (found,) = estimator.estimate(picture_THWC), saved.estimate(picture_THWC)
        np.testing.assert_allclose(found.scores_P, expected.scores_P, atol=1e-3)
        np.testing.assert_allclose(found.keypoints_PK3[:4], expected.keypoints_PK3[:4], atol=0.5)
