"""Shared fixtures: where the real clips are."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# gcsfs reads this once, when it is imported, which any test may do; with it on, it never reaches an emulator.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips; skips where it is absent, fails where it is promised."""
    folder = Path(os.environ.get("PERFNET_REAL_DATA") or ROOT.parent / "shared" / "data")
    if folder.is_dir():
        return folder
    reason = f"no real clips: {folder} is absent; name the folder in PERFNET_REAL_DATA"
    if os.environ.get("PERFNET_REQUIRE_REAL_DATA"):
        pytest.fail(reason)
    pytest.skip(reason)
