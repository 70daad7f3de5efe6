"""compare: what is asked, what is paid, what is kept, what is shown."""

from __future__ import annotations

import _thread
import asyncio
import json
import logging
import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
)
from langchain_core.runnables import RunnableLambda

from langchain_mixture import (
    Agent,
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    Propose,
    Rank,
    Refine,
    Reply,
    Response,
    Sample,
    Shuffle,
    Step,
    Synthesize,
    Take,
    cascade,
    exact,
)
from langchain_mixture.evaluation import (
    Comparison,
    acompare,
    choose,
    compare,
    judged,
    matches,
    reliability,
    verdicts,
)
from langchain_mixture.evaluation.candidates import Plan, Run
from langchain_mixture.evaluation.panel import plurality
from langchain_mixture.evaluation.store import Asked, Store
from langchain_mixture.prices import dollars_of
from tests.models import Crowd, Scripted, models
from tests.recorded import BEST_FIRST, letters, needs_recorded


@dataclass(frozen=True)
class Counted(Step):
    """Keep the first response of the plurality."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return (), 1

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        winner = plurality([response["text"] for response in responses])
        return [next(r for r in responses if r["text"] == winner)]


def answering(name: str, share: float) -> Callable[[list[BaseMessage]], str]:
    """Answer A in a share of the questions and samples, always in the same."""

    def script(messages: list[BaseMessage]) -> str:
        sample = messages[-1].response_metadata.get("sample", "1.1")
        draw = zlib.crc32(f"{name} {messages[-1].text} {sample}".encode()) % 1000
        return "A" if draw < share * 1000 else "BCD"[draw % 3]

    return script


def panel(**shares: float) -> dict[str, Scripted]:
    """Make models that are right in a share of the questions."""
    return models(**{name: answering(name, share) for name, share in shares.items()})


def questions(count: int) -> list[dict[str, Any]]:
    """Make questions whose answer is A."""
    return [{"input": f"Question {n}?", "gold": "A"} for n in range(1, count + 1)]


EXACT = matches(str.strip)


def found_by(
    candidates: Any, examples: Any = 10, score: Any = EXACT, **options: Any
) -> Comparison:
    """Compare without a progress bar; a number of examples makes as many."""
    rows = questions(examples) if isinstance(examples, int) else examples
    return compare(candidates, rows, score, progress=False, **options)


# -- What is asked -------------------------------------------------------------------


def test_a_question_is_asked_once_for_all_candidates() -> None:
    """Three mixtures over one panel: a mixture's proposals are its members' answers."""
    client = panel(a=0.7, b=0.6, c=0.5)
    proposed = Propose(["a", "b", "c"])
    found = found_by(
        {
            "count": [proposed, Counted()],
            "two": [Propose(["a", "b"]), Counted()],
            "fused": [proposed, Aggregate("a")],
            "b": "b",
        },
        client=client,
    )
    plain = [m for m in client["a"].asked if len(m) == 1]
    assert (len(plain), len(client["a"].asked)) == (10, 20)
    assert [len(client[name].asked) for name in "bc"] == [10, 10]
    assert found.calls == 40
    assert {row["candidate"]: row["calls"] for row in found.rows} == {
        "count": 3, "two": 2, "fused": 4, **dict.fromkeys("abc", 1),
    }  # fmt: skip


def test_members_are_all_agents_that_write_with_the_settings_of_their_step() -> None:
    """Writers are members by themselves, pure judges are not."""
    client = panel(a=0.7, b=0.6, judge=0.5, writer=0.5)
    steps = [
        Propose(["a", "b"], temp=0.7, prompt="You are a critic."),
        Rank("judge", 1),
        Aggregate("writer", max_tokens=9),
        Refine(["a"]),
    ]
    found = found_by({"mix": steps}, 2, client=client)
    assert found.members == {"mix": ["a", "b", "writer", "a (alone)"]}
    calls = list(zip(client["a"].asked, client["a"].arguments, strict=True))
    alone = [kwargs for messages, kwargs in calls if len(messages) == 1]
    critic = [kwargs for messages, kwargs in calls if "critic" in messages[0].text]
    assert alone == [{}] * 2
    assert critic == [{"temperature": 0.7}] * 2
    assert {"max_tokens": 9} in client["writer"].arguments


def test_what_a_chat_mixture_sets_for_the_answer_is_its_members_setting() -> None:
    """The answering agents alone get it; the same model proposes without."""
    client = panel(a=0.7)
    mixture = ChatMixture(
        [Propose(["a"]), Aggregate("a")], client=client, temperature=0.2
    )
    found = found_by({"mix": mixture}, 1)
    assert len(found.members["mix"]) == 2
    kinds = Counter(
        (len(m), k.get("temperature"))
        for m, k in zip(client["a"].asked, client["a"].arguments, strict=True)
    )
    assert kinds == {(1, None): 1, (2, 0.2): 1, (1, 0.2): 1}


def test_in_a_cascade_every_agent_that_may_answer_has_the_mixtures_settings() -> None:
    """Which one answers is known only when it runs."""
    client = panel(a=0.7, b=0.6, strong=0.9)
    mixture = ChatMixture(
        cascade(["a", "b"], "strong", exact), client=client, temperature=0.2
    )
    found = found_by({"mix": mixture}, 10)
    assert found.members == {"mix": ["a", "b", "strong"]}
    for name, model in client.items():
        assert model.arguments == [{"temperature": 0.2}] * 10, name


def test_the_samples_of_a_mixture_are_averaged_for_the_model_alone() -> None:
    """Five samples are five calls, and all of them the single model's score."""
    client = panel(a=0.6)
    found = found_by({"five": [Propose(["a"] * 5), Counted()]}, 20, client=client)
    assert found.calls == len(client["a"].asked) == 100
    samples = [m[-1].response_metadata.get("sample") for m in client["a"].asked[:5]]
    assert samples == [None, "1.2", "1.3", "1.4", "1.5"]
    script = answering("a", 0.6)
    right = sum(script(m) == "A" for m in client["a"].asked)
    assert sum(found.scores("a")) / 20 == pytest.approx(right / 100)
    assert len(found.questions[0].answers["a"].scores) == 5


