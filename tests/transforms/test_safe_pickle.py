import collections
import io
import os
import pickle

import numpy as np
import pytest

from transforms import safe_pickle

ANNOTATION = {
    "frame_dir": "v_1",
    "label": 3,
    "img_shape": (240, 320),
    "keypoint": np.arange(24, dtype=np.float16).reshape(1, 3, 4, 2),
    "keypoint_score": np.linspace(0, 1, 12, dtype=">f4").reshape(1, 3, 4),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "scalar": np.float32(0.5),
    "nothing": None,
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back(protocol: int) -> None:
    back = safe_pickle.loads(pickle.dumps({"annotations": [ANNOTATION]}, protocol))["annotations"][0]
    assert set(back) == set(ANNOTATION)
    for name, value in ANNOTATION.items():
        np.testing.assert_array_equal(back[name], value)
    assert back["keypoint"].dtype == np.float16


def test_names_of_numpy_1_are_known() -> None:
    content = pickle.dumps(np.arange(3), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    np.testing.assert_array_equal(safe_pickle.loads(content), [0, 1, 2])


class Evil:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "thing",
    [
        Evil(os.system, "touch /tmp/perfnet-was-here"),
        Evil(eval, "1"),
        Evil(getattr, "text", "join"),
        Evil(np.ndarray, (10**13,)),
        Evil(np.dtype, "O"),
        Evil(io.open, "/etc/passwd"),
        np.array([{"a": 1}], object),
        np.array(["text"]),
        collections.OrderedDict(a=1),
        {1, 2},
        object(),
        1j,
    ],
    ids=repr,
)
def test_anything_else_is_refused_before_it_is_called(thing: object) -> None:
    with pytest.raises(ValueError, match="not a pickle of arrays and plain containers"):
        safe_pickle.loads(pickle.dumps([thing]))


@pytest.mark.parametrize("cut", [0, 1, 10, 50, -1])
def test_a_damaged_pickle_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="not a pickle of arrays"):
        safe_pickle.loads(pickle.dumps(ANNOTATION)[:cut])


def test_an_array_of_another_size_than_its_bytes_is_refused() -> None:
    content = pickle.dumps(np.zeros(5), 2)
    with pytest.raises(ValueError, match="not a pickle of arrays"):
        safe_pickle.loads(content.replace(b"K\x05\x85", b"K\x06\x85"))


def test_the_stand_ins_themselves_cannot_be_returned() -> None:
    with pytest.raises(ValueError, match="an object of type type"):
        safe_pickle.loads(b"cnumpy\ndtype\n.")
