"""A failed call is a record: what counts as one, what it says, what it costs."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.types import interrupt
from pydantic import SecretStr

from langchain_mixture import (
    Aggregate,
    Call,
    ChatMixture,
    NoResponsesError,
    Propose,
    Rank,
    Refine,
    StepFailedError,
    Synthesize,
    Vote,
    create_mixture,
    moa_lite,
    run,
)
from langchain_mixture.running.run import Run
from tests.models import Scripted, Streaming, ask, models

FAST = Scripted(model="fast")


def usage(**details: int) -> Any:
    """Make the usage of a message whose reasoning ate all tokens."""
    return {
        "input_tokens": 10,
        "output_tokens": 64,
        "total_tokens": 74,
        "output_token_details": details,
    }


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (ValueError("boom"), "ValueError: boom"),
        (RuntimeError(), "RuntimeError"),
        (TimeoutError("slow"), "TimeoutError: slow"),
        (ValueError("a\nb  c"), "ValueError: a b c"),
        (
            PermissionError("Incorrect API key provided: sk-proj-abcdefgh12345678."),
            "PermissionError: Incorrect API key provided: [redacted]",
        ),
        ("", "empty answer"),
        (" \n\t ", "empty answer"),
        (
            AIMessage("", response_metadata={"finish_reason": "stop"}),
            "empty answer (finish reason: stop)",
        ),
        (
            AIMessage(
                "",
                response_metadata={"finish_reason": "length"},
                usage_metadata=usage(reasoning=60),
            ),
            "empty answer: cut off at the token limit before any text, after 64 tokens "
            "(60 of them reasoning)",
        ),
        (
            AIMessage(
                "",
                response_metadata={"finish_reason": "length"},
                usage_metadata={**usage(reasoning=1), "output_tokens": 1},
            ),
            "empty answer: cut off at the token limit before any text, after 1 token "
            "(1 of them reasoning)",
        ),
        (
            AIMessage("", additional_kwargs={"refusal": "I will not."}),
            "refused to answer: I will not.",
        ),
        (
            AIMessage([{"type": "refusal", "refusal": "No."}]),
            "refused to answer: No.",
        ),
        (
            AIMessage(["I must say: ", {"type": "refusal", "refusal": "No\n\nway."}]),
            "refused to answer: No way.",
        ),
        (
            AIMessage("", additional_kwargs={"refusal": "No. " * 1000}),
            f"refused to answer: {('No. ' * 1000)[: 1000 - 19]}… (4019 characters)",
        ),
        (
            AIMessage("I can't.", response_metadata={"stop_reason": "refusal"}),
            "refused to answer: I can't.",
        ),
        (
            AIMessage(
                "",
                invalid_tool_calls=[
                    {"name": "f", "args": "{", "id": "1", "error": "cut"}
                ],
            ),
            "empty answer: a malformed call of the tool 'f'",
        ),
    ],
)
async def test_what_is_no_answer_is_a_failure_that_says_why(
    script: Any, error: str
) -> None:
    """Exceptions, refusals and empty replies cost one response and nothing else."""
    bad = Scripted(model="bad", script=script)
    graph = create_mixture([Propose([bad, FAST])])
    for state in (graph.invoke(ask()), await graph.ainvoke(ask())):
        mixture = state["mixture"]
        assert state["messages"][-1].text == "fast answers"
        assert mixture["status"] == "degraded"
        assert mixture["reasons"] == [f"1_propose: bad failed: {error}"]
        row = mixture["history"][0]["llm_calls"][0]
        assert row["error"] == error
        assert mixture["history"][0]["outputs"] == ["fast answers"]


def test_the_reasons_of_an_agent_that_is_a_mixture_are_short_lines() -> None:
    """They come from another process, maybe, and may be anything."""
    told = {"status": "degraded", "reasons": ["two\nlines", 7, "x" * 5000]}
    answer = AIMessage("So.", response_metadata={"mixture": told})
    state = create_mixture([Propose([Scripted(model="m", script=answer)])]).invoke(
        ask()
    )
    assert "two lines" in str(state["mixture"]["reasons"])
    assert len(str(state["mixture"]["reasons"])) < 2000


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        (
            "Unsupported value: 'temperature' does not support 0.7 with this model.",
            " (the step sets temp=0.7; temp=None leaves it out)",
        ),
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model.",
            " (the step sets max_tokens=2048; max_tokens=None leaves it out)",
        ),
        ("Rate limit reached", ""),
    ],
    ids=["temperature", "max_tokens", "neither"],
)
def test_a_refused_setting_of_a_preset_names_the_cure(said: str, cure: str) -> None:
    """Where the step sets it; what the model or the caller set is theirs."""
    bad = Scripted(model="bad", script=ValueError(said))
    state = create_mixture(moa_lite([bad, FAST], FAST)).invoke(ask())
    reason = f"1_propose: bad failed: ValueError: {said}"
    assert state["mixture"]["reasons"] == [reason + cure]
    state = create_mixture([Propose([bad, FAST])]).invoke(ask())
    assert state["mixture"]["reasons"] == [reason]


def test_the_callers_own_temperature_is_not_the_steps() -> None:
    """A value of the call itself is not blamed on the step."""
    bad = Scripted(model="bad", script=ValueError("no temperature, please"))
    model = ChatMixture([Propose([bad], temp=0.7)])
    with pytest.raises(NoResponsesError) as raised:
        model.invoke("Why?", temperature=0.2)
    assert "leaves it out" not in str(raised.value)


@pytest.mark.parametrize(
    ("metadata", "cut_off"),
    [
        ({"finish_reason": "length"}, "at its token limit"),
        ({"stop_reason": "max_tokens"}, "at its token limit"),
        ({"finish_reason": "stop"}, None),
        ({"stop_reason": "end_turn"}, None),
    ],
    ids=["OpenAI's limit", "Anthropic's limit", "OpenAI's end", "Anthropic's end"],
)
def test_an_answer_cut_off_at_its_token_limit_is_marked(
    metadata: Any, cut_off: str | None
) -> None:
    """As each provider says it, the row of the call tells."""
    answer = AIMessage("So", response_metadata=metadata)
    state = create_mixture([Propose([Scripted(model="m", script=answer)])]).invoke(
        ask()
    )
    (row,) = state["mixture"]["history"][0]["llm_calls"]
    assert row.get("cut_off") == cut_off


def test_an_end_of_turn_that_was_cut_off_is_no_answer() -> None:
    """Behind a tool's result a model may say nothing, but not because it was cut."""
    call = {"name": "f", "args": {}, "id": "1"}
    talk: Any = [("user", "Do it."), AIMessage("", tool_calls=[call])]
    talk.append(ToolMessage("done", tool_call_id="1"))
    for reason, complete in (("stop", True), ("length", False)):
        end = AIMessage("", response_metadata={"finish_reason": reason})
        graph = create_mixture([Propose([Scripted(model="m", script=end)])])
        if complete:
            assert graph.invoke({"messages": talk})["messages"][-1].text == ""
        else:
            with pytest.raises(NoResponsesError, match="cut off at the token limit"):
                graph.invoke({"messages": talk})


