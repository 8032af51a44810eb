"""What Airflow hands to a task."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

DEFAULTS: dict[str, Any] = {
    "config": "c.yaml",
    "stages": ["frames", "pose", "render", "flow"],
    "variants": [],
    "runner": "DirectRunner",
    "beam_options": {},
    "force": False,
    "max_rejected": None,
    "train_config": None,
}


def context_of(
    pulled: Any = None, conf: dict[str, Any] | None = None, told: Sequence[dict[str, Any]] = (), **params: Any
) -> dict[str, Any]:
    """What Airflow hands to a task, as far as ours look at it.

    Args:
        pulled: what any XCom holds.
        told: extras of the data set's earlier events, the last one first.
    """
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        map_index=-1,
        xcom_pull=lambda **kwargs: pulled(**kwargs) if callable(pulled) else pulled,
        xcom_push=lambda key, value: pushed.update({key: value}),
        pushed=pushed,
    )
    return {
        "params": DEFAULTS | params,
        "dag_run": SimpleNamespace(conf=conf or {}),
        "ti": ti,
        "triggering_asset_events": {},
        "outlet_events": _Outlets(),
        "inlet_events": _Inlets(told),
    }


class _Outlets(dict):
    def __missing__(self, key: Any) -> Any:
        return self.setdefault(key, SimpleNamespace(extra={}))


class _Inlets:
    """Earlier events of any asset, as Airflow's accessor gives them."""

    def __init__(self, extras: Sequence[dict[str, Any]]) -> None:
        self._events = [SimpleNamespace(extra=extra) for extra in extras]

    def __getitem__(self, asset: Any) -> "_Inlets":
        return self

    def ascending(self, ascending: bool) -> "_Inlets":
        assert not ascending
        return self

    def limit(self, limit: int) -> list[Any]:
        return self._events[:limit]
