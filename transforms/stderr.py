"""Keeps native libraries off the screen, which print to file descriptor 2 whatever they are told."""

import contextlib
import os
import threading
from collections.abc import Iterator

_one_at_a_time = threading.RLock()
_chatter = os.devnull


def send_chatter_to(path: str) -> str:
    """Names the file that silenced lines are appended to, for this process; returns the one before."""
    global _chatter
    before, _chatter = _chatter, path
    return before


@contextlib.contextmanager
def stderr_silenced() -> Iterator[None]:
    """Sends what anybody in the process writes to file descriptor 2 elsewhere, for the moment that makes a model.

    To the log of the running job, or nowhere where there is none.
    """
    with _one_at_a_time:
        kept = os.dup(2)
        elsewhere = os.open(_chatter, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.dup2(elsewhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(elsewhere)
