"""The command that writes the animated look."""

from collections.abc import Mapping
from typing import Any

from pipelines.command_setup import check_libraries, config_of
from pipelines.units import size
from stores import files


def look(
    clips: list[str],
    *,
    output: str = "look.webp",
    run: str | None = None,
    config: str | None = None,
    overrides: Mapping[str, Any],
) -> int:
    """Write an animated picture of a few clips: rgb | pose | flow, and with --run what a network says of them.

    The network looks at the videos as they pass: a bar is its answer for the window that ends at this frame.
    Example: perfnet look --config recipes/drawn.yaml --run student --output look.webp

    Args:
        clips: clip_ids, shown one after the other; one of each class where none is named, test clips first.
        output: file that ends in .webp.
        run: name of a trained run that looks at RGB; none leaves its panel out.
        config: YAML file.
    """

    if not output.endswith(".webp"):
        raise ValueError(f"--output: found {files.quoted(output)}, expected a name that ends in .webp")
    check_libraries()
    try:
        from pipelines.animated_look import write_look
    except ModuleNotFoundError as error:
        raise ValueError(f"look needs {error.name}: pip install -e '.[report]'") from error
    size_bytes, seconds = write_look(clips, config_of(config, overrides), run=run, output=output)
    print(f"{files.printable(output)} ({size(size_bytes)}, {seconds:.1f} s)")
    return 0
