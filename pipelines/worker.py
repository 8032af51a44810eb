"""A local Beam worker process: quiet, and gone when the run that started it is gone."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys

from transforms.stderr import send_chatter_to

_PR_SET_PDEATHSIG = 1
_PIDS = "workers"


def main() -> None:
    """Prepares the process, then hands over to Beam's own worker; the one argument is the job's folder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's business
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    folder = sys.argv[1]
    os.makedirs(os.path.join(folder, _PIDS), exist_ok=True)
    with open(os.path.join(folder, _PIDS, str(os.getpid())), "wb"):
        pass
    path = os.path.join(folder, "workers.log")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    send_chatter_to(path)
    faulthandler.enable()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


def kill_workers(job_folder: str) -> None:
    """Ends the worker processes of a job that is given up."""
    with contextlib.suppress(FileNotFoundError):
        for pid in os.listdir(os.path.join(job_folder, _PIDS)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    main()
