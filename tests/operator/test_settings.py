"""The operator's knobs: one that turns nothing is a promise nobody keeps."""

from __future__ import annotations

import re
from pathlib import Path

import moorage_operator
import pytest
from moorage_operator.settings import Settings

SOURCES = [path for path in Path(str(moorage_operator.__file__)).parent.rglob("*.py") if path.name != "settings.py"]
TEXT = "\n".join(path.read_text() for path in SOURCES)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_read(name: str) -> None:
    assert re.search(rf"settings\.{name}\b", TEXT), "nobody reads it"
