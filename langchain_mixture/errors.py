"""What can go wrong, split by when.

MixtureError
├── InvalidMixtureError (ValueError)     building: a step, an agent, a client
└── StepFailedError (RuntimeError)       running: a step had no usable outcome
    └── NoResponsesError                 … and there is no response to go back to
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence

from langchain_mixture.records import HistoryRow, Response
from langchain_mixture.secrets import one_line


class MixtureError(Exception):
    """Any error of this package; catch it to catch them all."""


class InvalidMixtureError(MixtureError, ValueError):
    """A pipeline that cannot be built; the message names the culprit."""


class StepFailedError(MixtureError, RuntimeError):
    """A step of a running mixture failed; what was paid for is kept here.

    Example:
        ```python
        from langchain_mixture import StepFailedError, create_mixture, self_moa

        graph = create_mixture(self_moa("openai:gpt-4o"))
        try:
            graph.invoke({"messages": [("user", "What is an ion?")]})
        except StepFailedError as error:
            drafts = [response["text"] for response in error.responses]
        ```
    """

    responses: list[Response]
    """The responses that had arrived at the step that failed."""
    history: list[HistoryRow]
    """One row a step, the failed one last."""

    def __init__(
        self,
        message: str,
        *,
        responses: Sequence[Response] = (),
        history: Sequence[HistoryRow] = (),
    ) -> None:
        super().__init__(message)
        self.responses = list(responses)
        self.history = list(history)


class NoResponsesError(StepFailedError):
    """No response is left: every call failed, or a filter rejected them all."""


def shown(value: object) -> str:
    """Show plain values; of anything else the type alone, which holds no secret.

    Example:
        >>> shown([1, object()])
        '[1, an object]'
    """
    if value is None or isinstance(value, str | int | float):
        return one_line(repr(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def counted(number: float, noun: str) -> str:
    """Put a number in front of a noun, in the plural where it is not 1.

    Example:
        >>> counted(1, "second"), counted(0.5, "second")
        ('1 second', '0.5 seconds')
    """
    return f"{number:.15g} {noun}{'' if number == 1 else 's'}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Hint at what a misspelt name may mean: the nearest one, or else all of them.

    Example:
        >>> nearest("deadlin", ["timeout", "deadline"])
        'nearest: deadline'
        >>> nearest("memory", ["timeout", "deadline"])
        'allowed: timeout, deadline'
    """
    names = list(known)
    # A little below difflib's own 0.6, so that "temperature" means "temp".
    near = difflib.get_close_matches(name, names, 1, cutoff=0.52)
    return f"nearest: {near[0]}" if near else f"allowed: {', '.join(names)}"


def refuse(unknown: Iterable[str], function: Callable[..., object]) -> None:
    """Refuse keywords that a function does not have.

    Raises:
        InvalidMixtureError: There is one; the message names the nearest that exists.

    Example:
        >>> refuse([], print)
    """
    for name in unknown:
        parameters = inspect.signature(function).parameters.values()
        known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        raise InvalidMixtureError(
            f"{function.__name__} has no argument {name!r}; {nearest(name, known)}."
        )
