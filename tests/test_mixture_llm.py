"""Against mixture-llm 0.1.3: the same pipelines ask the same and answer the same."""

import asyncio
import random
from collections import Counter
from typing import Any

import mixture_llm
import pytest

import langchain_mixture

PIPELINES = 400
"""How many random pipelines are compared; the seed is the number."""


class Client:
    """A scripted client that keeps what it was asked.

    The answer depends on the model's name alone: `fail` fails, `judge` ranks, and
    every other one answers with its name, which the pipelines use only once.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, float, int]] = []

    async def __call__(
        self, *, model: str, messages: list[Any], temp: float, max_tokens: int
    ) -> tuple[str, int, int]:
        """Answer."""
        self.asked.append((model, temp, max_tokens))
        if "fail" in model:
            raise RuntimeError(model)  # not worth retrying, which mixture-llm cannot
        if "judge" in model:
            order = list(range(1, 10))
            random.Random(model).shuffle(order)
            line = ", ".join(map(str, order))
            return (f"Ranking: {line}" if "marked" in model else line), 7, 8
        return f"{model} says {random.Random(model).random()}", 5, 6


def pipeline(draw: random.Random, library: Any) -> list[Any]:
    """Draw a pipeline; the same draws give the same one in both libraries."""
    count = 0

    def name(kind: str = "m") -> str:
        nonlocal count
        count += 1
        return f"{kind}{count}" + ("-fail" if draw.random() < 0.15 else "")

    def settings() -> dict[str, Any]:
        return draw.choice(
            [{}, {"temp": draw.random()}, {"max_tokens": draw.randint(1, 999)}]
        )

    def agents() -> list[str]:
        return [name() for _ in range(draw.randint(1, 4))]

    def judge() -> str:
        return name(draw.choice(["judge", "judge-marked"]))

    draws = [
        lambda: library.Propose(agents(), **settings()),
        lambda: library.Synthesize(agents(), **settings()),
        lambda: library.Aggregate(name(), **settings()),
        lambda: library.Refine(agents(), **settings()),
        lambda: library.Rank(judge(), draw.randint(1, 4), **settings()),
        lambda: library.Vote(name(), **settings()),
        lambda: library.Shuffle(),
        lambda: library.Sample(draw.randint(1, 4)),
        lambda: library.Take(draw.randint(1, 4)),
        lambda: library.Filter(lambda text: "1" in text or "m" in text),
        lambda: library.Map(lambda text: f"{text}."),
    ]
    first = [f"p{n}" for n in range(draw.randint(1, 6))]
    steps = [library.Propose(first, **settings())]
    return steps + [draw.choice(draws)() for _ in range(draw.randint(1, 6))]


def is_at_fault(history: list[dict[str, Any]]) -> bool:
    """Tell whether mixture-llm fell to a fault that is mended here.

    A Refine with a failed call drops that response; a step that asks several models
    and gets nothing wipes the answers that were there.
    """
    return any(
        (row["step"] == "Refine" and any("error" in c for c in row["llm_calls"]))
        or not row["outputs"]
        for row in history
    )


def calls_by_step(history: Any) -> list[Counter[str]]:
    """Give the models asked in each step, whatever their order."""
    return [Counter(call["model"] for call in row["llm_calls"]) for row in history]


def test_random_pipelines_ask_and_answer_as_mixture_llm_does() -> None:
    """Models, their number per step, temp, max_tokens and the final text agree."""
    compared = Counter[str]()
    for seed in range(PIPELINES):
        theirs, ours = Client(), Client()
        text, history = asyncio.run(
            mixture_llm.run(pipeline(random.Random(seed), mixture_llm), "Why?", theirs)
        )
        if is_at_fault(history):
            compared["at fault"] += 1
            continue
        steps = pipeline(random.Random(seed), langchain_mixture)
        our_text, our_history = asyncio.run(
            langchain_mixture.run(steps, "Why?", ours, on_failure="keep")
        )
        where = f"seed {seed}: {steps}"
        assert calls_by_step(our_history) == calls_by_step(history), where
        assert Counter(ours.asked) == Counter(theirs.asked), where
        counts = [len(row["outputs"]) for row in history]
        assert [len(row["outputs"]) for row in our_history] == counts, where
        tokens = [[c["in_tokens"] for c in row["llm_calls"]] for row in history]
        ours_tokens = [
            [c["in_tokens"] for c in row["llm_calls"]] for row in our_history
        ]
        assert list(map(sum, ours_tokens)) == list(map(sum, tokens)), where
        if any(row["step"] in ("Shuffle", "Sample") for row in history):
            compared["by number"] += 1
            continue
        assert our_text == text, where
        compared["by text"] += 1
    assert compared["by text"] >= 100
    assert compared["by number"] >= 50


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_dropout_leaves_as_many_as_mixture_llms(rate: float) -> None:
    """At the ends Dropout leaves the same number, between them as many on average."""

    def average(library: Any) -> float:
        steps = [library.Propose(list("abcdef")), library.Dropout(rate)]
        counts = []
        for _ in range(60):
            _, history = asyncio.run(library.run(steps, "Why?", Client()))
            counts.append(len(history[1]["outputs"]))
        return sum(counts) / 60

    assert average(langchain_mixture) == pytest.approx(average(mixture_llm), abs=1.2)


def test_the_faults_of_mixture_llm_are_errors_or_degraded_answers_here() -> None:
    """Where mixture-llm hides a failure, this says it."""
    propose = langchain_mixture.Propose(["a-fail", "b-fail"])
    with pytest.raises(langchain_mixture.NoResponsesError):
        asyncio.run(langchain_mixture.run([propose], "Why?", Client()))
    steps = [
        langchain_mixture.Propose(["a"]),
        langchain_mixture.Aggregate("b-fail"),
    ]
    with pytest.raises(langchain_mixture.StepFailedError):
        asyncio.run(langchain_mixture.run(steps, "Why?", Client()))
