"""Every fault of a server in every place: what the caller gets, at what cost."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from langchain_openai import ChatOpenAI

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    NoResponsesError,
    Propose,
    Rank,
    StepFailedError,
)
from tests.openai_stub import Answer, Stub, serve

KEY: Any = "sk-secret-secret-secret"
PROPOSERS = ["p1", "p2", "p3"]
RELEASE = threading.Event()


@dataclass(frozen=True)
class Fault:
    """A way to misbehave, and what a failed call then says."""

    name: str
    answer: Answer
    says: str
    """What the error of a call says; "" where there is an answer all the same."""
    requests: int = 1
    """How many are made for one call, with ChatOpenAI's max_retries=1."""
    streamed: str | None = None
    """What the error says where the answer is streamed, if it is another one."""
    streamed_requests: int | None = None
    """How many requests are made then, if it is another number."""
    ended_by_timeout: bool = False
    """Whether only the mixture's timeout ends the call."""


FAULTS = [
    Fault(
        "429 with Retry-After",
        Answer("slow down", status=429, headers={"Retry-After": "0.01"}),
        "429",
        requests=2,
    ),
    Fault("500", Answer("oops", status=500), "500", requests=2),
    Fault("401", Answer(f"bad key {KEY}", status=401), "401"),
    Fault(
        "hang",
        Answer("late", hang=RELEASE),
        "no answer within",
        ended_by_timeout=True,
    ),
    Fault(
        "slow drip",
        Answer("a b c d e f g h", drip=0.1),  # 1.2 seconds as a stream, else 2
        "no answer within",
        streamed="",
        ended_by_timeout=True,
    ),
    Fault(
        "dropped before the body",
        Answer("x", drop="before"),
        "Connection error",
        requests=2,
    ),
    Fault(
        "dropped in the body",
        Answer("x y z", drop="middle"),
        "Error",
        requests=2,
        streamed="Error",
        streamed_requests=1,
    ),
    Fault("malformed JSON", Answer(body='{"choices": ['), "Error"),
    Fault("empty content", Answer(""), "empty answer (finish reason: stop)"),
    Fault("whitespace", Answer(" \n "), "empty answer (finish reason: stop)"),
    Fault(
        "only a refusal",
        Answer(refusal="I will not."),
        "refused: I will not.",
        streamed="empty answer",  # ChatOpenAI drops a streamed refusal's words
    ),
    Fault("cut by length", Answer("half an", finish="length"), ""),
    Fault(
        "cut before any text",
        Answer("", finish="length"),
        "cut off at the token limit before any text",
    ),
    Fault(
        "wrong content type",
        Answer(body="<html>busy</html>", headers={"Content-Type": "text/html"}),
        "Error",
    ),
]


@pytest.fixture(autouse=True, scope="module")
def _release() -> Iterator[None]:
    yield
    RELEASE.set()


def served(fault: Fault, faulty: set[str]) -> Any:
    """Make a server at which some models misbehave."""

    def answer(request: dict[str, Any]) -> Answer:
        if request["model"] in faulty:
            return replace(fault.answer)
        return Answer("Ranking: 2, 1" if request["model"] == "judge" else "fine")

    return serve(answer)


def mixture(stub: Stub, fault: Fault, faulty: set[str]) -> ChatMixture:
    """Make a pipeline with proposers, a judge and an aggregator of real clients.

    Only the step with the fault has a short timeout: half a second, or one second
    where healthy calls must be done within it.
    """
    client = {
        name: ChatOpenAI(
            base_url=stub.url,
            api_key=KEY,
            model=name,
            max_retries=1,
            stream_usage=True,
        )
        for name in (*PROPOSERS, "judge", "last")
    }

    def timeout(*asked: str) -> float:
        if not fault.ended_by_timeout or faulty.isdisjoint(asked):
            return 60
        goes_on = fault.streamed == "" and "last" in asked
        return 1 if goes_on or faulty < set(asked) else 0.5

    return ChatMixture(
        [
            Propose(PROPOSERS, timeout=timeout(*PROPOSERS)),
            Rank("judge", 2, timeout=timeout("judge")),
            Aggregate("last", timeout=timeout("last")),
        ],
        client=client,
    )


