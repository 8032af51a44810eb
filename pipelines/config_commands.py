"""The commands about configuration and installation: init, config, doctor."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from json import dumps
from typing import Any

from pipelines.command_setup import config_of, in_flags
from pipelines.config import ClipsOptions
from stores import files


def init(
    *,
    videos: str | None = None,
    output: str = "perfnet.yaml",
    workspace: str = "workspace",
    test_share: float = 0.3,
    group_pattern: str | None = None,
    force: bool = False,
) -> int:
    """Write a commented configuration for a folder of videos with one sub-folder a class.

    Asks where no folder is given and there is a terminal.
    Example: perfnet init --videos /data/videos --output perfnet.yaml

    Args:
        videos: folder of the videos.
        output: the file to write.
        workspace: folder for stores, runs and reports; also gs://.
        test_share: share of the clips that the networks are judged on.
        group_pattern: regular expression; its first group names clips that must stay on one side of the split.
        force: replace the file where there is one.
    """
    from pipelines.config_sources import starter
    from pipelines.importers import clips_from_folder, describe

    if os.path.exists(output) and not force:
        raise ValueError(f"--output: {files.printable(output)} exists; name another file or add --force")
    if not videos:
        if not sys.stdin.isatty():
            raise ValueError("--videos: name the folder of videos, as in `perfnet init --videos FOLDER`")
        videos = _ask("folder of videos, one sub-folder a class")
        workspace = _ask("workspace, for stores and results", workspace)
    flags = {f"clips.{name}": f"--{name}" for name in ("test_share", "group_pattern")}
    with in_flags(flags):
        options = ClipsOptions(videos, group_pattern, None, test_share)
    if files.is_local(videos) and not os.path.isdir(files.local_path(videos)):
        raise ValueError(f"--videos: {files.printable(videos)} is not a folder")
    with in_flags(flags):
        clips = clips_from_folder(videos, options)
    train_clips = list(clips.splits["split"]).count("train")
    text = starter(output, options, workspace=workspace, train_clips=train_clips)
    files.put_bytes(output, text.encode())
    print(*describe(clips), f"{files.printable(output)} is written; next:", sep="\n")
    print(f"  perfnet run --config {files.printable(output)}")
    return 0


def _ask(question: str, default: str = "") -> str:
    """An answer from the terminal; an empty one takes the default, or is asked again."""
    while True:
        shown = f"{question} [{default}]: " if default else f"{question}: "
        try:
            answer = input(shown).strip() or default
        except EOFError as error:
            raise ValueError("init: no answer; give --videos FOLDER instead") from error
        if answer:
            return answer


def show_config(*, config: str | None = None, overrides: Mapping[str, Any]) -> int:
    """Print the whole configuration, each value with where it came from; it is YAML that --config takes.

    Example: perfnet config --config recipes/demo.yaml --flow.bound_px 15

    Args:
        config: YAML file.
    """
    from pipelines.config_sources import annotated

    print(annotated(config, overrides), end="")
    return 0


def doctor(
    *,
    config: str | None = None,
    needs: list[str] | None = None,
    gcs: str | None = None,
    json: bool = False,
    overrides: Mapping[str, Any],
) -> int:
    """Look at the installation and the machine: what is there, what is missing and what for. Exits 1 if something is.

    Example: perfnet doctor --needs base beam train airflow --gcs gs://bucket/folder

    Args:
        config: YAML file whose workspace, pose model and flow backend are looked at.
        needs: what must be whole: base beam train report export demo gcp airflow score; the first three where none is
            named.
        gcs: gs:// address to try; a workspace on gs:// is tried anyway.
        json: print JSON.
    """
    from pipelines.doctor import NEEDED, examine

    checks = examine(config_of(config, overrides), needs=needs or NEEDED, gcs=gcs)
    whole = all(check.state != "missing" for check in checks)
    if json:
        print(dumps({"ok": whole, "checks": [asdict(check) for check in checks]}, indent=1))
        return 0 if whole else 1
    for check in checks:
        print(f"{check.state:<8} {check.name:<20} {check.found}")
        if check.cure:
            print(f"{'':<29} {check.cure}")
    return 0 if whole else 1
