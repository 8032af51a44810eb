"""The metadata of the Flex Template: which parameters the Dataflow console asks for.

python -m pipelines.flex_template > metadata.json
"""

import inspect
import json
from typing import Any

from pipelines.stages import STAGES

_GS_FILE, _TEXT = "GCS_READ_FILE", "TEXT"
# Parameter → (label, regular expression, kind, optional). Dataflow itself asks for project, region, machines.
_PARAMETERS: dict[str, tuple[str, str, str, bool]] = {
    "stage": ("Stage", f"^({'|'.join(STAGES)})$", _TEXT, False),
    "config": ("Configuration", r"^gs://[^\n]+$", _GS_FILE, False),
    "sdk_container_image": ("Worker image", r"^[\w./:@-]+$", _TEXT, False),
    "max_rejected": ("Largest share of rejected clips", r"^(0(\.\d+)?|1(\.0+)?)$", _TEXT, True),
    "retry_rejected": ("Try rejected clips again", "^(true|false)$", _TEXT, True),
    "force": ("Compute again what is fresh", "^(true|false)$", _TEXT, True),
}
_BEAMS = {"sdk_container_image": "The image that this template was built from; its workers run the stage."}


def metadata() -> dict[str, Any]:
    """Name, description and parameters, as `gcloud dataflow flex-template build --metadata-file` wants them."""
    helps = _helps()
    return {
        "name": "perfnet: one stage",
        "description": "Computes what is stale of one store of a perfnet workspace.",
        "parameters": [
            {
                "name": name,
                "label": label,
                "helpText": helps[name],
                "regexes": [pattern],
                "paramType": kind,
                "isOptional": optional,
            }
            for name, (label, pattern, kind, optional) in _PARAMETERS.items()
        ],
    }


def _helps() -> dict[str, str]:
    """What `perfnet prepare --help` says of each, so that both say the same."""
    from docstring_parser import parse

    from pipelines.commands import prepare

    found = parse(inspect.getdoc(prepare) or "").params
    return {p.arg_name: " ".join((p.description or "").split()) for p in found} | _BEAMS


if __name__ == "__main__":
    print(json.dumps(metadata(), indent=2))
