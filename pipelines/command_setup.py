"""What all commands share: reading the configuration, checking the machine."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.config import Config, load_config
from stores import files


def config_of(path: str | None, overrides: Mapping[str, Any], **flags: Any) -> Config:
    """The configuration with flags such as max_rejected folded into its section `run`."""
    given = {
        f"run.{name}": value for name, value in flags.items() if value is not None and value is not False
    }
    with in_flags({key: f"--{key.removeprefix('run.')}" for key in given}):
        return load_config(path, {**overrides, **given})


@contextlib.contextmanager
def in_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """Lets a refusal name the flag that was typed instead of the key that it stands for.

    Args:
        flags: key of the configuration → flag.
    """
    try:
        yield
    except ValueError as error:
        where, colon, rest = str(error).partition(": ")
        named = where
        for key, flag in flags.items():
            named = named.replace(key, flag)
        if named == where:
            raise
        raise ValueError(f"{named}{colon}{rest}") from error


def check_libraries() -> None:
    from pipelines.system_libraries import complaint

    problem = complaint()
    if problem:
        raise ValueError(problem)


def record_config(config: Config) -> None:
    """Keeps the configuration of the last run beside the stores; a record only."""
    files.put_bytes(files.join(config.workspace, "perfnet.yaml"), config.to_yaml().encode())
