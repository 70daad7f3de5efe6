"""What a mixture tells of itself: to a cache, and to who asks what it can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any, cast

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.language_models import BaseChatModel, BaseLLM, ModelProfile
from langchain_core.load import dumpd
from langchain_core.messages import BaseMessage
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from langchain_mixture.agents import Client
from langchain_mixture.errors import InvalidMixtureError
from langchain_mixture.layers import Layer, layers_of
from langchain_mixture.limits import Options
from langchain_mixture.secrets import redact
from langchain_mixture.steps import Step
from langchain_mixture.wrappers import leaves


class Unknown(str):
    """Stands for what cannot be told apart by its content, such as a function."""

    __slots__ = ()

    @classmethod
    def is_in(cls, identity: object) -> bool:
        """Tell whether something in an identity is unknown.

        Example:
            >>> Unknown.is_in({"fn": [identity_of(len)]})
            True
        """
        if isinstance(identity, Mapping):
            return any(map(cls.is_in, identity.values()))
        if isinstance(identity, list):
            return any(map(cls.is_in, identity))
        return isinstance(identity, cls)


def identity_of(thing: Any) -> Any:
    """Give what tells a step, an agent or a client apart from others of its kind.

    Example:
        >>> from langchain_mixture.transform_steps import Take
        >>> identity_of(Take(2))
        {'type': 'langchain_mixture.transform_steps.Take', 'n': 2}
    """
    if thing is None or isinstance(thing, Unknown | bool | int | float):
        return thing
    if isinstance(thing, str):
        shown = redact(thing)
        # What looks like a key may be a name: it must still tell two apart.
        digest = sha256(thing.encode(errors="replace")).hexdigest()[:16]
        return shown if shown == thing else f"{shown}#{digest}"
    if isinstance(thing, list | tuple):
        return [identity_of(item) for item in thing]
    if isinstance(thing, Mapping):
        return {str(key): identity_of(value) for key, value in thing.items()}
    kind = {"type": f"{type(thing).__module__}.{type(thing).__qualname__}"}
    if isinstance(thing, BaseChatModel | BaseLLM):
        return {**kind, **_of_model(thing)}
    if isinstance(thing, BasePromptTemplate):
        return {**kind, "template": dumpd(thing)}
    if isinstance(thing, RunnableBindingBase):
        own = {"kwargs": thing.kwargs, "bound": thing.bound}
        return {**kind, **{key: identity_of(value) for key, value in own.items()}}
    if isinstance(thing, RunnableWithFallbacks):
        return {**kind, "runnables": identity_of(list(thing.runnables))}
    if is_dataclass(thing) and _is_ours(thing):
        own = {field.name: getattr(thing, field.name) for field in fields(thing)}
        return {**kind, **{key: identity_of(value) for key, value in own.items()}}
    return Unknown(kind["type"])


def _is_ours(thing: object) -> bool:
    # A step of the user's own may do another thing tomorrow under the same name.
    return type(thing).__module__.partition(".")[0] == __package__


class CompleteOnly(BaseCache):
    """A cache that keeps no degraded answer: it would outlive what degraded it."""

    def __init__(self, cache: BaseCache) -> None:
        self._cache = cache

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return self._cache.lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        if _is_complete(return_val):
            self._cache.update(prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        self._cache.clear(**kwargs)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return await self._cache.alookup(prompt, llm_string)

    async def aupdate(
        self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE
    ) -> None:
        if _is_complete(return_val):
            await self._cache.aupdate(prompt, llm_string, return_val)


def _is_complete(answers: RETURN_VAL_TYPE) -> bool:
    messages = [getattr(answer, "message", None) for answer in answers]
    return all(
        message.response_metadata["mixture"]["status"] == "complete"
        for message in messages
        if isinstance(message, BaseMessage)
    )


def _of_model(model: BaseChatModel | BaseLLM) -> dict[str, Any]:
    # dumpd puts the names of secrets in the place of secrets.
    if model.is_lc_serializable():
        return {"model": dumpd(model)}
    params = model.asdict()
    known = params.keys() - {"_type"}
    return {"params": identity_of(params) if known else Unknown("none")}


def profile_of(steps: Sequence[Step], client: Client) -> ModelProfile | None:
    """Join the profiles of a pipeline's models; None where a model tells nothing.

    Tools and structured output are the answering step's, the input window is the
    smallest, and images are taken only if all take them. Names are looked up in a
    mapping or a chat model, and not made into models for this.
    """
    cheap = client if isinstance(client, Mapping | Runnable) else {}
    try:
        layers = layers_of(steps, cheap, Options())
    except InvalidMixtureError:
        return None

    def profiles(some: Sequence[Layer]) -> list[Mapping[str, Any]]:
        asked = [m for layer in some for m in (*layer.members, *layer.fallbacks)]
        models = [leaf for member in asked for leaf in leaves(member.runnable)]
        return [getattr(model, "profile", None) or {} for model in models]

    answering = profiles([layer for layer in layers if layer.answering])
    every = profiles(layers)
    profile: dict[str, Any] = {
        key: all(p.get(key) for p in answering)
        for key in ("tool_calling", "structured_output", "tool_choice")
        if any(key in p for p in answering)
    }
    if any("image_inputs" in p for p in every):
        profile["image_inputs"] = all(p.get("image_inputs") for p in every)
    if windows := [p["max_input_tokens"] for p in every if "max_input_tokens" in p]:
        profile["max_input_tokens"] = min(windows)
    return cast("ModelProfile", profile) if profile else None