def test_samples_are_numbered_through_all_steps() -> None:
    """Two steps that ask the same model the same question get two answers."""
    plan = Plan(
        {"x": [Propose(["a", "a"]), Propose(["b", "a"]), Take(1)]}, models("a", "b")
    )
    slots = plan.candidates["x"].slots
    assert [(slot.index, slot.sample) for slot in slots] == [
        (0, 1), (0, 2), (1, 1), (1, 3),
    ]  # fmt: skip
    assert plan.candidates["a"].samples == {1, 2, 3}


def test_repeats_are_averaged_within_a_question() -> None:
    """Each run has samples of its own."""
    client = panel(a=0.6, b=0.5)
    found = found_by(
        {"mix": [Propose(["a", "b"]), Take(1)]}, 5, client=client, repeats=3
    )
    assert found.calls == 30
    assert len(found.questions[0].answers["mix"].scores) == 3
    assert len(found.verdicts["mix"].interval) == 2


def test_candidates_may_be_any_runnable_or_a_graph() -> None:
    """A function, a bound model, a whole mixture as one agent."""
    inner = ChatMixture([Propose(["a"]), Aggregate("b")], client=models("a", b="A"))
    found = found_by(
        {
            "function": RunnableLambda(lambda messages: "A"),
            "bound": Scripted(model="x", script="B").bind(stop=["."]),
            "graph": inner.graph,
            "mix": [Propose([inner])],
        },
        2,
    )
    scores = {row["candidate"]: row["score"] for row in found.rows}
    assert scores == {"function": 1, "bound": 0, "graph": 1, "mix": 1,
                      "langchain-mixture": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"candidates": {}}, "candidates is empty"),
        ({"candidates": {"x": 5}}, "candidates['x'] is a int"),
        ({"examples": []}, "examples is empty"),
        ({"examples": [{"gold": "A"}]}, "examples[0] has no input (gold)"),
        ({"examples": [{"input": "q", "id": 1}] * 2}, "has the id '1' of an earlier"),
        ({"examples": Path("none.jsonl")}, "there is no such file"),
        ({"examples": {1}}, "examples is a set"),
        ({"cluster": "story"}, "examples[0] has no 'story'"),
        ({"repeats": 0}, "repeats is 0; allowed: a whole number >= 1"),
        ({"concurrency": True}, "concurrency is True"),
        ({"score": 5}, "score is no function"),
        ({"prices": {"a": {"output": 1.0}}}, "of which input is needed"),
        ({"max_cost": 1.0}, "max_cost is 1.0, and there is no price for: a"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_arguments_that_cannot_be_used(arguments: Any, message: str) -> None:
    """The message names the argument, its value, and what is allowed."""
    client = models("a")
    given = {"candidates": {"x": [Propose(["a"])]}, "examples": 1, **arguments}
    with pytest.raises(ValueError, match=re.escape(message)):
        found_by(client=client, **given)
    assert client["a"].asked == []


def test_a_pipeline_that_cannot_be_built_costs_nothing() -> None:
    """An unknown name in one candidate is found before any other is asked."""
    client = models("a")
    with pytest.raises(InvalidMixtureError, match="no model is named 'z'"):
        found_by({"x": [Propose(["a"])], "y": [Propose(["z"])]}, client=client)
    assert client["a"].asked == []


async def test_compare_works_where_a_loop_is_running() -> None:
    """Such as in a notebook; `acompare` runs on that loop itself."""
    client = panel(a=0.7)
    candidates = {"mix": [Propose(["a"])]}
    first = compare(candidates, questions(3), EXACT, client=client, progress=False)
    second = await acompare(
        candidates, questions(3), EXACT, client=client, progress=False
    )
    assert first.scores("mix") == second.scores("mix")
    assert first.calls == second.calls == 3


def test_no_more_calls_are_in_flight_than_allowed() -> None:
    """Questions overlap so that as many are, where one alone has fewer."""
    client = {"a": Crowd(model="a", together=3)}
    found_by({"mix": [Propose(["a"])]}, 20, client=client, concurrency=3)
    assert client["a"].most == 3


# -- What is kept --------------------------------------------------------------------

MIXTURES = {
    "count": [Propose(["a", "b", "c"]), Counted()],
    "deep": [
        Propose(["a", "b", "c"]), Shuffle(), Synthesize(["a", "b"]), Sample(1),
        Aggregate("c"),
    ],
}  # fmt: skip


def test_a_second_run_asks_nothing_and_finds_the_same(tmp_path: Path) -> None:
    """Random steps without a seed draw the same, and seconds are those of old."""
    save = tmp_path / "answers.jsonl"
    client = panel(a=0.7, b=0.6, c=0.5)
    first = found_by(MIXTURES, client=client, save=save)
    lines = save.read_text().count("\n")
    again = found_by(MIXTURES, client=panel(a=0.0, b=0.0, c=0.0), save=save)
    assert (first.calls, again.calls) == (60, 0)
    assert again.rows == first.rows
    assert again.questions == first.questions
    assert save.read_text().count("\n") == lines == 60 + 10


def test_random_steps_draw_anew_for_each_question() -> None:
    """The order of the proposals is not the same in all questions."""
    client = models("a", "b", "c")
    found_by(
        {"mix": [Propose(["a", "b"]), Shuffle(), Aggregate("c")]}, 12, client=client
    )
    shown = [m[-1].text for m in client["c"].asked if len(m) > 1]
    orders = {text.index("a answers") < text.index("b answers") for text in shown}
    assert orders == {True, False}


def test_a_line_that_was_cut_off_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing is written behind it on the same line."""
    save = tmp_path / "answers.jsonl"
    candidates = {"mix": [Propose(["a", "b"]), Counted()]}
    found_by(candidates, 3, client=panel(a=0.7, b=0.6), save=save)
    *_, last = text = [line for line in save.read_text().split("\n") if '"key"' in line]
    save.write_text("\n".join(text)[: -len(last) // 2])
    with caplog.at_level(logging.WARNING, "langchain_mixture"):
        found = found_by(candidates, 3, client=panel(a=0.7, b=0.6), save=save)
    assert found.calls == 1
    assert "1 line(s) cut off" in caplog.text
    assert found_by(candidates, 3, client=panel(a=0, b=0), save=save).calls == 0


def test_answers_with_odd_line_ends_are_read_back(tmp_path: Path) -> None:
    """A text may hold separators that end a line elsewhere, and lone surrogates."""
    save = tmp_path / "answers.jsonl"
    text = "one\u2028two\x85three\x0cfour\nfive"
    for script in (text, None):
        client = models(a=script) if script else models("a")
        found = found_by({"mix": [Propose(["a"])]}, 1, client=client, save=save)
        assert found.questions[0].answers["mix"].text == text


def test_another_file_is_not_written_into(tmp_path: Path) -> None:
    """A file that compare has not made is left as it is."""
    save = tmp_path / "notes.txt"
    save.write_text("my notes\n")
    with pytest.raises(ValueError, match="a file that compare has not written"):
        found_by({"mix": [Propose(["a"])]}, 1, client=models("a"), save=save)
    assert save.read_text() == "my notes\n"


def test_agents_that_look_the_same_need_names_to_be_saved(tmp_path: Path) -> None:
    """Else a saved answer could be given to the other."""

    def said(text: str) -> RunnableLambda[Any, str]:
        return RunnableLambda(lambda messages: text)

    mix = {"mix": [Propose([said("A"), said("B")]), Take(1)]}
    found = found_by(mix, 1)
    assert len(found.members["mix"]) == 2
    assert found.calls == 2
    with pytest.raises(ValueError, match="several agents look the same"):
        found_by(mix, 1, save=tmp_path / "answers.jsonl")


def test_a_changed_setting_is_asked_anew(tmp_path: Path) -> None:
    """The temperature, the persona, and the question belong to what is asked."""
    save = tmp_path / "answers.jsonl"
    client = panel(a=0.7)
    calls = [
        found_by({"mix": [step]}, 2, client=client, save=save).calls
        for step in (
            Propose(["a"]),
            Propose(["a"], temp=0.5),
            Propose(["a"], prompt="Be brief."),
            Propose(["a"]),
        )
    ]
    assert calls == [2, 2, 2, 0]


def test_failures_count_as_wrong_until_a_second_run(tmp_path: Path) -> None:
    """They are shown apart; only what failed, and what rests on it, is asked again."""
    save = tmp_path / "answers.jsonl"

    def flaky(messages: list[BaseMessage]) -> str:
        if messages[-1].text == "Question 3?":
            raise ConnectionError("no route, with the key sk-abcdef1234567890")
        return "A"

    candidates = {"count": [Propose(["a", "b", "c"]), Counted()]}
    client = models(a=flaky, b="A", c="B")
    first = found_by(candidates, 4, client=client, save=save)
    assert first.scores("a") == [1, 1, 0, 1]
    assert first.scores("count") == [1, 1, 1, 1]
    assert list(first.failed) == ["a"]
    assert "no route" in first.failed["a"]["3"]
    assert "sk-abcdef" not in str(first.failed) + save.read_text()
    row = next(row for row in first.rows if row["candidate"] == "count")
    assert row["degraded"] == 1
    assert "until a second run asks again: a: 1" in str(first)
    second = found_by(candidates, 4, client=models(a="A", b="A", c="B"), save=save)
    assert second.calls == 1
    assert second.failed == {}
    assert second.scores("a") == [1, 1, 1, 1]


def test_a_call_that_failed_is_not_tried_again_in_the_same_run() -> None:
    """The mixtures and the member share one failure."""
    client = models(a=ConnectionError("down"), b="A")
    steps = [Propose(["a", "b"]), Counted()]
    found_by({"one": steps, "two": [*steps, Aggregate("b")]}, 3, client=client)
    assert len(client["a"].asked) == 3


def test_a_mixture_that_fails_is_shown_with_its_reason() -> None:
    """All proposals failed: no answer, and why."""
    client = models(a=ConnectionError("down"), b="A")
    found = found_by({"mix": [Propose(["a"]), Aggregate("b")]}, 1, client=client)
    assert "down" in found.failed["mix"]["1"]
    assert found.scores("mix") == [0]


def test_replayed_answers_keep_their_message(tmp_path: Path) -> None:
    """A refusal is one also when it is replayed."""
    save = tmp_path / "answers.jsonl"
    refusal = AIMessage("", additional_kwargs={"refusal": "I cannot say."})
    for script in (refusal, "never asked"):
        client = models(a=script, b="A")
        found = found_by(
            {"mix": [Propose(["a", "b"]), Take(1)]}, 1, client=client, save=save
        )
        assert "refused" in found.questions[0].answers["a"].reasons[0]
        assert (found.scores("a"), found.scores("mix")) == ([0], [1])


@pytest.mark.parametrize(
    ("output", "tokens"),
    [
        ("A", None),
        (AIMessage("A"), None),
        (AIMessageChunk(content="A"), None),
        (
            AIMessage(
                "A",
                response_metadata={
                    "mixture": {"usage": {"input_tokens": 300, "output_tokens": 40}}
                },
            ),
            340,
        ),
    ],
    ids=["text", "message", "chunk", "a mixture's message"],
)
def test_an_agent_may_return_text_or_a_message(
    output: Any, tokens: int | None, tmp_path: Path
) -> None:
    """Its tokens are those that it tells, or estimated; a second run reads it back."""
    agent: Any = RunnableLambda(lambda _: output, name="agent")
    for calls in (1, 0):
        found = found_by(
            {"mix": [Propose([agent])]}, 1, save=tmp_path / "answers.jsonl"
        )
        assert (found.calls, found.scores("mix")) == (calls, [1])
        used = {row["candidate"]: row["tokens"] for row in found.rows}["mix"]
        assert used == tokens or (tokens is None and 0 < used < 100)


def test_an_agent_that_returns_neither_has_failed() -> None:
    """The table says what it must return."""
    agent: Any = RunnableLambda(lambda _: 7, name="agent")
    found = found_by({"mix": [Propose([agent])]}, 1)
    assert "it must return a message or text" in found.failed["mix"]["1"]


def test_ctrl_c_prints_what_is_finished_and_gives_up_what_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The table comes before the interrupt, and no call goes on behind it."""
    given_up = threading.Event()

    async def answer(messages: Any) -> str:
        if "3" not in messages[-1].text:
            return "A"
        _thread.interrupt_main()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return "B"

    agent = RunnableLambda(answer, name="agent")
    with pytest.raises(KeyboardInterrupt):
        found_by({"mix": [Propose([agent])]}, 4, concurrency=1)
    said = capsys.readouterr().out
    assert "Not finished" in said
    assert "mix" in said
    assert given_up.wait(30)


# -- Limits --------------------------------------------------------------------------


def test_max_calls_is_not_passed(tmp_path: Path) -> None:
    """What was not asked to the end is left, and a second run goes on."""
    save = tmp_path / "answers.jsonl"
    candidates = {"mix": [Propose(["a", "b"]), Aggregate("a")]}
    client = panel(a=0.7, b=0.6)
    found = found_by(candidates, client=client, save=save, max_calls=8, concurrency=1)
    assert found.calls == sum(len(m.asked) for m in client.values()) == 8
    assert 0 < len(found.questions) < 10
    assert found.left == 10 - len(found.questions)
    assert "max_calls=8 is reached" in str(found)
    rest = found_by(candidates, client=client, save=save)
    assert (rest.calls, rest.left) == (30 - 8, 0)


def test_a_terminal_shows_a_bar_while_it_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many questions are done, and the calls; it is gone at the end."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    found = compare({"a": "a"}, questions(3), EXACT, client=panel(a=0.6))
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "3 calls" in shown
    assert "of 3 questions" not in shown
    assert found.calls == 3


def test_max_cost_stops_before_the_call_that_may_pass_it() -> None:
    """Each call reads 10 tokens and writes 5, at most: 3 e-5 dollars."""
    prices = {"a": {"input": 1.0, "output": 4.0}}
    found = found_by(
        {"mix": [Propose(["a"], max_tokens=5)]}, client=panel(a=1.0), prices=prices,
        max_cost=10e-5, concurrency=1,
    )  # fmt: skip
    assert found.calls == 3
    assert found.spent == pytest.approx(9e-5)
    assert "max_cost=0.0001 would be passed" in str(found)


def test_costs_are_those_of_the_answer_as_if_nothing_were_shared() -> None:
    """A mixture's cost per further right answer is told against the best model."""
    client = models(a="B", b="B", c="A")
    prices = {name: {"input": 1.0, "output": 2.0} for name in "abc"}
    found = found_by(
        {"mix": [Propose(["a", "b"]), Aggregate("c")], "a": "a"}, 4, client=client,
        prices=prices, score=lambda example, text: text == "A",
    )  # fmt: skip
    rows = {row["candidate"]: row for row in found.rows}
    assert rows["mix"]["cost"] == pytest.approx(60e-6)
    assert rows["mix"]["tokens"] == 45
    assert rows["mix"]["cost_per_right"] is None  # c alone is as good
    assert found.spent == pytest.approx(4 * 80e-6)
    del prices["b"]
    found = found_by(
        {"mix": [Propose(["a", "b"]), Take(1)]}, 1, client=client, prices=prices
    )
    assert {r["candidate"]: r["cost"] for r in found.rows}["mix"] is None
    assert "no price" in str(found)


def test_a_further_right_answer_has_its_price() -> None:
    """What a mixture costs more than the best model, for what it has right more."""
    wrong = {"a": "Question 1?", "b": "Question 2?", "c": "Question 3?"}

    def answer(name: str) -> Callable[[list[BaseMessage]], str]:
        return lambda messages: name if messages[-1].text == wrong[name] else "A"

    found = found_by(
        {"count": [Propose(["a", "b", "c"]), Counted()]}, 3,
        client=models(**{name: answer(name) for name in wrong}),
        prices={name: {"input": 1.0, "output": 2.0} for name in wrong},
    )  # fmt: skip
    rows = {row["candidate"]: row for row in found.rows}
    assert rows["count"]["cost_per_right"] == pytest.approx(2 * 20e-6 * 3)


def test_cached_tokens_have_their_price() -> None:
    """A price that is missing is that of the input."""
    details = {"cache_read": 600_000, "cache_creation": 100_000}
    usage = {
        "input_tokens": 10**6,
        "output_tokens": 10**6,
        "input_token_details": details,
    }
    price = {"input": 1.0, "cached_read": 0.1, "cache_written": 1.25, "output": 8.0}
    assert dollars_of(price, usage) == pytest.approx(0.3 + 0.06 + 0.125 + 8)
    assert dollars_of({"input": 1.0}, usage) == pytest.approx(2.0)


def asked(seconds: float) -> Asked:
    """Make a call that took some seconds."""
    return Asked("key", "1", "a", "1.1", "by", seconds)


def test_a_mixtures_time_is_its_critical_path() -> None:
    """Of each step the slowest branch; a fallback comes after what failed."""
    run = Run(Store(), "1", 1, {}, lambda: None)
    run.calls += [
        (0, 0, asked(3)),
        (0, 1, asked(5)),
        (1, 0, asked(2)),
        (1, 0, asked(4)),
    ]
    assert run.seconds == 5 + 2 + 4


# -- Scores --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [("The answer is 12.", 12, True), ("12", "12", True), ("13", "12", False),
     ("none", "12", False)],
)  # fmt: skip
def test_matches_compares_what_the_key_reads(
    answer: str, gold: Any, right: bool
) -> None:
    """A number in the gold field, too; where there is no key nothing is right."""
    key = lambda text: (re.findall(r"\d+", text) or [None])[-1]  # noqa: E731
    assert matches(key)({"gold": gold}, answer) is right


