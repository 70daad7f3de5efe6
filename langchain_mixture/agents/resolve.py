"""Turning the agents of a step into Runnables with a name and a label."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableSequence
from langgraph.pregel.protocol import PregelProtocol

from langchain_mixture.agents.function_model import ClientFunction, FunctionChatModel
from langchain_mixture.agents.wrappers import is_model
from langchain_mixture.compat import provider_of
from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.runnables import (
    is_one,
    leaves,
    name_of,
    plain_model,
    unwrapped,
)
from langchain_mixture.secrets import cleaner, describe, redact_error
from langchain_mixture.steps.base import Agent, Step

Client: TypeAlias = (
    Runnable[Any, Any]
    | Mapping[str, Agent]
    | Callable[[str], Agent]
    | ClientFunction
    | None
)
"""Turns the names in a pipeline into models."""


Resolve: TypeAlias = Callable[[str], Runnable[Any, Any]]


_CLIENTS = (
    "a chat model, a mapping from names to models, a function of one parameter (the "
    "name) that returns a model, a function with parameters named model, messages, "
    "temp and max_tokens, or None for init_chat_model"
)


@dataclass(frozen=True)
class ResolvedAgent:
    """One agent of one step, ready to be asked."""

    name: str
    """Its name in the history and in errors."""
    label: str
    """Its name in the graph, unique within its step."""
    runnable: Runnable[Any, Any]
    sample: int = 1
    """Its position among agents of the same name in this step, from 1."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The step's settings for the model: temperature, max_tokens."""

    @cached_property
    def without_secrets(self) -> Callable[[str], str]:
        """Removes keys from a text: those of its models, and what looks like one."""
        return cleaner(self.runnable)

    def model_of(self, message: AIMessage | None) -> str:
        """Return the name of the model that wrote a message, as far as it can be told.

        That is the agent's name, unless several models may answer for it: then what the
        message says decides.
        """
        metadata = {} if message is None else message.response_metadata
        told = metadata.get("model_name") or metadata.get("model")
        if self._is_one or not isinstance(told, str):
            return self.name
        # Providers put a version behind the name that they were asked for.
        names = {name_of(leaf) for leaf in leaves(self.runnable)}
        return max(filter(told.startswith, names), key=len, default=told)

    @cached_property
    def provider(self) -> str | None:
        """The provider of its first model, such as `openai`; None = it names none."""
        return provider_of(next(leaves(self.runnable)))

    @cached_property
    def uses_chat_completions(self) -> bool:
        """Whether it is asked by OpenAI's Chat Completions, which has no own blocks."""
        first = next(leaves(self.runnable))
        return getattr(first, "use_responses_api", True) is not True

    @cached_property
    def plain(self) -> BaseChatModel | None:
        """Its model, where that is one which makes a single request; else None."""
        return plain_model(self.runnable)

    @cached_property
    def _is_one(self) -> bool:
        return is_one(self.runnable)

    @cached_property
    def is_graph(self) -> bool:
        """Whether it is a graph, or a wrapper or a chain around one."""
        return any(isinstance(leaf, PregelProtocol) for leaf in leaves(self.runnable))

    @cached_property
    def is_model(self) -> bool:
        """Whether it is a model, maybe wrapped, so that its tokens are its answer."""
        return all(
            not isinstance(part, RunnableSequence) and is_model(part)
            for part in unwrapped(self.runnable)
        )


def resolved(
    step: Step,
    agents: Sequence[Agent],
    step_name: str,
    resolve: Resolve,
    samples: Counter[str] | None = None,
) -> list[ResolvedAgent]:
    """Return the agents of a step, each with its Runnable, name and unique label.

    Args:
        step: The step.
        agents: Its agents, or its fallbacks.
        step_name: Its name, for errors.
        resolve: What turns names into models.
        samples: How often each name was asked before, which is counted on; None =
            never.
    """
    samples = Counter() if samples is None else samples
    arguments = {
        key: value
        for key, value in (("temperature", step.temp), ("max_tokens", step.max_tokens))
        if value is not None
    }
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    found: list[ResolvedAgent] = []
    for agent in agents:
        try:
            runnable = resolve(agent) if isinstance(agent, str) else agent
        except InvalidMixtureError as error:
            raise InvalidMixtureError(f"{step_name}: {error}") from error.__cause__
        name = agent if isinstance(agent, str) else name_of(agent)
        if arguments and not all(map(is_model, leaves(runnable))):
            wanted = " and ".join(arguments)
            raise InvalidMixtureError(
                f"{step_name}: {wanted} cannot be set for {name!r}: it is "
                f"{shown(runnable)} and not a chat model, nor a wrapper of one. Set it "
                "on the model inside, and None on the step or preset."
            )
        # The label becomes part of a node's name, in which LangGraph refuses `:` and
        # `|` (langgraph 1.2.24). `test_agents.py` holds it.
        clean = re.sub(r"[:|\s]+", "/", name).strip("/") or "agent"
        seen[clean] += 1
        samples[clean] += 1
        repeat = seen[clean]
        label = clean if repeat == 1 else f"{clean}#{repeat}"
        # Another agent may be called `a#2` by its user.
        while label in taken:
            repeat += 1
            label = f"{clean}#{repeat}"
        taken.add(label)
        found.append(ResolvedAgent(name, label, runnable, samples[clean], arguments))
    return found


