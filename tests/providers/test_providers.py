"""With every provider, a mixture around one model is the model, seen from outside.

Each case is played three times against a stub of the provider's API: with the plain
model, with the model `alone` in a mixture, and behind two `advisers`. The tests compare
what came of it. `make test-providers` runs all of it; `make test` plays a few cases
against OpenAI's two APIs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core import exceptions
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_mixture import Aggregate, ChatMixture, MixtureError, Propose
from tests.providers.cases import CALL, CASES, ION, QUESTION, THOUGHT, Case, weather
from tests.providers.chat import Chat
from tests.providers.setups import SET_UPS, SetUp
from tests.providers.stub import Body, Stub, serve

pytestmark = [  # what the clients warn of, with the plain model as well
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession"),
    pytest.mark.filterwarnings("ignore:\\s+Warning. Output may vary each run"),
    pytest.mark.filterwarnings("ignore:tool_choice is forced but thinking is enabled"),
    pytest.mark.filterwarnings("ignore:You are attempting to use structured output"),
    # langchain-openai 1.3, of the Responses API
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]


class Adviser(BaseChatModel):
    """A model in front of the provider's, which takes any tools and calls none."""

    @property
    def _llm_type(self) -> str:
        return "adviser"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Advice."))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


VARIANTS: dict[str, Callable[[BaseChatModel], BaseChatModel]] = {
    "plain": lambda model: model,
    "alone": lambda model: ChatMixture([Propose([model])]),
    "advisers": lambda model: ChatMixture(
        [Propose([Adviser(), Adviser()]), Aggregate(model)]
    ),
}


ALL = os.environ.get("PROVIDERS") == "all"
CHOSEN = [one for one in SET_UPS if ALL or one.name in ("openai", "responses")]
PLAYED = [case for case in CASES if ALL or case.core]


@dataclass
class Outcome:
    """What came of a case: what was said, or raised, and what the API was asked."""

    said: list[Any] = field(default_factory=list)
    error: Exception | None = None
    bodies: list[Body] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def messages(self) -> list[AIMessage]:
        """The messages among what was said; raise what was raised."""
        if self.error is not None:  # not raised again: its traceback would grow
            pytest.fail(f"{type(self.error).__name__}: {self.error}", pytrace=False)
        return [said for said in self.said if isinstance(said, AIMessage)]


class Bench:
    """A stub and a model for each set-up, and the outcomes so far."""

    def __init__(self, open_until: ExitStack) -> None:
        self._open = open_until
        self._models: dict[str, tuple[Stub, BaseChatModel]] = {}
        self._outcomes: dict[tuple[str, str, str], Outcome] = {}

    def model(self, set_up: SetUp) -> tuple[Stub, BaseChatModel]:
        """Return the set-up's stub and its model."""
        if set_up.name not in self._models:
            stub = self._open.enter_context(serve(set_up.wire))
            self._models[set_up.name] = stub, set_up.make(stub.url)
        return self._models[set_up.name]

    def outcome(self, set_up: SetUp, case: Case, variant: str) -> Outcome:
        """Play the case once and return what came of it."""
        key = (set_up.name, case.name, variant)
        if key not in self._outcomes:
            self._outcomes[key] = self._played(set_up, case, variant)
        return self._outcomes[key]

    def _played(self, set_up: SetUp, case: Case, variant: str) -> Outcome:
        stub, model = self.model(set_up)
        stub.replay(case.script_for(set_up))
        outcome = Outcome()
        try:
            said = case.ask(VARIANTS[variant](model))
            outcome.said = said if isinstance(said, list) else [said]
        except Exception as error:  # noqa: BLE001 # errors are compared
            outcome.error = error
        outcome.bodies = stub.bodies
        outcome.refused = list(stub.refused)
        return outcome


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Stubs that stay up for all the tests of this module."""
    with ExitStack() as stack:
        yield Bench(stack)


def cells(
    variants: Sequence[str] = ("alone", "advisers"),
    *,
    errors: bool = False,
    empty: bool = False,
) -> list[Any]:
    """Return the set-ups, cases and variants of a test."""
    return [
        pytest.param(set_up, case, variant, id=f"{set_up.name}-{case.name}-{variant}")
        for set_up in CHOSEN
        for case in PLAYED
        if case.name.startswith("error-") is errors
        if (set_up.name in case.empty) is empty and case.applies_to(set_up)
        for variant in variants
    ]


_RANDOM = re.compile(
    r"lc_run--[-0-9a-f]+|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)


def same_for_all(value: Any) -> Any:
    """Return the value with ids that are drawn at random replaced."""
    if isinstance(value, str):
        return _RANDOM.sub("random", value)
    if isinstance(value, list):
        return [same_for_all(item) for item in value]
    if isinstance(value, dict):
        return {same_for_all(key): same_for_all(item) for key, item in value.items()}
    return value


def shown(said: Any) -> Any:
    """Return what an application reads of an answer."""
    if not isinstance(said, AIMessage):
        return said
    keys = ("content", "tool_calls", "invalid_tool_calls", "additional_kwargs")
    parts = {key: getattr(said, key) for key in keys}
    return same_for_all({**parts, "blocks": said.content_blocks, "text": said.text})


@pytest.mark.parametrize(("set_up", "case", "variant"), cells())
def test_answer(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """The answer has the model's own text, blocks and tool calls."""
    plain = bench.outcome(set_up, case, "plain")
    ours = bench.outcome(set_up, case, variant)
    assert plain.error is None
    assert ours.messages is not None
    assert [shown(said) for said in ours.said] == [shown(said) for said in plain.said]