async def ask(model: ChatMixture, how: str) -> Any:
    """Ask in one of the ways, and give the message."""
    if how == "invoke":
        return model.invoke("Why?")
    if how == "ainvoke":
        return await model.ainvoke("Why?")
    if how == "stream":
        chunks = list(model.stream("Why?"))
    else:
        chunks = [chunk async for chunk in model.astream("Why?")]
    return sum(chunks[1:], start=chunks[0])


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize(
    ("faulty", "outcome"),
    [
        ({"p1"}, "degraded"),
        ({"p1", "p2"}, "degraded"),
        (set(PROPOSERS), NoResponsesError),
        ({"last"}, StepFailedError),
        ({"judge"}, "degraded"),
    ],
    ids=["one proposer", "all but one", "all proposers", "the aggregator", "the judge"],
)
async def test_a_fault_costs_no_more_than_it_must(
    fault: Fault, faulty: set[str], outcome: Any, how: str
) -> None:
    """The best answer that is left, or an error that says why and keeps the rest."""
    with served(fault, faulty) as stub:
        model = mixture(stub, fault, faulty)
        if fault.says == "" and faulty != {"judge"}:
            about = (await ask(model, how)).response_metadata["mixture"]
            answer_is_cut = faulty == {"last"}
            assert about["status"] == ("degraded" if answer_is_cut else "complete")
            assert len(about["reasons"]) == len(faulty)
            assert all("was cut off at its token" in said for said in about["reasons"])
        elif fault.name == "only a refusal" and faulty == {"last"}:
            message = await ask(model, how)
            assert message.additional_kwargs["refusal"] == "I will not."
            assert message.response_metadata["mixture"]["status"] == "degraded"
        elif isinstance(outcome, str):
            message = await ask(model, how)
            about = message.response_metadata["mixture"]
            assert about["status"] == "degraded"
            said = fault.says or "the judge names none of the 3 responses"
            for name, reason in zip(sorted(faulty), about["reasons"], strict=True):
                assert name in reason
                assert said.replace("refused", "refused to answer") in reason
        else:
            with pytest.raises(outcome) as raised:
                await ask(model, how)
            assert isinstance(raised.value, outcome)
            said = fault.says.replace("refused", "refused to answer")
            assert str(raised.value).count(said) >= len(faulty)
            kept = 0 if outcome is NoResponsesError else 2
            assert len(raised.value.responses) == kept
            assert KEY not in str(raised.value)
        counts = Counter(stub.asked())
        for name in faulty:
            assert counts[name] == fault.requests, (name, counts)
        asked = {*PROPOSERS, "judge", "last"}
        healthy = asked - faulty if outcome is not NoResponsesError else set()
        if fault.says == "":
            healthy = asked - faulty
        assert all(counts[name] == 1 for name in healthy)


@pytest.mark.parametrize("how", ["stream", "astream"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_of_the_streaming_aggregator_is_told(
    fault: Fault, how: str
) -> None:
    """A stream ends in an answer or in an error, and nothing is asked anew."""
    says = fault.says if fault.streamed is None else fault.streamed
    with served(fault, {"last"}) as stub:
        model = mixture(stub, fault, {"last"})
        if says == "":
            message = await ask(model, how)
            assert message.text.strip() == (fault.answer.text or "").strip()
            cut = fault.answer.finish == "length"
            status = message.response_metadata["mixture"]["status"]
            assert status == ("degraded" if cut else "complete")
        else:
            with pytest.raises(StepFailedError) as raised:
                await ask(model, how)
            assert says.replace("refused", "refused to answer") in str(raised.value)
            assert len(raised.value.responses) == 2
        expected = fault.streamed_requests or fault.requests
        assert Counter(stub.asked())["last"] == expected


def test_a_reply_cut_by_length_is_an_answer_whose_row_says_so() -> None:
    """What was cut off at the token limit is used, and marked in the history."""
    cut = next(fault for fault in FAULTS if fault.name == "cut by length")
    with served(cut, {"p1", "last"}) as stub:
        state = mixture(stub, cut, {"p1", "last"}).graph.invoke(
            {"messages": [("user", "Why?")]}
        )
    rows = [call for row in state["mixture"]["history"] for call in row["llm_calls"]]
    assert {row["model"] for row in rows if row.get("cut_off")} == {"p1", "last"}
    assert state["mixture"]["status"] == "degraded"
