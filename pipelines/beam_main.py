"""One stage, told by flags only: the entry for launchers that know no sub-commands, such as Airflow's Beam operator.

    python -m pipelines.beam_main --stage=flow --config=gs://bucket/perfnet.yaml --runner=DataflowRunner --project=…

What `perfnet prepare` takes is ours, every other flag is Beam's. Two things differ from `perfnet prepare`:

* everything goes to standard error, because the operator reads that to its end before it looks at standard output;
* a Dataflow job goes on when this process is stopped (`--run.leave_running=false` cancels it): once the operator has
  read the job's id it needs this process no more, cancels by itself, and commits with `perfnet prepare --commit`.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

OURS = ("config", "workspace", "max_rejected", "workers")
SWITCHES = ("retry_rejected", "force", "skip_code", "quiet")
_SUBMITTED = "Created job with id"


class _Outlet(io.TextIOBase):
    """Standard error that may lose its reader as soon as the job's id is told: then what does not fit is dropped."""

    def write(self, text: str) -> int:
        content = text.encode(errors="backslashreplace")
        try:
            while content:
                content = content[os.write(2, content) :]
        except (BlockingIOError, BrokenPipeError):
            return len(text)
        if _SUBMITTED in text and not os.isatty(2):
            os.set_blocking(2, False)
        return len(text)

    def fileno(self) -> int:
        return 2

    def isatty(self) -> bool:
        return os.isatty(2)


def split(arguments: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """The stage, our flags and Beam's.

    Raises:
        ValueError: no --stage, or something that is no flag.
    """
    stage, ours, beam = "", [], []
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name:
            raise ValueError(f"found {argument!r}, expected only flags of the form --name=value")
        if name == "stage":
            stage = value
        elif name in SWITCHES and value:
            ours += [f"--{name}"] if value == "true" else []
        elif name in (*OURS, *SWITCHES) or "." in name:
            ours.append(argument)
        else:
            beam.append(argument)
    if not stage:
        raise ValueError("--stage is missing: frames, pose, render or flow")
    return stage, ours, beam


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point; exit codes as those of perfnet."""
    os.dup2(2, 1)
    sys.stdout = sys.stderr = _Outlet()
    from pipelines import cli
    from pipelines.exit_codes import EXIT_USAGE

    try:
        stage, ours, beam = split(sys.argv[1:] if arguments is None else arguments)
    except ValueError as error:
        print(f"perfnet: {error}")
        sys.exit(EXIT_USAGE)
    cli.main(["prepare", stage, "--run.leave_running=true", *ours, "--", *beam])


if __name__ == "__main__":
    main()
