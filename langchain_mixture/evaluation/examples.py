"""The questions: rows, a JSONL file, or a dataset of LangSmith's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages

from langchain_mixture.evaluation.langsmith import download

Example: TypeAlias = Mapping[str, Any]
"""A row with `input` and what the score needs."""

Examples: TypeAlias = Sequence[Example] | str | Path
"""Rows, the path of a JSONL file, or the name of a LangSmith dataset."""


@dataclass(frozen=True)
class Question:
    """One example, ready to be asked."""

    id: str
    """The row's `id`, else its number, from 1."""
    example: Example
    conversation: list[BaseMessage]
    cluster: Any
    """What questions that are related share; its id where none are."""

    @property
    def text(self) -> str:
        """What is asked, to be shown."""
        given = self.example["input"]
        return given if isinstance(given, str) else self.conversation[-1].text


def read_examples(
    examples: Examples, cluster: str | Callable[[Example], Any] | None
) -> list[Question]:
    """Return the questions of examples.

    Raises:
        ValueError: There are none, a row has no input, or an id stands twice.
    """
    rows = _rows(examples)
    if not rows:
        raise ValueError("examples is empty; allowed: one row or more")
    questions = [_question(place, row, cluster) for place, row in enumerate(rows)]
    seen: set[str] = set()
    for place, question in enumerate(questions):
        if question.id in seen:
            raise ValueError(
                f"examples[{place}] has the id {question.id!r} of an earlier one"
            )
        seen.add(question.id)
    return questions


def _rows(examples: Examples) -> list[Example]:
    if isinstance(examples, str | Path):
        if is_dataset(examples):
            return [*download(str(examples))]
        return _lines(Path(examples))
    if isinstance(examples, Sequence) and not isinstance(examples, str):
        return list(examples)
    raise ValueError(
        f"examples is a {type(examples).__name__}; allowed: rows, the path of a JSONL "
        "file, or the name of a LangSmith dataset"
    )


def is_dataset(examples: Examples) -> bool:
    """Tell whether examples is the name of a LangSmith dataset, and no file.

    Example:
        >>> is_dataset("capitals"), is_dataset("capitals.jsonl")
        (True, False)
    """
    if not isinstance(examples, str):
        return False
    return not (examples.endswith((".jsonl", ".json")) or Path(examples).is_file())


def _lines(path: Path) -> list[Example]:
    if not path.is_file():
        raise ValueError(f"examples is {str(path)!r}; there is no such file")
    rows: list[Example] = []
    # Not splitlines(): a text in JSON may hold other line separators.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return rows


def _question(
    place: int, row: object, cluster: str | Callable[[Example], Any] | None
) -> Question:
    if not isinstance(row, Mapping) or not row.get("input"):
        keys = ", ".join(map(str, row)) if isinstance(row, Mapping) else repr(row)
        raise ValueError(
            f"examples[{place}] has no input ({keys}); allowed: a row with input, a "
            "text or a list of messages"
        )
    given = row["input"]
    talk = [HumanMessage(given)] if isinstance(given, str) else list(given)
    name = str(row.get("id", place + 1))
    if isinstance(cluster, str):
        if cluster not in row:
            raise ValueError(f"examples[{place}] has no {cluster!r}, named by cluster")
        label = row[cluster]
    else:
        label = name if cluster is None else cluster(row)
    return Question(name, row, convert_to_messages(talk), label)
