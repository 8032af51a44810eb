"""What all commands share: reading the configuration, checking the machine."""

from collections.abc import Mapping
from typing import Any

from pipelines.config import Config, load_config
from stores import files


def config_of(path: str | None, overrides: Mapping[str, Any], **flags: Any) -> Config:
    """The configuration with flags such as max_rejected folded into its section `run`."""
    given = {
        f"run.{name}": value for name, value in flags.items() if value is not None and value is not False
    }
    return load_config(path, {**overrides, **given})


def check_libraries() -> None:
    from pipelines.system_libraries import complaint

    problem = complaint()
    if problem:
        raise ValueError(problem)


def record_config(config: Config) -> None:
    """Keeps the configuration of the last run beside the stores; a record only."""
    files.put_bytes(files.join(config.workspace, "perfnet.yaml"), config.to_yaml().encode())
