"""What tells two pipelines apart in a cache, in plain data and without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.load import dumpd
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from langchain_mixture.errors import redact


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
    if thing is None or isinstance(thing, bool | int | float):
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
    if isinstance(thing, BaseLanguageModel):
        return {**kind, **_of_model(thing)}
    if isinstance(thing, BasePromptTemplate):
        return {**kind, "template": dumpd(thing)}
    if isinstance(thing, RunnableBindingBase):
        own = {"kwargs": thing.kwargs, "bound": thing.bound}
        return {**kind, **{key: identity_of(value) for key, value in own.items()}}
    if isinstance(thing, RunnableWithFallbacks):
        return {**kind, "runnables": identity_of(list(thing.runnables))}
    if is_dataclass(thing) and not isinstance(thing, type):
        own = {field.name: getattr(thing, field.name) for field in fields(thing)}
        return {**kind, **{key: identity_of(value) for key, value in own.items()}}
    return Unknown(kind["type"])


def _of_model(model: BaseLanguageModel[Any]) -> dict[str, Any]:
    # dumpd puts the names of secrets in the place of secrets.
    if model.is_lc_serializable():
        return {"model": dumpd(model)}
    params: dict[str, Any] = dict(model._identifying_params)  # noqa: SLF001  # the hook by which a model tells what its cache key is
    return {"params": identity_of(params)} if params else {"params": Unknown("none")}