@pytest.mark.parametrize("kind", ["async", "graded", "object"])
def test_scores_may_be_async_numbers_or_objects(kind: str) -> None:
    """A score returns a bool or a number, sync or async."""

    async def later(example: Any, answer: str) -> float:
        await asyncio.sleep(0)
        return 0.25

    class Grader:
        async def __call__(self, example: Any, answer: str) -> float:
            return 0.25

    score = {"async": later, "graded": lambda e, a: 0.25, "object": Grader()}[kind]
    found = found_by({"mix": [Propose(["a"])]}, 2, score, client=models("a"))
    assert found.scores("mix") == [0.25, 0.25]
    assert found.ceilings == {}


@pytest.mark.parametrize(
    ("score", "error"),
    [(lambda e, a: e["golden"], KeyError), (lambda e, a: "good", TypeError),
     (lambda e, a: float("nan"), TypeError), (matches(str, gold="golden"), KeyError),
     (judged(Scripted(model="j"), "Truth.", reference="golden"), KeyError)],
    ids=["raises", "text", "nan", "no gold", "no reference"],
)  # fmt: skip
def test_a_score_that_fails_is_the_users_error(score: Any, error: Any) -> None:
    """It comes up as it is, with the candidate and the example in a note."""
    with pytest.raises(error) as raised:
        found_by({"mix": [Propose(["a"])]}, 2, score, client=models("a"))
    assert "candidate 'mix' on the example" in raised.value.__notes__[0]


