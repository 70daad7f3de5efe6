"""The checks of a step's fields, made when it is constructed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar, Final

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.steps.base import Step


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object, low: float, high: float = math.inf) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
    )


def _is_agent(value: object) -> bool:
    return isinstance(value, Runnable) or (isinstance(value, str) and bool(value))


def _are_agents(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_agent, value))


_AGENT = (
    "a model name, a chat model or another Runnable (a function becomes one by "
    "RunnableLambda)"
)


_COUNT_OR_NONE = (lambda v: v is None or _is_count(v), "None or a whole number >= 1")


_TEMPERATURE = (lambda v: v is None or _is_number(v, 0), "None or a number, 0 or more")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "agent": (_is_agent, _AGENT),
    "agents": (
        lambda v: _are_agents(v) and len(v) > 0,
        f"a list of one or more: {_AGENT}",
    ),
    "fallbacks": (_are_agents, f"a list, each {_AGENT}"),
    "temp": _TEMPERATURE,
    "max_tokens": _COUNT_OR_NONE,
    "temperature": _TEMPERATURE,
    "timeout": (
        lambda v: v in (None, "default") or (_is_number(v, 0) and v > 0),
        'seconds > 0, None for no limit, or "default" for the mixture\'s',
    ),
    "n": (_is_count, "a whole number >= 1"),
    "rate": (lambda v: _is_number(v, 0, 1), "a probability in [0, 1]"),
    "quorum": _COUNT_OR_NONE,
    "grace": (lambda v: _is_number(v, 0), "seconds, 0 or more"),
    "deadline": (
        lambda v: v is None or (_is_number(v, 0) and v > 0),
        "None or seconds > 0",
    ),
    "max_calls": _COUNT_OR_NONE,
    "max_total_tokens": _COUNT_OR_NONE,
    "on_failure": (lambda v: v in ("raise", "keep"), '"raise", "keep"'),
    "seed": (lambda v: v is None or isinstance(v, int), "None or a whole number"),
    "fn": (callable, "a function of one text, sync or async"),
}


def check_fields(thing: Any, name: str) -> None:
    """Check the fields of a dataclass against what is allowed for their names.

    Raises:
        InvalidMixtureError: The first one that is not allowed, and what is.
    """
    for field in fields(thing):
        check_value(getattr(thing, field.name), field.name, name)


def check_value(value: object, field: str, name: str) -> None:
    """Check one value of a field; `name` is whose it is.

    Raises:
        InvalidMixtureError: It is not allowed; the message says what is.

    Example:
        >>> check_value(0.7, "temp", "Propose")
    """
    accepts, allowed = _RULES.get(field, (None, ""))
    if accepts is not None and not accepts(value):
        raise InvalidMixtureError(
            f"{name}: {field} is {shown(value)}; allowed: {allowed}."
        )


SHOWING: Final = frozenset({"responses", "text"})
"""What a prompt says where a model is to be shown responses."""


class CheckedStep(Step):
    """A step of this package: its fields are checked when it is constructed."""

    variables: ClassVar[frozenset[str]] = frozenset({"responses", "query", "messages"})
    """What a template may use."""
    _by_n: ClassVar[bool] = False
    """Whether it makes a call per response, and not per agent."""

    def __post_init__(self) -> None:
        check_fields(self, type(self).__name__)
        for field in fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            value = getattr(self, field.name)
            if field.name == "prompt" and value is not field.default:
                self._check_prompt(value)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        agents = getattr(self, "agents", None)
        if self.quorum and agents and self.quorum > len(agents) and not self._by_n:
            raise InvalidMixtureError(
                f"{type(self).__name__}: quorum is {self.quorum}; allowed: at most "
                f"{len(agents)}, the number of agents."
            )

    def _check_prompt(self, prompt: object) -> None:
        name = type(self).__name__
        if isinstance(prompt, ChatPromptTemplate):
            unknown = set(prompt.input_variables) - self.variables
            if unknown:
                raise InvalidMixtureError(
                    f"{name}: prompt has the variable {min(unknown)!r}; allowed: "
                    f"{', '.join(sorted(self.variables))}."
                )
            showing = self.variables & SHOWING
            if showing and not showing & set(prompt.input_variables):
                raise InvalidMixtureError(
                    f"{name}: prompt shows the model no response; allowed: a template "
                    f"with the variable {' or '.join(sorted(showing))}."
                )
        elif not (isinstance(prompt, str) and prompt.strip()):
            raise InvalidMixtureError(
                f"{name}: prompt is {shown(prompt)}; allowed: an instruction as a "
                "string, or a ChatPromptTemplate."
            )
