"""The command line: finds the command, a function of `pipelines.commands`, parses its arguments and reports the end."""

import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import yaml

from pipelines.exit_codes import EXIT_FAILED, EXIT_USAGE
from pipelines.progress import close_screens
from pipelines.system_errors import in_words, is_failure
from pipelines.wrong_values import wrong_value
from stores import files

_OURS = tuple(
    str(Path(__file__).resolve().parents[1] / room) + os.sep
    for room in ("pipelines", "stores", "transforms", "models")
)
_INJECTED = ("overrides", "beam_args")
_OVERRIDES = "any key of the configuration can be given as --section.key VALUE, and --workspace FOLDER"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point; ends the process with an exit code: 0 done, 1 failed, 2 usage, 99 nothing to do."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = run(arguments)
    except KeyboardInterrupt:
        print(
            "perfnet: interrupted; finished shards and checkpoints are kept, run the same command to go on",
            file=sys.stderr,
        )
        sys.stderr.flush()
        os._exit(130)  # Beam's threads would wait for workers that are already gone
    sys.exit(code)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code; a user's mistake is one line, never a traceback."""
    from pipelines.commands import COMMANDS
    from stores.checks import Damaged, StageFailed
    from stores.objects import StorageError

    ours, beam_args = _split_off_beam(arguments)
    try:
        prog, function, rest = _find(ours, COMMANDS)
        injected: dict[str, Any] = {}
        parameters = inspect.signature(function).parameters
        if "overrides" in parameters:
            injected["overrides"], rest = _split_off_overrides(rest)
        if "beam_args" in parameters:
            injected["beam_args"] = beam_args
        elif beam_args:
            raise ValueError(f"this command takes no -- options; found {' '.join(beam_args)}")
        keywords = _parse(function, prog, rest) | injected
        try:
            return int(function(**keywords) or 0)
        finally:
            close_screens()
    except (StageFailed, StorageError, Damaged) as error:
        return _report(str(error), EXIT_FAILED)
    except OSError as error:
        if is_failure(error):
            return _report(in_words(error), EXIT_FAILED)
        return _report(in_words(error), EXIT_USAGE) if error.filename is not None else _report_bug(error)
    except ValueError as error:
        return _report(str(error), EXIT_USAGE) if _raised_by_us(error) else _report_bug(error)
    except Exception as error:  # noqa: BLE001  a bug in the program: said in one line, with the traceback kept
        return _report_bug(error)


def _report(message: str, code: int) -> int:
    first, *more = message.splitlines() or [""]
    print(f"perfnet: {files.printable(first)}", *map(files.printable, more), sep="\n", file=sys.stderr)
    return code


def _report_bug(error: BaseException) -> int:
    path = os.path.abspath("perfnet-error.log")
    try:
        Path(path).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        where = f"the traceback is in {path}"
    except OSError:
        where = "".join(traceback.format_exception(error))
    last = str(error).strip().splitlines()
    return _report(f"unexpected {type(error).__name__}: {last[-1] if last else ''}; {where}", EXIT_FAILED)


def _raised_by_us(error: ValueError) -> bool:
    """Whether our own code refused something, rather than a library deep inside."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and os.path.realpath(frames[-1].filename).startswith(_OURS)


def _split_off_beam(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Whatever follows `--` goes to Beam untouched."""
    if "--" not in arguments:
        return list(arguments), []
    index = list(arguments).index("--")
    return list(arguments[:index]), list(arguments[index + 1 :])


def _split_off_overrides(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Takes `--section.key VALUE` and `--workspace FOLDER` out of the arguments."""
    overrides: dict[str, Any] = {}
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if not name.startswith("--") or not ("." in name or name == "--workspace"):
            rest.append(argument)
            continue
        if not equals:
            found = next(remaining, None)
            if found is None:
                raise ValueError(f"{files.printable(name)} needs a value")
            value = found
        overrides[name[2:]] = value if name == "--workspace" else _yaml_value(name, value)
    return overrides, rest


def _yaml_value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{files.printable(name)}: {files.quoted(text)} is not a YAML value") from error


def _find(
    arguments: Sequence[str], commands: Mapping[str, Any]
) -> tuple[str, Callable[..., Any], Sequence[str]]:
    """The command's name as typed, its function, and the arguments that are left."""
    names = ["perfnet"]
    found: Any = commands
    while isinstance(found, dict):
        name = arguments[0] if arguments else "--help"
        if name in ("-h", "--help"):
            _show_commands(" ".join(names), found)
        if name not in found:
            typed = files.quoted(" ".join([*names[1:], name]))
            raise ValueError(f"unknown command {typed}; known: {', '.join(found)}")
        names.append(name)
        found, arguments = found[name], arguments[1:]
    return " ".join(names), found, arguments


def _show_commands(prog: str, commands: Mapping[str, Any]) -> NoReturn:
    width = max(map(len, commands))
    print(f"usage: {prog} <command> [options]   ({prog} <command> --help says more)\n")
    for name, found in commands.items():
        summary = (
            "has its own commands: " + ", ".join(found) if isinstance(found, dict) else inspect.getdoc(found)
        )
        print(f"  {name:{width}}  {str(summary).splitlines()[0]}")
    print(f"\nWhere a command takes --config, {_OVERRIDES}.")
    raise SystemExit(0)


def _parse(function: Callable[..., Any], prog: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Parses the arguments of one command by its signature: what is not keyword-only is positional, bool is a flag."""
    import argparse

    from docstring_parser import parse as parse_docstring
    from jsonargparse import ArgumentError, ArgumentParser

    about = parse_docstring(inspect.getdoc(function) or "")
    helps = {p.arg_name: " ".join((p.description or "").split()) for p in about.params}
    description = "\n\n".join(filter(None, [about.short_description, about.long_description]))
    parser = ArgumentParser(
        prog=prog,
        description=description,
        exit_on_error=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, parameter in inspect.signature(function).parameters.items():
        if name in _INJECTED:
            continue
        _add_argument(parser, name, parameter, helps.get(name, ""))
    try:
        return vars(parser.parse_args(list(arguments)))
    except ArgumentError as error:
        raise ValueError(_one_line(str(error), prog)) from error


def _add_argument(parser: Any, name: str, parameter: inspect.Parameter, text: str) -> None:
    kind, default = parameter.annotation, parameter.default
    empty = inspect.Parameter.empty
    if kind is bool:
        parser.add_argument(f"--{name}", action="store_true", help=text)
    elif parameter.kind is inspect.Parameter.KEYWORD_ONLY and kind in (list[str], list[str] | None):
        parser.add_argument(
            f"--{name}", nargs="+", type=str, required=default is empty, default=default, help=text
        )
    elif parameter.kind is inspect.Parameter.KEYWORD_ONLY and default is empty:
        parser.add_argument(f"--{name}", type=kind, required=True, help=text)
    elif default is not empty:
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    elif kind == list[str]:
        parser.add_argument(name, nargs="*", type=str, help=text)
    else:
        parser.add_argument(name, type=kind, help=text)


def _one_line(message: str, prog: str) -> str:
    """jsonargparse explains over several indented lines; ours say it in one."""
    told = wrong_value(message)
    if told:
        return f"--{told[0]}: {told[1].removesuffix(' or null')}"
    return f"{' '.join(message.split())}; see {prog} --help"


if __name__ == "__main__":
    main()
