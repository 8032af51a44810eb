"""The command that writes the report."""

from collections.abc import Mapping
from typing import Any

from pipelines.command_setup import check_libraries, config_of
from pipelines.results import size


def report(*, config: str | None = None, output: str | None = None, overrides: Mapping[str, Any]) -> int:
    """Write one HTML page about a workspace: data set, stores, rejected clips, animations, curves, accuracies.

    The page needs nothing beside itself and no network.
    Example: perfnet report --config perfnet.yaml --output report.html

    Args:
        config: YAML file.
        output: file to write, also gs://; none means reports/report.html of the workspace.
    """
    check_libraries()
    loaded = config_of(config, overrides)
    try:
        from pipelines.report import write_report
    except ModuleNotFoundError as error:
        raise ValueError(f"report needs {error.name}: pip install 'perfnet[report]'") from error
    uri, size_bytes = write_report(loaded, output)
    print(f"{uri} ({size(size_bytes)})")
    return 0
