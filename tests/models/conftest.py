"""Fixtures of the models' tests."""

from pathlib import Path

import pytest
from moving_squares import SMALL, put_workspace, squares

from models.options import ModelOptions


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Twelve clips to train on and six to judge by."""
    return put_workspace(tmp_path / "workspace", squares(4, split="train") + squares(2, split="test", seed=1))


@pytest.fixture
def options() -> ModelOptions:
    """A network of a few thousand parameters and a handful of steps."""
    return SMALL