def test_a_judge_grades_twice_and_its_agreement_comes_first(tmp_path: Path) -> None:
    """The mean of both grades; the judge's calls are saved as well."""
    save = tmp_path / "answers.jsonl"

    def judge(messages: list[BaseMessage]) -> str:
        second = "sample" in messages[-1].response_metadata
        return "Good.\nGrade: 9" if second else "Grade: 6 of 10"

    client = {**models(a="yes", b="no"), "judge": Scripted(model="judge", script=judge)}
    score = judged("judge", "Is it brief?")
    mix = {"mix": [Propose(["a", "b"]), Take(1)]}
    found = found_by(mix, 2, score, client=client, save=save)
    assert found.scores("mix") == [0.75, 0.75]
    assert found.agreed == 0.0
    assert str(found).startswith("The judge agreed with itself on 0% of the answers")
    assert found.calls == 4 + 2 * 2 * 2  # mix and a gave the same text
    assert "Is it brief?" in client["judge"].asked[0][0].text
    assert found_by(mix, 2, score, client=client, save=save).calls == 0


@pytest.mark.parametrize(
    ("verdict", "score", "agreed"),
    [("good", 1.0, 1.0), ("bad", 0.0, 1.0), ("1", 0.5, 0.0), ("tie", 0.5, 1.0)],
    ids=["prefers it", "prefers the reference", "prefers the first", "a tie"],
)
def test_a_judge_compares_in_both_orders(
    verdict: str, score: float, agreed: float
) -> None:
    """A judge that prefers a place makes a tie, and does not agree with itself."""

    def judge(messages: list[BaseMessage]) -> str:
        text = messages[-1].text
        if verdict in ("1", "tie"):
            return f"Better: {verdict}"
        first = text.index(f"{verdict} answer") < text.index("Answer 1 ends")
        return f"**Better:** {1 if first else 2}"

    client = models(a="a good answer", judge=judge)
    rows = [{"input": "Why?", "best": "a bad answer"}]
    scoring = judged("judge", "Truth.", reference="best")
    found = found_by({"mix": [Propose(["a"])]}, rows, scoring, client=client)
    assert (found.scores("mix"), found.agreed) == ([score], agreed)


