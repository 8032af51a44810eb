"""The options after `--`, looked at before anything is run: Beam itself drops those that it does not know."""

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, _BeamArgumentParser

from stores import files

DATAFLOW = "DataflowRunner"
LOCAL_RUNNERS = (None, "DirectRunner", "FnApiRunner", "BundleBasedDirectRunner")


class _Parser(_BeamArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"Beam options: {message}")


def beam_parser() -> argparse.ArgumentParser:
    """A parser of all options that Beam knows, for every runner."""
    parser = _Parser(allow_abbrev=False, add_help=False)
    for kind in {str(kind): kind for kind in PipelineOptions.__subclasses__()}.values():
        kind._add_argparse_args(parser)
    return parser


def check_known(beam_args: Sequence[str]) -> None:
    """Refuses an option that Beam would silently drop.

    Raises:
        ValueError: names it, and the nearest known one.
    """
    parser = beam_parser()
    _, unknown = parser.parse_known_args(list(beam_args))
    if not unknown:
        return
    name = unknown[0].split("=", 1)[0]
    close = difflib.get_close_matches(name, parser._option_string_actions, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"unknown Beam option {files.quoted(name)}{hint}")


def runner_of(beam_args: Sequence[str]) -> str | None:
    """The runner as typed, without the package it may be named with."""
    name: str | None = PipelineOptions(list(beam_args)).view_as(StandardOptions).runner
    return name.rsplit(".", 1)[-1] if name else None


def is_local(beam_args: Sequence[str]) -> bool:
    return runner_of(beam_args) in LOCAL_RUNNERS


def is_dataflow(beam_args: Sequence[str]) -> bool:
    return runner_of(beam_args) == DATAFLOW
