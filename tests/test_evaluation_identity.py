"""Which agents are the same to a comparison, and so are asked once."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_mixture import Aggregate, ChatMixture, Filter, Propose, Step
from langchain_mixture.evaluation.identity import Identities, name_of, resolved
from tests.models import Scripted


def model(name: str = "m", **settings: Any) -> ChatOpenAI:
    """A model of OpenAI's package, which is never asked."""
    return ChatOpenAI(model=name, api_key=SecretStr("key"), **settings)


def prompt(text: str) -> ChatPromptTemplate:
    """A template with these words in its system message."""
    return ChatPromptTemplate([("system", text), ("placeholder", "{messages}")])


def shout(text: str) -> str:
    """A function of the user's."""
    return text.upper()


def whisper(text: str) -> str:
    """Another one."""
    return text.lower()


def typed(body: str) -> Callable[[Any], Any]:
    """A function that was typed at a prompt: nothing can read its source."""
    names: dict[str, Any] = {}
    exec(f"def {body}(text): return text", names)
    function: Callable[[Any], Any] = names[body]
    return function


class Silent(FakeListChatModel):
    """A model that tells nothing of its settings."""

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {}


class Odd(Step):
    """A step of the user's that is no dataclass."""


TWINS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "model": (lambda: model(temperature=0), lambda: model(temperature=1)),
    "binding": (lambda: model().bind(stop=["a"]), lambda: model().bind(stop=["b"])),
    "fallbacks": (
        lambda: model().with_fallbacks([model("a")]),
        lambda: model().with_fallbacks([model("b")]),
    ),
    "chain": (lambda: prompt("A") | model(), lambda: prompt("B") | model()),
    "parser": (lambda: model() | StrOutputParser(), model),
    "function": (lambda: RunnableLambda(shout), lambda: RunnableLambda(whisper)),
    "function typed at a prompt": (
        lambda: RunnableLambda(typed("first")),
        lambda: RunnableLambda(typed("second")),
    ),
    "mixture": (
        lambda: ChatMixture([Propose(["a"], temp=0.5)], client=shout_all),
        lambda: ChatMixture([Propose(["a"], temp=0.7)], client=shout_all),
    ),
    "mixture of other steps": (
        lambda: ChatMixture([Propose([model()]), Filter(bool)]),
        lambda: ChatMixture([Propose([model()]), Aggregate(model())]),
    ),
    "settings without serialisation": (
        lambda: Scripted(model="x", script="A"),
        lambda: Scripted(model="y", script="A"),
    ),
}


def shout_all(name: str) -> BaseChatModel:
    """A client: every name is one model."""
    return FakeListChatModel(responses=[name.upper()])


@pytest.mark.parametrize("kind", TWINS)
def test_what_is_made_alike_is_the_same_and_a_setting_tells_two_apart(
    kind: str,
) -> None:
    """Over two comparisons, too: a restart asks nothing again."""
    make, other = TWINS[kind]
    identity = Identities().of(make())
    assert identity == Identities().of(make())
    assert identity != Identities().of(other())


@pytest.mark.parametrize(
    ("client", "other"),
    [
        pytest.param(None, shout_all, id="function"),
        pytest.param({"m": model()}, {"m": model("n")}, id="mapping"),
        pytest.param({}, None, id="not-in-the-mapping"),
        pytest.param(model(), model(temperature=1), id="chat-model"),
    ],
)
def test_a_name_is_what_its_client_makes_of_it(client: Any, other: Any) -> None:
    """One name is two models with two clients."""
    assert Identities().of("m", client) == Identities().of("m", client)
    assert Identities().of("m", client) != Identities().of("m", other)


def test_two_that_look_the_same_are_told_apart_in_the_order_they_are_met() -> None:
    """A closure's source does not say what it holds; the comparison warns of it."""

    def made(word: str) -> Runnable[Any, Any]:
        return RunnableLambda(lambda _: word)

    identities = Identities()
    first, second = made("a"), made("b")
    assert identities.of(first) != identities.of(second)
    assert identities.of(first) == identities.of(first)
    assert identities.alike
    one, other = Silent(responses=["a"]), Silent(responses=["b"])
    assert identities.of(one) != identities.of(other)
    assert identities.of(one) == identities.of(one)
    assert identities.of(ChatMixture([Propose([model()]), Odd()]))


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("gpt-4o", "gpt-4o"),
        (FakeListChatModel(responses=[""], name="greeter"), "greeter"),
        (model("gpt-4o").with_config(run_name="fast"), "fast"),
        (model("gpt-4o").bind(model="other"), "other"),
        (model("gpt-4o").with_retry(), "gpt-4o"),
        (model("gpt-4o").with_fallbacks([model("b")]), "gpt-4o"),
        (FakeListChatModel(responses=[""]), "FakeListChatModel"),
    ],
    ids=["name", "its own", "run name", "bound", "retry", "fallbacks", "class"],
)
def test_an_agent_has_a_name_that_a_table_can_show(agent: Any, name: str) -> None:
    """Its own, else its model's, else its class."""
    assert name_of(agent) == name


@pytest.mark.parametrize(
    "client",
    [
        {"m": FakeListChatModel(responses=["M"])},
        shout_all,
        lambda model, messages, temp, max_tokens: (model.upper(), 1, 1),
    ],
    ids=["mapping", "function of a name", "function of messages"],
)
def test_a_name_is_resolved_by_every_kind_of_client(
    client: Mapping[str, Any] | Callable[..., Any],
) -> None:
    """What comes of it is asked as any other agent."""
    assert resolved("m", client).invoke("Hi").text == "M"
    assert resolved(model("m"), client).model_name == "m"  # type: ignore[attr-defined]  # of ChatOpenAI


def test_a_chat_model_as_a_client_is_bound_to_the_name() -> None:
    """As in a pipeline."""
    bound: Any = resolved("m", model("x"))
    assert bound.kwargs == {"model": "m"}