def test_a_judge_that_says_nothing_leaves_no_score() -> None:
    """The answer is shown apart, with the judge's words; so is a judge that fails."""
    client = models(a="yes", judge="I like it.", broken=ConnectionError("down"))
    for judge, words in (("judge", "no verdict: 'I like it.'"), ("broken", "down")):
        found = found_by(
            {"mix": [Propose(["a"])]}, 1, judged(judge, "Truth."), client=client
        )
        assert words in found.failed["mix"]["1"]


def test_a_judge_is_no_way_past_a_limit() -> None:
    """What it has not judged is left, and no answer gets a score of 0 for it."""
    client = models(a="yes", judge="Grade: 9")
    found = found_by(
        {"a": "a"}, 4, judged("judge", "Truth."), client=client, max_calls=4,
        concurrency=1,
    )  # fmt: skip
    assert found.calls == 4
    assert found.left == 4 - len(found.questions) > 0
    assert set(found.scores("a")) <= {0.9}
    assert "max_calls=4 is reached" in str(found)


def test_a_judge_reads_the_whole_conversation() -> None:
    """Where a question is a list of messages, each of them."""
    client = models(a="Because.", judge="Grade: 5")
    talk = [HumanMessage("Why?"), AIMessage("Why what?"), HumanMessage("Why rain?")]
    found_by({"a": "a"}, [{"input": talk}], judged("judge", "Truth."), client=client)
    assert "Why?\nWhy what?\nWhy rain?" in client["judge"].asked[0][-1].text


