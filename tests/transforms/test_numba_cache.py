"""The kernels' cache on disk: used where it can be written, done without where it cannot."""

import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numba.core import caching

from transforms.numba_cache import compiled

MakeKernel = Callable[[], Callable[[int], int]]


@pytest.fixture
def make_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeKernel:
    """Compiles a kernel from a file of its own, after every folder but the private one became read-only.

    Numba's own check is replaced rather than file modes, which do not bind the superuser.
    """
    check = caching._CacheLocator.ensure_cache_path

    def refuse(locator: Any) -> None:
        if "perfnet-numba-" not in locator.get_cache_path():
            raise OSError("read-only")
        check(locator)

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    source = tmp_path / "doubling.py"
    source.write_text("def double(x):\n    return 2 * x\n")

    def make() -> Callable[[int], int]:
        names: dict[str, Any] = {"__name__": "doubling", "__file__": str(source)}
        exec(compile(source.read_text(), str(source), "exec"), names)
        return compiled(names["double"])

    return make


def test_a_read_only_installation_caches_in_a_private_temporary_folder(
    make_kernel: MakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert make_kernel()(21) == 42
    (folder,) = tmp_path.glob("perfnet-numba-*")
    assert list(folder.rglob("*.nbc"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("obstacle", ["file in its place", "open to others", "no temporary folder"])
def test_without_any_safe_folder_it_compiles_all_the_same(
    make_kernel: MakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    """A cache file is code: one that others can write to is not used."""
    import os

    temporary = tmp_path / "temporary"
    folder = temporary / f"perfnet-numba-{os.getuid()}"
    if obstacle == "no temporary folder":
        temporary.write_text("")
    else:
        temporary.mkdir()
    if obstacle == "file in its place":
        folder.write_text("")
    if obstacle == "open to others":
        folder.mkdir()
        folder.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert make_kernel()(21) == 42
    assert not list(tmp_path.rglob("*.nbc"))
