"""What tells an agent apart from others, today and after a restart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableLambda,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase

from langchain_mixture import Agent, ChatMixture, Client, Propose
from langchain_mixture.evaluation.needs import needed


def name_of(agent: Agent) -> str:
    """Name an agent: its own name, else its model's, else its class.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> name_of(FakeListChatModel(responses=["Hi"], name="greeter").with_retry())
        'greeter'
    """
    if isinstance(agent, str):
        return agent
    if own := getattr(agent, "name", None):  # a RunnableLambda may have none
        return str(own)
    if isinstance(agent, RunnableBindingBase):
        said = agent.config.get("run_name") or agent.kwargs.get("model")
        return str(said or name_of(agent.bound))
    if isinstance(agent, RunnableWithFallbacks):
        return name_of(agent.runnable)
    for attribute in ("model_name", "model", "model_id", "deployment_name"):
        value = getattr(agent, attribute, None)
        if isinstance(value, str) and value:
            return value
    return type(agent).__name__


def resolved(agent: Agent, client: Client) -> Runnable[Any, Any]:
    """Return what is asked for an agent; a name is turned into a model by the client.

    A mixture of the name alone does it where the client is a function of the messages.
    """
    if not isinstance(agent, str):
        return agent
    if isinstance(client, Mapping):
        return resolved(client[agent], None)
    if isinstance(client, Runnable):
        return client.bind(model=agent)
    if client is None:
        model: Runnable[Any, Any] = needed("langchain.chat_models").init_chat_model(
            agent
        )
        return model
    if len(inspect.signature(client).parameters) == 1:
        return resolved(cast("Callable[[str], Agent]", client)(agent), None)
    return ChatMixture([Propose([agent])], client=client, timeout=None)


class Identities:
    """The identities of the agents of one comparison.

    A chat model is known by its settings, a prompt by its text, a function by its
    source; anything else by its class and name. Two that look the same and are not get
    a number each, in the order in which they are met.
    """

    def __init__(self) -> None:
        self.alike: set[str] = set()
        """The names of agents that look the same and are not."""
        self._met: dict[str, list[object]] = {}

    def of(self, thing: Any, client: Client = None) -> Any:
        """Return the identity of an agent, a client, or a value of a step."""
        if isinstance(thing, str):
            return self._of_name(thing, client)
        if isinstance(thing, RunnableBindingBase):
            return [_kind(thing), dict(thing.kwargs), self.of(thing.bound)]
        if isinstance(thing, RunnableWithFallbacks):
            return [_kind(thing), *(self.of(each) for each in thing.runnables)]
        if isinstance(thing, RunnableSequence):
            return [_kind(thing), *(self.of(each) for each in thing.steps)]
        if isinstance(thing, ChatMixture):
            return [_kind(thing), self._of_steps(thing)]
        if isinstance(thing, BaseChatModel):
            return self._of_model(thing)
        if isinstance(thing, BasePromptTemplate):
            return [_kind(thing), _without_addresses(dumpd(thing))]
        return self._numbered(thing)

    def _of_name(self, name: str, client: Client) -> Any:
        if isinstance(client, Mapping):
            return self.of(client[name]) if name in client else name
        return ["name", name, None if client is None else self.of(client)]

    def _of_model(self, model: BaseChatModel) -> Any:
        if model.is_lc_serializable():
            return [_kind(model), _without_addresses(dumpd(model))]
        settings = model.asdict()
        if settings.keys() - {"_type"}:
            return [_kind(model), name_of(model), settings]
        return self._numbered(model)

    def _of_steps(self, mixture: ChatMixture) -> Any:
        def plain(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return [plain(item) for item in value]
            if isinstance(value, Runnable | str) or callable(value):
                return self.of(value, mixture.client)
            return value if isinstance(value, int | float | None) else repr(value)

        return [
            [_kind(step), *(plain(getattr(step, f.name)) for f in fields(step))]
            if is_dataclass(step)
            else self._numbered(step)
            for step in mixture.steps
        ]

    def _numbered(self, thing: Any) -> Any:
        function = getattr(thing, "func", None) or getattr(thing, "afunc", None)
        function = function if isinstance(thing, RunnableLambda) else thing
        name = name_of(thing) if isinstance(thing, Runnable) else ""
        look = f"{_kind(thing)} {name} {_source(function)}"
        met = self._met.setdefault(look, [])
        number = next((n for n, one in enumerate(met) if _same(one, thing)), len(met))
        if number == len(met):
            met.append(thing)
        if len(met) > 1:
            self.alike.add(name or _kind(thing))
        return [look, number]


def _kind(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _same(one: object, other: object) -> bool:
    if one is other:
        return True
    # Models are values: equal fields are the same model.
    return isinstance(one, BaseChatModel) and bool(one == other)


def _source(function: Any) -> str:
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        return ""
    try:
        return inspect.getsource(function)
    except OSError:  # such as one typed at a prompt
        return function.__qualname__


def _without_addresses(value: Any) -> Any:
    """Leave out what `dumpd` writes of objects that it cannot write."""
    if isinstance(value, Mapping):
        unknown = value.get("type") == "not_implemented"
        return {
            key: _without_addresses(item)
            for key, item in value.items()
            if not (unknown and key == "repr")
        }
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_addresses(item) for item in value]
    return value
