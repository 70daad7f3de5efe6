"""Recorded answers of real models, where they stand beside the project."""

from __future__ import annotations

import csv
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

RECORDED = Path(__file__).parent.parent.parent / "shared" / "recorded"

needs_recorded = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="the recorded answers are not beside the project"
)

BEST_FIRST = [
    "gemini-1.5-pro-002",
    "gemini-1.5-flash-002",
    "Meta-Llama-3_1-70B-Instruct",
    "DeepSeek-Coder-V2",
    "jamba-1.5-large",
    "Qwen1.5-72B-Chat",
    "Meta-Llama-3_1-8B-Instruct",
    "Mixtral-8x7B-Instruct-v0.1",
    "Phi-3-mini-4k-instruct",
    "mathstral-7B",
]
"""The ten models of the letters."""

Record = dict[str, Any]


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


@cache
def letters() -> list[Record]:
    """Return 5,000 questions, lettered, with the answers of ten models."""
    return [
        {
            "id": row["id"],
            "gold": row["answer"],
            "answers": {model: row[model] or None for model in BEST_FIRST},
        }
        for row in recorded("mmlu_pro_letters_dev.csv.gz")
    ]


def samples(name: str) -> list[Record]:
    """Return the questions of a file with several samples of one model."""
    return recorded(f"samples_{name}_dev.jsonl.gz")