def test_a_judge_that_is_compared_is_warned_of() -> None:
    """Judges prefer their own answers."""
    with pytest.warns(UserWarning, match="the judge is 'a', which is compared"):
        found_by(
            {"mix": [Propose(["a", "b"]), Take(1)]}, 1, judged("a", "Truth."),
            client=models("b", a="Grade: 5"),
        )  # fmt: skip


def test_a_judge_works_by_itself() -> None:
    """Outside a comparison it asks its model."""
    score = judged(Scripted(model="j", script="Grade: 8"), "Truth.")
    assert asyncio.run(score({"input": "Why?"}, "Because.")) == pytest.approx(0.8)


def test_a_rubric_must_say_something() -> None:
    """The message names the value."""
    with pytest.raises(ValueError, match="rubric is ''"):
        judged("a", "")


# -- What is shown -------------------------------------------------------------------


def one_of_each() -> Comparison:
    """Compare a mixture that rescues one question, breaks one, and misses one."""
    right = {"a": "AABB", "b": "ABAB", "c": "BBAB"}

    def script(name: str) -> Callable[[list[BaseMessage]], str]:
        return lambda messages: right[name][int(messages[-1].text[9]) - 1]

    client = models(**{name: script(name) for name in right})
    return found_by({"mix": [Propose(["a", "b", "c"]), Counted()]}, 4, client=client)


