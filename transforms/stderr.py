"""Silence for native libraries that print to file descriptor 2 whatever they are told."""

import contextlib
import os
import threading
from collections.abc import Iterator

_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def stderr_silenced() -> Iterator[None]:
    """Drops what anybody in the process writes to file descriptor 2: for the moment in which a model is made."""
    with _one_at_a_time:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
