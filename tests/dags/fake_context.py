"""What Airflow hands to a task."""

from types import SimpleNamespace
from typing import Any


def context_of(pulled: Any = None, conf: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    """What Airflow hands to a task, as far as ours look at it; `pulled` is what any XCom holds."""
    defaults: dict[str, Any] = {
        "config": "c.yaml",
        "stages": ["frames", "pose", "render", "flow"],
        "variants": [],
        "runner": "DirectRunner",
        "beam_options": {},
        "force": False,
        "max_rejected": None,
    }
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        map_index=-1,
        xcom_pull=lambda **kwargs: pulled(**kwargs) if callable(pulled) else pulled,
        xcom_push=lambda key, value: pushed.update({key: value}),
        pushed=pushed,
    )
    return {
        "params": defaults | params,
        "dag_run": SimpleNamespace(conf=conf or {}),
        "ti": ti,
        "triggering_asset_events": {},
        "outlet_events": _Outlets(),
    }


class _Outlets(dict):
    def __missing__(self, key: Any) -> Any:
        return self.setdefault(key, SimpleNamespace(extra={}))
