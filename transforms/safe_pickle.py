"""Reads pickles of strangers: builds NumPy arrays, numbers, text and plain containers, and nothing else.

Nothing of the pickle's choosing is called. What NumPy's pickles name is replaced by stand-ins here, which check sizes
and build the array from bytes; every other name is refused. Pickles of protocol 0 to 5, NumPy 1 and 2.
"""

import io
import pickle
from typing import Any, NoReturn

import numpy as np

NUMBER_KINDS = "biuf"


class _Dtype:
    """Stands in for numpy.dtype: a number type, whose byte order comes as state."""

    def __init__(self, name: str, *_: object) -> None:
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in NUMBER_KINDS:
            raise pickle.UnpicklingError(f"an array of {name!r}, where only numbers are read")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


class _Array:
    """Stands in for numpy.ndarray while the pickle is read."""

    def __init__(self) -> None:
        self.values = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, column_major, content = state
        self.values = _array(content, dtype, shape, "F" if column_major else "C")


def _array(content: Any, dtype: Any, shape: tuple[int, ...], order: str) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray | str):
        raise pickle.UnpicklingError("an array that is not of numbers")
    raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.values = _array(content, dtype, shape, order)
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, (), "C")[()]


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _ndarray(*_: object) -> NoReturn:
    raise pickle.UnpicklingError("a call of numpy.ndarray")


_STAND_INS = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _ndarray,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return _STAND_INS[module, name]


def loads(content: bytes) -> Any:
    """The pickled object, of arrays, numbers, text, lists, tuples and dicts.

    Raises:
        ValueError: the pickle holds anything else, or is damaged.
    """
    try:
        return _plain(_Unpickler(io.BytesIO(content), encoding="latin1").load())
    except (
        *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError),
        *(ValueError, OverflowError, MemoryError, RecursionError),
    ) as error:
        raise ValueError(f"not a pickle of arrays and plain containers: {error}") from error


def _plain(found: Any) -> Any:
    if isinstance(found, _Array):
        return found.values
    if isinstance(found, list | tuple):
        return type(found)(_plain(item) for item in found)
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    if found is None or isinstance(found, bool | int | float | str | bytes | np.generic):
        return found
    raise pickle.UnpicklingError(f"an object of type {type(found).__name__}")