def test_tool_calls_without_text_are_an_answer() -> None:
    """A model that wants to call a tool has answered."""
    call = {"name": "search", "args": {"q": "ion"}, "id": "1"}
    wishing = Scripted(model="m", script=AIMessage("", tool_calls=[call]))
    state = create_mixture([Propose([wishing])]).invoke(ask())
    assert state["mixture"]["status"] == "complete"
    assert state["mixture"]["responses"][0]["tool_calls"][0]["name"] == "search"
    assert state["messages"][-1].tool_calls[0]["name"] == "search"


def test_the_tokens_of_a_failed_reply_are_counted() -> None:
    """An empty answer was paid for, and the usage says so."""
    empty = AIMessage("", usage_metadata=usage())
    graph = create_mixture([Propose([Scripted(model="e", script=empty), FAST])])
    assert graph.invoke(ask())["mixture"]["usage"]["models"]["e"]["total_tokens"] == 74


class UnprintableError(Exception):
    """An error that is itself broken."""

    def __str__(self) -> str:
        raise ValueError("broken str")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnprintableError(), "bad failed: UnprintableError"),
        (OSError("<html>" * 10_000), r"OSError: (<html>)+.*… \(60009 characters\)"),
        (StopIteration("done"), "StopIteration"),
        (asyncio.CancelledError("of its own"), "CancelledError|agent was cancelled"),
    ],
    ids=["unprintable", "long", "stop", "cancelled"],
)
async def test_an_odd_error_of_an_agent_is_a_failed_call_too(
    error: Any, said: str
) -> None:
    """Nothing that an agent raises by itself ends the run, or fills the history."""

    def bad(_: Any) -> str:
        raise error

    async def abad(_: Any) -> str:
        raise error

    agent = RunnableLambda(bad, abad, name="bad")
    graph = create_mixture([Propose([agent, FAST])])
    for state in (graph.invoke(ask()), await graph.ainvoke(ask())):
        assert state["messages"][-1].text == "fast answers"
        (reason,) = state["mixture"]["reasons"]
        assert re.search(said, reason)
        assert len(reason) < 1200


