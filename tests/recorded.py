"""Recorded answers of real models, where they stand beside the project."""

import csv
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

RECORDED = Path(__file__).parent.parent.parent / "shared" / "recorded"


@cache
def recorded(name: str) -> list[dict[str, Any]]:
    """Read a file of recorded answers, or skip the test, and say why."""
    path = RECORDED / name
    if not path.exists():
        pytest.skip(f"no recorded answers: {path} is not there")
    with gzip.open(path, "rt") as lines:
        if name.endswith(".csv.gz"):
            return list(csv.DictReader(lines))
        return [json.loads(line) for line in lines]