@pytest.mark.parametrize(("set_up", "case", "variant"), cells())
def test_identity(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """The answer has the id that the provider gave it, and the model's name."""

    def identity(outcome: Outcome) -> list[Any]:
        return [same_for_all([said.id, said.name]) for said in outcome.messages]

    ours = bench.outcome(set_up, case, variant)
    assert identity(ours) == identity(bench.outcome(set_up, case, "plain"))


@pytest.mark.parametrize(("set_up", "case", "variant"), cells())
def test_metadata(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """The answer's metadata are the model's own, beside the mixture's report."""

    def metadata(outcome: Outcome) -> list[Any]:
        own = [dict(said.response_metadata) for said in outcome.messages]
        for one in own:
            one.pop("mixture", None)
            one.pop("model_name", None)  # a mixture has a name of its own
        return [same_for_all(one) for one in own]

    ours = bench.outcome(set_up, case, variant)
    assert metadata(ours) == metadata(bench.outcome(set_up, case, "plain"))


@pytest.mark.parametrize(("set_up", "case", "variant"), cells())
def test_usage(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """The tokens of the answering call reach the application, details included."""

    def usage(outcome: Outcome) -> list[Any]:
        return [said.usage_metadata for said in outcome.messages]

    ours = bench.outcome(set_up, case, variant)
    assert usage(ours) == usage(bench.outcome(set_up, case, "plain"))


@pytest.mark.parametrize(("set_up", "case", "variant"), cells())
def test_report(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """The mixture's report counts the tokens that the provider counted."""
    plain = bench.outcome(set_up, case, "plain")
    for own, said in zip(
        bench.outcome(set_up, case, variant).messages, plain.messages, strict=True
    ):
        if said.usage_metadata is not None:
            keys = ("input_tokens", "output_tokens", "total_tokens")
            usage = own.response_metadata["mixture"]["usage"]
            counted = {key: usage[key] for key in keys}
            assert counted == {key: said.usage_metadata[key] for key in keys}  # type: ignore[literal-required] # keys of UsageMetadata


@pytest.mark.parametrize(("set_up", "case", "variant"), cells(["alone"]))
def test_request(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """The provider is asked exactly what the plain model would ask it."""
    plain = bench.outcome(set_up, case, "plain")
    ours = bench.outcome(set_up, case, variant)
    assert same_for_all(ours.bodies) == same_for_all(plain.bodies)


@pytest.mark.parametrize(("set_up", "case", "variant"), cells())
def test_order(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """No request has roles, tool calls or marks in an order that the API refuses."""
    assert bench.outcome(set_up, case, "plain").refused == []
    assert bench.outcome(set_up, case, variant).refused == []


def _core_types(error: BaseException) -> list[type]:
    return [cls for cls in type(error).__mro__ if cls.__module__ == exceptions.__name__]


def _status(error: BaseException) -> Any:
    response = getattr(error, "response", None)
    return getattr(error, "status_code", getattr(response, "status_code", None))


@pytest.mark.parametrize(("set_up", "case", "variant"), cells(errors=True))
def test_error_type(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """An error is of the core types that the model's own error has."""
    plain = bench.outcome(set_up, case, "plain").error
    ours = bench.outcome(set_up, case, variant).error
    assert plain is not None
    assert ours is not None
    for core in _core_types(plain):
        assert isinstance(ours, core)
    if isinstance(plain, exceptions.ModelError):
        assert isinstance(ours, exceptions.ModelError)
        assert ours.is_retryable == plain.is_retryable


@pytest.mark.parametrize(("set_up", "case", "variant"), cells(errors=True))
def test_error_cause(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """An error has the provider's own as its cause, and its status."""
    plain = bench.outcome(set_up, case, "plain").error
    ours = bench.outcome(set_up, case, variant).error
    assert plain is not None
    assert ours is not None
    assert type(ours.__cause__) is type(plain)
    assert _status(ours) == _status(plain)


@pytest.mark.parametrize(("set_up", "case", "variant"), cells(empty=True))
def test_empty_answer(bench: Bench, set_up: SetUp, case: Case, variant: str) -> None:
    """An answer without a word or a reason is an error, and none of a plain model.

    The plain model returns a message without text, which helps nobody.
    """
    assert bench.outcome(set_up, case, "plain").messages[0].text == ""
    error = bench.outcome(set_up, case, variant).error
    assert isinstance(error, MixtureError)
    assert "empty answer" in str(error)


FOREIGN = {
    "loop": ([CALL, ION], True),
    "thinking": ([THOUGHT[0], ION], False),
    "server-tool": ([], False),
}
"""Conversations that have a provider's own blocks in them."""


def foreign_cells() -> list[Any]:
    """Return answering set-ups, advising set-ups, and conversations."""
    return [
        pytest.param(owner, adviser, kind, id=f"{owner.name}-{adviser.name}-{kind}")
        for owner in CHOSEN
        for adviser in CHOSEN
        for kind in FOREIGN
        if owner.builtin is not None and owner is not adviser
        if kind != "server-tool" or kind in owner.native
    ]


@pytest.mark.parametrize(("owner", "adviser", "kind"), foreign_cells())
def test_foreign_conversation(
    bench: Bench, owner: SetUp, adviser: SetUp, kind: str
) -> None:
    """An adviser of another provider understands the answering model's turns."""
    owners_stub, model = bench.model(owner)
    advisers_stub, other = bench.model(adviser)
    script, calls = FOREIGN[kind]
    owners_stub.replay(script or [owner.native[kind], ION])
    advisers_stub.replay([ION])
    asked = model.bind_tools([weather]) if calls else model
    first = asked.invoke(QUESTION)
    results = [ToolMessage("snow", tool_call_id=c["id"]) for c in first.tool_calls]
    more: list[Any] = [*results] or [HumanMessage("And a proton?")]
    mixture = ChatMixture([Propose([other]), Aggregate(model)])
    bound = mixture.bind_tools([weather]) if calls else mixture
    answer = bound.invoke([HumanMessage(QUESTION), first, *more])
    assert advisers_stub.refused == owners_stub.refused == []
    report = answer.response_metadata["mixture"]
    assert report["status"] == "complete", report["reasons"]


def builtin_cells() -> list[Any]:
    """Return set-ups with a tool that the provider runs, and advising set-ups."""
    return [
        pytest.param(owner, adviser, id=f"{owner.name}-{adviser.name}")
        for owner in CHOSEN
        for adviser in CHOSEN
        if owner.builtin is not None and owner is not adviser
    ]


@pytest.mark.parametrize(("owner", "adviser"), builtin_cells())
def test_builtin_tool(bench: Bench, owner: SetUp, adviser: SetUp) -> None:
    """A tool which one provider runs reaches that one, and no adviser of another."""
    owners_stub, model = bench.model(owner)
    advisers_stub, other = bench.model(adviser)
    advisers_stub.replay([ION])
    owners_stub.replay([ION])
    model.bind_tools([dict(owner.builtin or {})]).invoke(QUESTION)
    wanted = owners_stub.bodies[0]["tools"]
    owners_stub.replay([ION])
    mixture = ChatMixture([Propose([other]), Aggregate(model)])
    answer = mixture.bind_tools([dict(owner.builtin or {})]).invoke(QUESTION)
    assert owners_stub.bodies[0]["tools"] == wanted
    assert not advisers_stub.bodies[0].get("tools")
    report = answer.response_metadata["mixture"]
    assert report["status"] == "complete", report["reasons"]


@pytest.mark.parametrize("variant", ["alone", "advisers"])
@pytest.mark.parametrize("name", ["text", "next-turn", "loop"])
def test_strict_chat_template(variant: str, name: str) -> None:
    """A server whose template wants user and assistant in turn refuses nothing."""
    case = next(case for case in CASES if case.name == name)
    set_up = next(set_up for set_up in SET_UPS if set_up.name == "openai")
    with serve(Chat(alternates=True), case.script) as stub:
        case.ask(VARIANTS[variant](set_up.make(stub.url)))
        assert stub.refused == []
