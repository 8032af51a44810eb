"""The metadata of the Flex Template: which parameters the Dataflow console asks for.

python -m pipelines.flex_template > metadata.json
"""

import inspect
import json
import types
from typing import Any, get_args

from pipelines.stages import STAGES

# What a template's launcher has no use for: it stages one job and leaves.
LEFT_OUT = ("workers", "dry_run", "commit", "skip_code", "quiet", "verbose", "overrides", "beam_args")
_PATTERNS = {bool: "^(true|false)$", float: r"^(0(\.\d+)?|1(\.0+)?)$", int: r"^\d+$", str: r"^[^\n]+$"}
# What the signature of the command cannot say.
_STRICTER: dict[str, dict[str, Any]] = {
    "stage": {"regexes": [f"^({'|'.join(STAGES)})$"]},
    "config": {"regexes": [r"^gs://[^\n]+$"], "paramType": "GCS_READ_FILE", "isOptional": False},
}
# Dataflow itself asks for project, region and machines.
_IMAGE = {
    "name": "sdk_container_image",
    "label": "Sdk container image",
    "helpText": "The image that this template was built from; its workers run the stage.",
    "regexes": [r"^[\w./:@-]+$"],
    "paramType": "TEXT",
    "isOptional": False,
}


def metadata() -> dict[str, Any]:
    """Name, description and parameters, as `gcloud dataflow flex-template build --metadata-file` wants them."""
    from pipelines.commands import prepare

    options = [p for p in inspect.signature(prepare).parameters.values() if p.name not in LEFT_OUT]
    helps = _helps(prepare)
    return {
        "name": "perfnet: one stage",
        "description": "Computes what is stale of one store of a perfnet workspace.",
        "parameters": [*(_parameter(option, helps[option.name]) for option in options), _IMAGE],
    }


def _parameter(option: inspect.Parameter, text: str) -> dict[str, Any]:
    """One option of `perfnet prepare` as the console asks for it."""
    kinds = (
        get_args(option.annotation)
        if isinstance(option.annotation, types.UnionType)
        else (option.annotation,)
    )
    about = {
        "name": option.name,
        "label": option.name.replace("_", " ").capitalize(),
        "helpText": text,
        "regexes": [_PATTERNS[kinds[0]]],
        "paramType": "TEXT",
        "isOptional": option.default is not option.empty,
    }
    return about | _STRICTER.get(option.name, {})


def _helps(command: Any) -> dict[str, str]:
    """What `--help` says of each option, so that both say the same."""
    from docstring_parser import parse

    found = parse(inspect.getdoc(command) or "").params
    return {p.arg_name: " ".join((p.description or "").split()) for p in found}


if __name__ == "__main__":
    print(json.dumps(metadata(), indent=2))
