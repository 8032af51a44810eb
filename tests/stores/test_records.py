"""Records refuse nonsense at birth."""

import numpy as np
import pytest

from stores.records import FlowPair, Frame, People
from stores.rejections import REASONS, ClipRejected, Rejection


def test_people_name_expected_and_found_shapes() -> None:
    with pytest.raises(ValueError, match=r"expected shapes .*\(2, 17, 3\).*found .*\(2, 17, 2\)"):
        People(3, np.zeros(2, np.float32), np.zeros((2, 4), np.float32), np.zeros((2, 17, 2), np.float32))


def test_people_refuse_nan() -> None:
    with pytest.raises(ValueError, match="NaN"):
        People(
            0, np.array([np.nan], np.float32), np.zeros((1, 4), np.float32), np.zeros((1, 17, 3), np.float32)
        )


def test_nobody_is_a_record() -> None:
    assert People.nobody(7).keypoints_PK3.shape == (0, 17, 3)


@pytest.mark.parametrize(
    "make", [lambda: Frame(-1, 0, b"x"), lambda: Frame(0, 0, b""), lambda: FlowPair(0, b"x", b"")]
)
def test_frames_and_pairs_refuse_nonsense(make) -> None:
    with pytest.raises(ValueError, match="frame"):
        make()


def test_reasons_are_a_closed_list() -> None:
    with pytest.raises(AssertionError):
        ClipRejected("bad luck")
    with pytest.raises(ValueError, match="unknown rejection reason"):
        Rejection("a", "k", "data", "bad luck", "")
    assert all(cause in ("data", "transient") and text for cause, text in REASONS.values())
    assert ClipRejected("timeout", "no frame for 2 s").cause == "transient"