def test_a_check_that_raises_anything_fails_a_call_that_was_paid_for() -> None:
    """A step's own check may parse as it likes: the tokens are counted all the same."""

    @dataclass(frozen=True)
    class Scored(Propose):
        def calls(self, *arguments: Any) -> list[Call]:
            return [
                {**call, "check": lambda text: json.loads(text)["score"]}
                for call in super().calls(*arguments)
            ]

    client = models(a='{"x": 1}', b='{"score": 2}')
    mixture = create_mixture([Scored(["a", "b"])], client=client).invoke(ask())
    assert mixture["mixture"]["reasons"] == ["1_scored: a failed: KeyError: 'score'"]
    assert mixture["mixture"]["usage"]["models"]["a"]["total_tokens"] == 15


# -- A step that fails ---------------------------------------------------------------


def down(name: str) -> Scripted:
    """Make a model that always fails."""
    return Scripted(model=name, script=OSError(f"{name} is down"))


def test_all_proposers_failing_is_an_error_that_lists_each() -> None:
    """NoResponsesError names every agent and its error, and keeps the history."""
    graph = create_mixture([Propose([down("a"), down("b")]), Aggregate(FAST)])
    with pytest.raises(NoResponsesError) as raised:
        graph.invoke(ask())
    assert "a failed: OSError: a is down" in str(raised.value)
    assert "b failed: OSError: b is down" in str(raised.value)
    assert [c["model"] for c in raised.value.history[0]["llm_calls"]] == ["a", "b"]