def test_questions_are_rescued_broken_and_missed() -> None:
    """Against the best single model; the ceiling is what no member has right."""
    found = one_of_each()
    assert found.best == "a"
    assert [q.id for q in found.rescued("mix")] == ["3"]
    assert [q.id for q in found.broken("mix")] == ["2"]
    assert [q.id for q in found.missed] == ["4"]
    ceiling = found.ceilings["mix"]
    assert (ceiling.missed, ceiling.headroom) == (0.25, 0.25)
    assert found.realised("mix") == 0
    assert "1 questions rescued, 1 broken" in str(found)
    assert "All miss 1 of 4 questions." in str(found)


def test_the_verdicts_are_those_of_the_rule() -> None:
    """`compare` adds nothing to what `verdicts` says of the same scores."""
    client = panel(a=0.7, b=0.65, c=0.6)
    found = found_by(
        {"count": [Propose(["a", "b", "c"]), Counted()]}, 60, client=client
    )
    scores = {name: found.scores(name) for name in ("a", "b", "c", "count")}
    assert found.verdicts == verdicts(scores, ["count"])
    assert str(found.verdicts["count"]) in str(found)


def test_related_questions_are_kept_together() -> None:
    """Thirty questions on three texts are three observations."""
    client = models(a="B", b="A")
    rows = [{**row, "story": n % 3} for n, row in enumerate(questions(30))]
    steps = [Propose(["a"]), Aggregate("b", prompt="Copy.")]
    loose = found_by({"mix": steps, "a": "a"}, rows, client=client)
    tight = found_by({"mix": steps, "a": "a"}, rows, client=client, cluster="story")
    named = found_by(
        {"mix": steps}, rows, client=client, cluster=lambda row: row["story"]
    )
    assert loose.verdicts["mix"].best == "b"
    assert tight.verdicts == named.verdicts
    assert tight.verdicts["mix"].verdict == "cannot tell"


def test_equal_budget_samples_the_best_as_often_as_the_mixture_calls() -> None:
    """Put together by the same last step; shown, and no part of the verdicts."""
    client = panel(a=0.9, b=0.3, c=0.2)
    found = found_by(
        {
            "count": [Propose(["a", "b", "c"]), Counted()],
            "fused": [Propose(["a", "b"]), Aggregate("c")],
        },
        12,
        client=client,
        equal_budget=True,
    )
    arms = found.of_kind("equal budget")
    assert arms == ["a x3 (count)", "a x2 (fused)"]
    assert set(found.verdicts) == {"count", "fused"}
    rows = {row["candidate"]: row for row in found.rows}
    assert [rows[arm]["calls"] for arm in arms] == [3, 3]
    assert len(client["a"].asked) == 12 * 3  # its first samples are there already


