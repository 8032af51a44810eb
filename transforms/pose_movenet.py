"""MoveNet MultiPose Lightning in TensorFlow: up to six people in one pass.

Shape legend: T frames, H rows, W columns, C colour channels (RGB), P people, K = 17 COCO keypoints.
"""

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stores.records import NUM_KEYPOINTS
from transforms.pose import Found
from transforms.stderr import stderr_silenced

STRIDE_PX = 32
OUTPUT_SHAPE = (6, 56)  # people × (17 × (y, x, score), box as y0 x0 y1 x1, score)

# Operations that reach outside the graph: no pose model needs them, and a model may come from a stranger.
OUTSIDE_OPS = frozenset(
    ("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc", "ImmutableConst")
)

Session = Callable[[NDArray[np.int32]], NDArray[np.float32]]


class MovenetEstimator:
    """One TensorFlow session, which threads may share; the graph takes one picture at a time.

    The session has one thread of its own and no GPU: a worker per core is faster than threads within a picture,
    and pictures are found alike on all machines.

    Args:
        model_path: an archive made by `movenet_model.pack_model`.
        input_side_px: longer side of the picture as the model sees it, a multiple of 32. The shorter side follows
            the picture's shape, padded at the right and the bottom to a multiple of 32.

    Raises:
        ValueError: the file is no MoveNet.
    """

    def __init__(self, model_path: str, *, input_side_px: int) -> None:
        self._input_side_px = input_side_px
        with stderr_silenced():
            self._run = _load(model_path)
            found = self._run(np.zeros((1, input_side_px, input_side_px, 3), np.int32)).shape
        if found != (1, *OUTPUT_SHAPE):
            raise ValueError(f"pose.model: {model_path!r} returns shape {found}, MoveNet (1, 6, 56)")

    def estimate(self, frames_THWC: NDArray[np.uint8]) -> list[Found]:
        """People of each picture, with the model's own boxes and scores.

        Raises:
            RuntimeError: TensorFlow failed.
        """
        return [self._find(frame_HWC) for frame_HWC in frames_THWC]

    def _find(self, frame_HWC: NDArray[np.uint8]) -> Found:
        import tensorflow as tf

        input_HWC, scale_xy = letterbox(frame_HWC, self._input_side_px)
        try:
            (people_PN,) = self._run(input_HWC[None].astype(np.int32))
        except tf.errors.OpError as error:
            raise RuntimeError(f"TensorFlow: {error.message}") from error
        return people_from_output(people_PN, input_shape=input_HWC.shape[:2], scale_xy=scale_xy)


def letterbox(frame_HWC: NDArray[np.uint8], side_px: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """The picture with its longer side at `side_px`, aspect kept, padded with black to multiples of 32.

    Returns:
        The padded picture, and by how much x and y were scaled (whole pixels make them differ a little).
    """
    height_px, width_px = frame_HWC.shape[:2]
    scale = side_px / max(height_px, width_px)
    inner_width_px, inner_height_px = (max(1, round(side * scale)) for side in (width_px, height_px))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    inner_HWC = cv2.resize(frame_HWC, (inner_width_px, inner_height_px), interpolation=interpolation)
    padded_HW = (side + -side % STRIDE_PX for side in (inner_height_px, inner_width_px))
    input_HWC = np.zeros((*padded_HW, 3), np.uint8)
    input_HWC[:inner_height_px, :inner_width_px] = inner_HWC
    return input_HWC, (inner_width_px / width_px, inner_height_px / height_px)


def people_from_output(
    people_PN: NDArray[np.float32], *, input_shape: tuple[int, int], scale_xy: tuple[float, float]
) -> Found:
    """From the model's rows (y and x as shares of its input) to pixels of the picture before `letterbox`."""
    height_px, width_px = input_shape
    to_px = np.array([height_px / scale_xy[1], width_px / scale_xy[0]], np.float32)
    keypoints_PK3 = people_PN[:, : 3 * NUM_KEYPOINTS].reshape(-1, NUM_KEYPOINTS, 3)[..., [1, 0, 2]].copy()
    keypoints_PK3[..., :2] = keypoints_PK3[..., :2] * to_px[::-1] - 0.5
    boxes_P4 = people_PN[:, [52, 51, 54, 53]] * np.tile(to_px[::-1], 2) - 0.5
    return Found(people_PN[:, 55], boxes_P4.astype(np.float32), keypoints_PK3)


def _load(model_path: str) -> Session:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with zipfile.ZipFile(model_path) as archive:
            if "saved_model.pb" in archive.namelist():
                return _load_saved_model(archive)
            from transforms.tfjs import read_graph

            return _session(read_graph(archive))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"pose.model: {model_path!r} is no MoveNet: {error}") from error


def _session(graph_def: Any) -> Session:
    import tensorflow as tf

    _refuse_outside_ops(graph_def)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    session = tf.compat.v1.Session(graph=graph, config=_config())
    return session.make_callable("Identity:0", ["input:0"])


def _load_saved_model(archive: zipfile.ZipFile) -> Session:
    import tensorflow as tf

    session = tf.compat.v1.Session(graph=tf.Graph(), config=_config())
    with tempfile.TemporaryDirectory(prefix="perfnet-") as folder, session.graph.as_default():
        archive.extractall(folder)
        model = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], folder)
    _refuse_outside_ops(session.graph.as_graph_def())
    signature = model.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
    (given,), (result,) = signature.inputs.values(), signature.outputs.values()
    return session.make_callable(result.name, [given.name])


def _config() -> Any:
    import tensorflow as tf

    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1,
        inter_op_parallelism_threads=1,
        use_per_session_threads=True,
        device_count={"GPU": 0},
    )


def _refuse_outside_ops(graph_def: Any) -> None:
    if found := sorted({node.op for node in _nodes(graph_def)} & OUTSIDE_OPS):
        raise ValueError(f"it holds operations that reach outside: {', '.join(found)}")


def _nodes(graph_def: Any) -> Iterator[Any]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def
