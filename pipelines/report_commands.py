"""The command that writes the report."""

from collections.abc import Mapping
from typing import Any

from pipelines.command_setup import check_libraries
from pipelines.config import load_config
from pipelines.units import size
from stores import files


def report(
    *,
    config: str | None = None,
    output: str | None = None,
    gradcam: int = 3,
    overrides: Mapping[str, Any],
) -> int:
    """Write one HTML page about a workspace: data set, stores, rejected clips, animations, curves, accuracies.

    The page needs nothing beside itself and no network.
    Example: perfnet report --config perfnet.yaml --output report.html

    Args:
        config: YAML file; none means the configuration of the workspace's last run.
        output: file to write, also gs://; none means reports/report.html of the workspace.
        gradcam: number of test clips in which the page shows where networks look (runs each network once a clip).
    """
    if gradcam < 0:
        raise ValueError(f"--gradcam: found {gradcam}, expected a number of clips, 0 for none")
    check_libraries()
    try:
        from pipelines.report import write_report
    except ModuleNotFoundError as error:
        raise ValueError(f"report needs {error.name}: pip install -e '.[report]'") from error
    from pipelines.config_sources import annotated

    config, overrides = _last_run(config, overrides)
    loaded, text = load_config(config, overrides), annotated(config, overrides)
    uri, size_bytes = write_report(loaded, output, text, gradcam=gradcam)
    print(f"{files.printable(uri)} ({size(size_bytes)})")
    return 0


def _last_run(config: str | None, overrides: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """The record of the workspace's last run, where no configuration is named and there is one."""
    workspace = load_config(config, overrides).workspace
    record = files.join(workspace, "perfnet.yaml")
    if config is None and files.exists(record):
        return record, {**overrides, "workspace": workspace}
    return config, overrides
