"""The checks of a step's fields, made when it is constructed."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields, is_dataclass
from typing import Any, ClassVar, Final, Self, cast

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from langchain_mixture.errors import InvalidMixtureError, meant, refuse, shown
from langchain_mixture.runnables import name_of
from langchain_mixture.secrets import one_line
from langchain_mixture.steps.base import Agent, Condition, Step


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


def _is_condition(value: object) -> bool:
    # A class is called to make a condition: `agreed` in place of `agreed()`.
    return callable(value) and not isinstance(value, type)


_CONDITION = "a condition: a function of the responses, such as agreed()"


_AGENT = (
    "a model name, a chat model or another Runnable (a function becomes one by "
    "RunnableLambda)"
)


_AGENTS = (
    lambda v: _are_agents(v) and len(v) > 0,
    f"a list of one or more: {_AGENT}",
)


_COUNT_OR_NONE = (lambda v: v is None or _is_count(v), "None or a whole number >= 1")


_TEMPERATURE = (lambda v: v is None or _is_number(v, 0), "None or a number, 0 or more")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "agent": (_is_agent, _AGENT),
    "model": (_is_agent, _AGENT),
    "aggregator": (_is_agent, _AGENT),
    "agents": _AGENTS,
    "proposers": _AGENTS,
    "fallbacks": (_are_agents, f"a list, each {_AGENT}"),
    "temp": _TEMPERATURE,
    "max_tokens": _COUNT_OR_NONE,
    "temperature": _TEMPERATURE,
    "responses_in": (
        lambda v: v in ("conversation", "system"),
        '"conversation", "system"',
    ),
    "view": (
        lambda v: v is None or callable(v) or isinstance(v, Runnable),
        "a function or Runnable from messages to messages, or None",
    ),
    "consult": (
        lambda v: v == "turn" or _is_count(v) or callable(v),
        '"turn", a whole number >= 1, or a function of the messages',
    ),
    "timeout": (
        lambda v: v in (None, "default") or (_is_number(v, 0) and v > 0),
        'seconds > 0, None for no limit, or "default" for the mixture\'s',
    ),
    "n": (_is_count, "a whole number >= 1"),
    "layers": (lambda v: _is_count(v) and v >= 2, "a whole number >= 2"),
    "rate": (lambda v: _is_number(v, 0, 1), "a probability in [0, 1]"),
    "quorum": (
        lambda v: v is None or _is_count(v) or _is_condition(v),
        f"None, a whole number >= 1, or {_CONDITION}",
    ),
    "unless": (lambda v: v is None or _is_condition(v), f"None or {_CONDITION}"),
    "condition": (_is_condition, _CONDITION),
    "cheap": (
        lambda v: _are_agents(v) and len(v) > 1,
        f"a list of two or more: {_AGENT}",
    ),
    "strong": (_is_agent, _AGENT),
    "waves": (
        lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(map(_is_count, v)),
        "a list of one or more whole numbers >= 1",
    ),
    "most": (_is_count, "a whole number >= 1"),
    "add": (lambda v: isinstance(v, bool), "True or False"),
    "grace": (lambda v: _is_number(v, 0), "seconds, 0 or more"),
    "deadline": (
        lambda v: v is None or (_is_number(v, 0) and v > 0),
        "None or seconds > 0",
    ),
    "max_calls": _COUNT_OR_NONE,
    "max_total_tokens": _COUNT_OR_NONE,
    "max_cost": (
        lambda v: v is None or (_is_number(v, 0) and v > 0),
        "None or US dollars > 0",
    ),
    "on_failure": (lambda v: v in ("raise", "keep"), '"raise", "keep"'),
    "seed": (lambda v: v is None or isinstance(v, int), "None or a whole number"),
    "fn": (callable, "a function of one text, sync or async"),
    "key": (callable, "a function of one text"),
    "embed": (
        lambda v: v is None or callable(v),
        "None or a function from a list of texts to vectors, sync or async",
    ),
    "k": (_is_count, "a whole number >= 1"),
    "of": _COUNT_OR_NONE,
    "decided.of": (_is_count, "a whole number >= 1"),
    "recursive.of": (_is_count, "a whole number >= 1"),
    "samples": (_is_count, "a whole number >= 1"),
    "rounds": (_is_count, "a whole number >= 1"),
    "Rank.agent": (
        lambda v: _is_agent(v) or (_are_agents(v) and len(v) > 0),
        f"a judge, or a list of one or more: {_AGENT}",
    ),
    "both_orders": (lambda v: isinstance(v, bool), "True or False"),
    "share": (lambda v: _is_number(v, 0, 1) and v > 0, "a share in (0, 1]"),
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
    of_any = _RULES.get(field, (None, ""))
    accepts, allowed = _RULES.get(f"{name}.{field}", of_any)
    if accepts is not None and not accepts(value):
        raise InvalidMixtureError(
            f"{name}: {field} is {shown(value)}; allowed: {allowed}."
        )


def brief(thing: Any) -> str:
    """Return the `repr` of a step or condition: one short line, without defaults.

    Example:
        >>> from langchain_mixture import Take
        >>> brief(Take(2))
        'Take(n=2)'
    """
    told = sorted(fields(thing), key=lambda field: field.name == "unless")  # last
    named = [
        text
        for field in told
        if (value := getattr(thing, field.name)) != field.default
        for text in _told(field.name, value)
    ]
    return one_line(f"{type(thing).__name__}({', '.join(named)})")


SHOWING: Final = frozenset({"responses", "text"})
"""What a prompt says where a model is to be shown responses."""


@dataclass(frozen=True, repr=False)
class CheckedStep(Step):
    """A step of this package: its fields are checked when it is constructed."""

    _: KW_ONLY
    unless: Condition | None = None
    """The step is skipped where this is true of the responses that it would be given;
    None = never. The first step is never skipped."""

    variables: ClassVar[frozenset[str]] = frozenset(
        {"responses", "query", "messages", "analysis"}
    )
    """What a template may use."""
    _fills: ClassVar[bool] = True
    """Whether variables are replaced in a prompt that is a string, too."""
    _by_n: ClassVar[bool] = False
    """Whether it makes a call per response, and not per agent."""

    def __new__(cls, *_: Any, **kwargs: Any) -> Self:
        if kwargs:  # misspelt ones are named before Python refuses them
            parameters = inspect.signature(cls).parameters
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                refuse([name for name in kwargs if name not in parameters], cls)
        return super().__new__(cls)

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        check_fields(self, type(self).__name__)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "prompt" and value is not field.default:
                self._check_prompt(value)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        agents: Sequence[Agent] = getattr(self, "agents", ())
        quorum = self.quorum if isinstance(self.quorum, int) else 0
        if agents and quorum > len(agents) and not self._by_n:
            raise InvalidMixtureError(
                f"{type(self).__name__}: quorum is {quorum}; allowed: at most "
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
        elif isinstance(prompt, str) and prompt.strip():
            self._check_braces(prompt)
        else:
            raise InvalidMixtureError(
                f"{name}: prompt is {shown(prompt)}; allowed: an instruction as a "
                "string, or a ChatPromptTemplate."
            )

    def _check_braces(self, prompt: str) -> None:
        """Warn of what looks like a variable in a string, and is not replaced."""
        replaced = self.variables - {"messages"} if self._fills else frozenset()
        for found, name in dict.fromkeys(re.findall(r"(\{\s*(\w+)\s*\})", prompt)):
            near = meant(name, self.variables, cutoff=0.7)
            if near is None or found[1:-1] in replaced:
                continue  # any other brace is data
            where = "" if near in replaced else " in a ChatPromptTemplate"
            warnings.warn(
                f"{type(self).__name__}: {found} in the prompt is not replaced; "
                f"nearest: {{{near}}}{where}.",
                stacklevel=_LEVEL,
            )


_LEVEL: Final = 5
"""From a warning up to the line that constructs the step: past `__init__`."""


def _told(field: str, value: object) -> list[str]:
    """Write a field of a step for its `repr`: short, and agents by their names."""
    if field == "agent":
        return [_name(value)]
    if field == "agents":
        return names_told(cast("Sequence[object]", value))
    if field == "fallbacks":
        names = ", ".join(map(_name, cast("Sequence[object]", value)))
        return [f"fallbacks=[{names}]"]
    if isinstance(value, str) and len(value := one_line(value)) > _LONGEST:
        value = f"{value[:_LONGEST]}…"
    if is_dataclass(value):  # a condition
        return [f"{field}={value!r}"]
    name = getattr(value, "__name__", None) if callable(value) else None
    return [f"{field}={name or shown(value)}"]


_LONGEST: Final = 40
"""Characters of a prompt in the `repr` of a step."""


def names_told(agents: Sequence[object]) -> list[str]:
    """Return the names of agents, each once.

    Example:
        >>> names_told(["gpt-4o", "gpt-4.1", "gpt-4o"])
        ['2 x gpt-4o', 'gpt-4.1']
    """
    counts = Counter(map(_name, agents))
    return [name if n == 1 else f"{n} x {name}" for name, n in counts.items()]


def _name(agent: object) -> str:
    return name_of(agent) if isinstance(agent, Runnable) else str(agent)