def resolver(client: Client) -> Resolve:
    """Return the function that turns names into models, each name once.

    Raises:
        InvalidMixtureError: This is no client. The returned function raises the same
            error for a name that the client does not know.

    Example:
        >>> resolver({"a": "b"})("c")
        Traceback (most recent call last):
            ...
        langchain_mixture.errors.InvalidMixtureError: no model is named 'c'; the \
client has: 'a'.
    """
    make = _maker(client)
    models: dict[str, Runnable[Any, Any]] = {}

    def resolve(name: str) -> Runnable[Any, Any]:
        if name not in models:
            models[name] = _made(make, name)
        return models[name]

    return resolve


def _made(make: Callable[[str], object], name: str) -> Runnable[Any, Any]:
    try:
        model = make(name)
    except InvalidMixtureError:
        raise
    except Exception as error:  # a factory may raise anything
        redact_error(error)
        raise InvalidMixtureError(
            f"the client made no model for the name {name!r}: {describe(error)}"
        ) from error
    if isinstance(model, str):  # a mapping from short names to those of providers
        return _made(_init_chat_model, model)
    if not isinstance(model, Runnable):
        raise InvalidMixtureError(
            f"the client returned {shown(model)} for the name {name!r}; it must return "
            "a chat model or another Runnable."
        )
    return model


def _maker(client: Client) -> Callable[[str], object]:
    if client is None:
        return _init_chat_model
    if isinstance(client, Runnable):
        # One model serves all names if its provider does, such as OpenRouter.
        if all(map(is_model, leaves(client))):
            return lambda name: client.bind(model=name)
    elif isinstance(client, Mapping):
        return lambda name: _looked_up(client, name)
    elif callable(client):
        parameters = _parameters(client)
        if {*_ASKED} <= parameters or parameters == {"**"}:
            fn = cast("ClientFunction", client)
            return lambda name: FunctionChatModel(model=name, fn=fn)
        if _takes_one(client):
            return cast("Callable[[str], Agent]", client)
        names = ", ".join(sorted(parameters)) or "none"
        raise InvalidMixtureError(
            f"client is {shown(client)} with the parameters {names}; allowed: "
            f"{_CLIENTS}."
        )
    raise InvalidMixtureError(f"client is {shown(client)}; allowed: {_CLIENTS}.")


_ASKED = ("model", "messages", "temp", "max_tokens")


def _parameters(function: Callable[..., object]) -> set[str]:
    """Return the names of a function's parameters; `**` stands for any keywords."""
    return {
        "**" if parameter.kind is parameter.VAR_KEYWORD else parameter.name
        for parameter in _signature(function).parameters.values()
    }


def _takes_one(function: Callable[..., object]) -> bool:
    try:
        _signature(function).bind("name")
    except TypeError:
        return False
    return True


def _signature(function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:  # some built-in functions have no readable signature
        return inspect.Signature()


def _looked_up(client: Mapping[str, Agent], name: str) -> Agent:
    if name not in client:
        known = ", ".join(repr(key) for key in client) or "nothing"
        raise InvalidMixtureError(
            f"no model is named {name!r}; the client has: {known}."
        )
    return client[name]


def _init_chat_model(name: str) -> Runnable[Any, Any]:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise InvalidMixtureError(
            f"the name {name!r} needs a client, or the package langchain for its "
            "init_chat_model: pip install langchain"
        ) from error
    model: Runnable[Any, Any] = init_chat_model(name)
    return model
