"""Compiled kernels, cached on disk wherever a folder for that can be written."""

import os
import tempfile
from collections.abc import Callable
from typing import Any

from numba import config, njit


def _private_cache() -> str | None:
    """A cache folder under the temporary folder that nobody else can write to, or None."""
    path = os.path.join(tempfile.gettempdir(), f"perfnet-numba-{os.getuid()}")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        status = os.lstat(path)
    except OSError:
        return None
    private = status.st_uid == os.getuid() and not status.st_mode & 0o077
    return path if private and os.path.isdir(path) else None


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """For the parts of hot loops: Numba copies them in, so that LLVM's own judgement is not asked."""
    return njit(inline="always")(function)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's `njit` without the GIL, cached on disk where any folder for it can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither this package's folder, the user's cache nor NUMBA_CACHE_DIR can be written
        fallback = _private_cache()
    if fallback is None:
        return njit(**options)(function)
    before, config.CACHE_DIR = config.CACHE_DIR, fallback
    try:
        return njit(cache=True, **options)(function)
    finally:
        config.CACHE_DIR = before