def test_a_small_difference_looks_small_on_the_page() -> None:
    """Whatever the scores are, the picture covers a tenth of the scale or more."""
    found = found_by({"a": "a", "b": "b"}, 50, client=panel(a=0.70, b=0.72))
    marks = [
        float(mark) for mark in re.findall(r">([0-9.]+)%</text>", found._repr_html_())
    ]
    assert len(marks) == 5
    assert max(marks) - min(marks) >= 10


def test_the_page_is_one_file_and_escapes_all_text(tmp_path: Path) -> None:
    """No script, no address outside; a notebook gets the same in part."""
    evil = "<script>alert(1)</script> https://example.com"
    client = models(a=evil, b="B")
    found = found_by(
        {"<b>mix</b>": [Propose(["a", "b"]), Take(1)]}, 2, client=client,
        prices={name: {"input": 1.0} for name in "ab"},
    )  # fmt: skip
    found.html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page + found._repr_html_()
    assert not re.search(r"(src|href|url)\s*[=(]", page)
    assert "<b>mix" not in page
    assert "Content-Security-Policy" in page
    assert "<html" not in found._repr_html_()
    assert page.count("<circle") >= 3


def test_json_holds_everything(tmp_path: Path) -> None:
    """Verdicts, rows, and each question with its answers."""
    found = one_of_each()
    found.json(tmp_path / "found.json")
    whole = json.loads((tmp_path / "found.json").read_text())
    assert whole["verdicts"]["mix"]["verdict"] == "cannot tell"
    assert len(whole["rows"]) == 4
    assert whole["questions"][2]["answers"]["mix"]["text"] == "A"


def test_nothing_finished_is_said_and_shown(tmp_path: Path) -> None:
    """A run that was stopped before its first question has no verdict."""
    found = found_by(
        {"mix": [Propose(["a", "b"]), Take(1)]}, 3, client=models("a", "b"), max_calls=1
    )
    assert found.verdicts == {}
    assert found.rows == []
    assert "Not finished, 0 of 3 questions" in str(found)
    found.html(tmp_path / "page.html")


def test_progress_is_plain_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """First what will be asked, then how far it is; not on the standard output."""
    compare(
        {"mix": [Propose(["a", "b"]), Take(1)]}, questions(20), EXACT,
        client=models("a", "b"), equal_budget=True,
        prices={name: {"input": 1.0} for name in "ab"},
    )  # fmt: skip
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        "3 candidates, 20 questions: at most 40 calls, about $0.02 to pay" in said.err
    )
    assert "then at most 40 for equal budgets" in said.err
    assert "20 of 20 questions" in said.err


def test_the_records_of_a_comparison_choose_a_panel(tmp_path: Path) -> None:
    """From the comparison or its file: the single models alone, not the mixtures."""
    save = tmp_path / "answers.jsonl"
    client = panel(a=0.9, b=0.8, c=0.8, d=0.1)
    found = found_by(
        {"mix": [Propose(["a", "b", "c", "d"]), Counted()]},
        60,
        client=client,
        save=save,
    )
    panels = [choose(found.records), choose(save), choose(str(save))]
    assert panels[0] == panels[1] == panels[2]
    assert set(panels[0].members) == {"a", "b", "c"}
    assert panels[0].gain is not None
    assert reliability(found.records).dropped == reliability(save).dropped
    assert [len(r["answers"]) for r in found.records] == [4] * 60


def test_scores_without_a_key_choose_a_panel_too(tmp_path: Path) -> None:
    """The gain of a vote is not known then; agreement is not, either."""
    save = tmp_path / "answers.jsonl"
    found_by(
        {"mix": [Propose(["a", "b", "c"]), Take(1)]}, 50, lambda e, a: a == "A",
        client=panel(a=0.9, b=0.9, c=0.9), save=save,
    )  # fmt: skip
    chosen = choose(save)
    assert chosen.gain is None
    assert len(chosen.members) == 3
    with pytest.raises(ValueError, match="scores alone"):
        reliability(save)


@needs_recorded
def test_recorded_answers_through_real_pipelines() -> None:
    """Replaying chat models, 30 questions: the scores are those of the letters."""
    rows = letters()[:30]
    by_id = {row["id"]: row["answers"] for row in rows}

    def replay(model: str) -> Callable[[list[BaseMessage]], str]:
        return lambda messages: by_id[messages[-1].text][model] or "no letter"

    client = models(**{model: replay(model) for model in BEST_FIRST})
    key = lambda text: text if len(text) == 1 else None  # noqa: E731
    examples = [{"input": row["id"], "gold": row["gold"]} for row in rows]
    votes = {"four": BEST_FIRST[:4], "ten": BEST_FIRST}
    found = found_by(
        {name: [Propose(agents), Counted()] for name, agents in votes.items()},
        examples,
        matches(key),
        client=client,
    )
    assert found.calls == 300
    for model in BEST_FIRST:
        right = [row["answers"][model] == row["gold"] for row in rows]
        assert found.scores(model) == right
