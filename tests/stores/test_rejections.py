"""Reason codes are a closed list, and the documentation has them all."""

import re
from pathlib import Path

import pytest

from stores.rejections import REASONS, Rejection

DATA_MODEL = Path(__file__).parents[2] / "docs" / "data-model.md"


def test_the_documented_list_is_the_whole_list() -> None:
    text = DATA_MODEL.read_text().split("## Rejected clips")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| (data|transient) \| (.+) \|$", text, re.MULTILINE)
    assert {reason: (cause, meaning) for reason, cause, meaning in rows} == REASONS


def test_other_reasons_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown rejection reason 'tired'; known: missing_file"):
        Rejection("a", "k", "data", "tired", "")
