"""A dataset of LangSmith's: its examples, and the scores as feedback."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from langchain_mixture.evaluation.found import Found
from langchain_mixture.evaluation.needs import needed


def download(dataset: str) -> list[dict[str, Any]]:
    """Return the examples of a dataset as rows with `id`, `input` and `gold`.

    The input is the field of that name, else the only one; so is the gold answer among
    the outputs. All other fields stand beside them.
    """
    client = needed("langsmith").Client()
    return [
        {
            **(example.outputs or {}),
            **(example.inputs or {}),
            "id": str(example.id),
            "input": _only(example.inputs, "input"),
            "gold": _only(example.outputs, "gold"),
        }
        for example in client.list_examples(dataset_name=dataset)
    ]


def _only(values: Mapping[str, Any] | None, name: str) -> Any:
    values = values or {}
    if name in values or len(values) != 1:
        return values.get(name)
    return next(iter(values.values()))


def upload(found: Found, dataset: str) -> None:
    """Make each candidate an experiment of the dataset, its scores the feedback."""
    client = needed("langsmith").Client(auto_batch_tracing=False)
    source = client.read_dataset(dataset_name=dataset)
    for name, kind in found.kinds.items():
        project = client.create_project(
            f"{name}-{uuid4().hex[:8]}",
            description=str(found.verdicts.get(name, kind)),
            reference_dataset_id=source.id,
        )
        for question in found.questions:
            answer = question.answers[name]
            run, now = uuid4(), datetime.now(UTC)
            begun = now - timedelta(seconds=answer.seconds)
            client.create_run(
                name,
                {"input": question.question},
                "chain",
                id=run,
                outputs={"answer": answer.text},
                error=answer.error,
                project_name=project.name,
                reference_example_id=question.id,
                start_time=begun,
                end_time=now,
            )
            client.create_feedback(
                run,
                key="score",
                score=answer.score,
                session_id=project.id,
                start_time=begun,
            )