@pytest.mark.parametrize(
    "step",
    [Aggregate(down("d")), Vote(down("d")), Synthesize([down("d"), down("e")])],
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_step_that_fails_loses_nothing_that_was_paid_for(
    step: Any, asynchronous: bool
) -> None:
    """By default it raises with the responses; with "keep" they stay the answer."""

    async def answer(graph: Any) -> Any:
        return await graph.ainvoke(ask()) if asynchronous else graph.invoke(ask())

    steps = [Propose([FAST, Scripted(model="slow")]), step]
    with pytest.raises(StepFailedError, match="d failed: OSError: d is down") as raised:
        await answer(create_mixture(steps))
    texts = [response["text"] for response in raised.value.responses]
    assert texts == ["fast answers", "slow answers"]
    assert [row["step"] for row in raised.value.history] == [
        "Propose",
        type(step).__name__,
    ]

    state = await answer(create_mixture(steps, on_failure="keep"))
    assert state["messages"][-1].text == "fast answers"
    assert state["mixture"]["status"] == "degraded"
    assert state["mixture"]["reasons"][-1].endswith("the responses before it are kept")


def test_nothing_to_keep_is_an_error_under_keep_too() -> None:
    """A first step whose calls all fail raises whatever on_failure says."""
    with pytest.raises(NoResponsesError):
        create_mixture([Propose([down("a")])], on_failure="keep").invoke(ask())


@pytest.mark.parametrize("verb", [Aggregate, Vote])
def test_fallbacks_are_asked_in_turn_until_one_answers(verb: Any) -> None:
    """The failed calls stay in the history, and the answer is a degraded one."""
    third = Scripted(model="third")
    unasked = Scripted(model="unasked")
    step = verb(down("first"), fallbacks=[down("second"), third, unasked])
    state = create_mixture([Propose([FAST]), step]).invoke(ask())
    assert state["messages"][-1].text == "third answers"
    calls = state["mixture"]["history"][1]["llm_calls"]
    assert [call["model"] for call in calls] == ["first", "second", "third"]
    assert ["error" in call for call in calls] == [True, True, False]
    assert state["mixture"]["status"] == "degraded"
    assert unasked.asked == []


def test_a_fallback_of_the_same_name_does_not_hide_the_failure() -> None:
    """The same model at another provider answers, and the result says what failed."""
    again = Scripted(model="first")
    step = Aggregate(down("first"), fallbacks=[again])
    mixture = create_mixture([Propose([FAST]), step]).invoke(ask())["mixture"]
    assert mixture["status"] == "degraded"
    assert mixture["reasons"] == ["2_aggregate: first failed: OSError: first is down"]


def test_a_judge_that_cannot_be_read_has_a_fallback_and_then_the_input_order() -> None:
    """An unreadable judgement is recorded, tried on the fallback, and survived."""
    vague = Scripted(model="vague", script="All good.")
    judge = Scripted(model="judge", script="Ranking: 2")
    proposals = Propose([Scripted(model="a"), Scripted(model="b")])
    graph = create_mixture([proposals, Rank(vague, 1, fallbacks=[judge])])
    assert graph.invoke(ask())["messages"][-1].text == "b answers"
    state = create_mixture([proposals, Rank(vague, 1)]).invoke(ask())
    assert state["messages"][-1].text == "a answers"
    assert "the judge names none of the 2" in state["mixture"]["reasons"][0]


def test_refine_answers_with_the_originals_where_all_its_calls_fail() -> None:
    """Refine that fails whole is a degraded answer and no error."""
    state = create_mixture([Propose([FAST]), Refine([down("a")])]).invoke(ask())
    assert state["messages"][-1].text == "fast answers"
    assert state["mixture"]["status"] == "degraded"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_each_failed_calls_traceback_is_logged_at_debug(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It shows where the model's own code raised, and from what, without its key."""

    def dial(_: Any) -> str:
        try:
            raise KeyError("my-own-password")
        except KeyError as error:
            raise OSError("no route, my-own-password") from error

    broken = Scripted(model="broken", script=dial)
    agent = broken.bind(api_key=SecretStr("my-own-password"))
    graph = create_mixture([Propose([FAST, agent])])

    async def told() -> list[str]:
        caplog.clear()
        await graph.ainvoke(ask()) if asynchronous else graph.invoke(ask())
        return [r.getMessage() for r in caplog.records if r.levelname == "DEBUG"]

    assert await told() == []
    with caplog.at_level("DEBUG", "langchain_mixture"):
        (text,) = await told()
    assert text.startswith("1_propose: broken failed\nTraceback (most recent call")
    for line in ("KeyError: '[redacted]'", "in dial", "OSError: no route, [redacted]"):
        assert line in text
    assert "my-own-password" not in text


def test_a_check_that_raises_is_told_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong with a step of one's own is found by its traceback."""

    def unknown(text: str) -> object:
        raise KeyError(text)

    @dataclass(frozen=True)
    class Strict(Propose):
        def calls(self, conversation: Any, responses: Any) -> Any:
            return [Call(messages=list(conversation), parents=[], check=unknown)]

    with caplog.at_level("DEBUG", "langchain_mixture"), pytest.raises(NoResponsesError):
        create_mixture([Strict([FAST])]).invoke(ask())
    assert "1_strict: fast failed\nTraceback" in caplog.text
    assert "KeyError: 'fast answers'" in caplog.text


def test_a_degraded_answer_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning tells why; a complete answer warns of nothing."""
    create_mixture([Propose([down("a"), FAST]), Aggregate(FAST)]).invoke(ask())
    create_mixture([Propose([FAST]), Aggregate(FAST)]).invoke(ask())
    (record,) = [r for r in caplog.records if r.name == "langchain_mixture"]
    assert record.levelname == "WARNING"
    assert "degraded answer: 1_propose: a failed: OSError" in record.getMessage()


# -- Time limits ---------------------------------------------------------------------


class Hanging:
    """An agent that never answers until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.cancelled = threading.Event()

    def agent(self) -> Any:
        """Make the Runnable, which hangs in sync and async code."""
        return RunnableLambda(self._hang, self._ahang, name="hanging")

    def _hang(self, _: Any) -> str:
        self.released.wait(60)
        return "late"

    async def _ahang(self, _: Any) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "late"


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """Give an agent that hangs, and release it in the end."""
    agent = Hanging()
    yield agent
    agent.released.set()


@pytest.mark.parametrize(
    "make",
    [
        lambda agent: create_mixture([Propose([agent, FAST], timeout=0.5)]),
        lambda agent: create_mixture([Propose([agent, FAST])], timeout=0.5),
        lambda agent: create_mixture([Propose([agent, FAST], timeout=0.5)], timeout=60),
    ],
    ids=["the step's", "the mixture's", "the step's before the mixture's"],
)
async def test_a_call_that_hangs_is_given_up(
    hanging: Hanging, make: Callable[[Any], Any]
) -> None:
    """The step's timeout, else the mixture's, ends a call; async cancels it."""
    graph = make(hanging.agent())
    for state in (graph.invoke(ask()), await graph.ainvoke(ask())):
        assert state["messages"][-1].text == "fast answers"
        (reason,) = state["mixture"]["reasons"]
        assert reason.endswith("no answer within 0.5 seconds")
    assert hanging.cancelled.is_set()


def test_a_model_has_five_minutes_and_a_graph_has_no_limit() -> None:
    """What a call may take where nobody says: 300 seconds, and for graphs no end."""
    inner = create_mixture([Propose([FAST])])
    graph: Any = create_mixture([Propose([FAST, inner])])
    layer = graph.builder.nodes["1_propose"].runnable._layer
    state: Any = {"messages": [("user", "Why?")]}
    attempts = layer.attempts(state, Run(), ends=None)
    assert [attempts[index][0].timeout for index in (0, 1)] == [300, None]


def test_a_step_without_a_limit_has_none_whatever_the_mixtures_is() -> None:
    """None on the step is an answer, and "default" leaves it to the mixture."""
    steps = [Propose([FAST], timeout=None), Propose([FAST])]
    graph: Any = create_mixture(steps, timeout=60)
    state: Any = {**ask(), "mixture": {"responses": [], "history": []}}
    limits = []
    for name in ("1_propose", "2_propose"):
        layer = graph.builder.nodes[name].runnable._layer
        ((attempt,),) = layer.attempts(state, Run(), ends=None).values()
        limits.append(attempt.timeout)
    assert limits == [None, 60]


async def test_run_takes_a_timeout(hanging: Hanging) -> None:
    """`run` gives up a call that hangs, as the graph does."""
    steps = [Propose([hanging.agent(), FAST])]
    text, history = await run(steps, "Why?", timeout=0.5)
    assert text == "fast answers"
    assert "no answer within 0.5 seconds" in history[0]["llm_calls"][0]["error"]


def test_a_models_own_timeout_keeps_its_own_words() -> None:
    """A TimeoutError of the model's is not taken for the mixture's limit."""
    own = Scripted(model="m", script=TimeoutError("read timed out"))
    state = create_mixture([Propose([own, FAST])], timeout=60).invoke(ask())
    assert state["mixture"]["reasons"][0].endswith("TimeoutError: read timed out")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_limit_of_a_streamed_answer_is_between_two_chunks(
    asynchronous: bool,
) -> None:
    """An answer that takes longer than its limit is whole as long as it goes on."""
    pauses = threading.Event()

    class Slow(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            for chunk in super()._stream(*args, **kwargs):
                pauses.wait(0.25)
                yield chunk

    text = " ".join("abcdefghij")
    steps = [Propose([Slow(model="m", script=text)])]
    graph: Any = create_mixture(steps, timeout=1.5)
    if asynchronous:
        stream = graph.astream(ask(), stream_mode="messages")
        parts = [message.text async for message, _ in stream]
    else:
        parts = [m.text for m, _ in graph.stream(ask(), stream_mode="messages")]
    assert "".join(parts) == text


def test_cancelling_the_run_cancels_the_calls(hanging: Hanging) -> None:
    """Cancellation is no failed call: it passes through at once."""

    async def main() -> None:
        graph = create_mixture([Propose([hanging.agent(), FAST])])
        task = asyncio.ensure_future(graph.ainvoke(ask()))
        done, _ = await asyncio.wait([task], timeout=0.2)
        assert not done
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert hanging.cancelled.is_set()

    with asyncio.Runner() as runner:
        runner.run(main())


def test_an_interrupt_of_an_agent_is_no_failed_call() -> None:
    """LangGraph's interrupts pass through, and the others' answers are kept."""
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.types import Command

    def consult(_: Any) -> str:
        return f"the human says {interrupt('what do you say?')}"

    other = Scripted(model="other")
    graph = create_mixture(
        [Propose([RunnableLambda(consult), other]), Aggregate(FAST)],
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    paused = graph.invoke(ask(), config)
    assert paused["__interrupt__"][0].value == "what do you say?"
    state = graph.invoke(Command(resume="yes"), config)
    assert state["mixture"]["history"][0]["outputs"] == [
        "the human says yes",
        "other answers",
    ]
    assert len(other.asked) == 1


def test_models_are_never_sent_a_mutated_conversation() -> None:
    """The marks that keep samples apart leave the state's messages as they were."""
    client = models("m")
    graph = create_mixture([Propose(["m"] * 3)], client=client)
    state = graph.invoke(ask())
    assert "sample" not in state["messages"][0].response_metadata
    marks = [m[-1].response_metadata.get("sample") for m in client["m"].asked]
    assert sorted(str(mark) for mark in marks) == ["2", "3", "None"]
