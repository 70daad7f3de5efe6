"""The errors of this package, split by when they are raised.

MixtureError
├── InvalidMixtureError (ValueError)     building: a step, an agent, a client
└── StepFailedError (RuntimeError)       running: a step has no usable response
    └── NoResponsesError                 … and neither had any step before it

Where a step's calls failed alike, its error is also of the kind that their errors are:
the provider's, or one of LangChain's, such as `ModelRateLimitError`, or Python's.
"""

from __future__ import annotations

import difflib
import inspect
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from sysconfig import get_path
from typing import Any, Final

from langchain_core.exceptions import ModelError

from langchain_mixture.records import HistoryRow, Response
from langchain_mixture.secrets import is_redacted, one_line

_LIBRARIES: Final = (
    *map(get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parent),
)
"""Where code lies that is not the user's own."""


class MixtureError(Exception):
    """The base class of this package's errors."""


class InvalidMixtureError(MixtureError, ValueError):
    """A pipeline that cannot be built; the message names the culprit."""


class StepFailedError(MixtureError, RuntimeError):
    """A step failed while the mixture ran; the error keeps what was paid for.

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
    """The responses given to the failed step, and those of its calls that answered."""
    history: list[HistoryRow]
    """One row a step, the failed one last."""
    errors: list[BaseException]
    """What the failed calls of the step raised, in their order, without keys; the first
    one is the cause of this error. Empty where no call raised, and behind a pickle."""
    status_code: int | None
    """The HTTP status that all these errors carry; None where they differ."""

    def __init__(
        self,
        message: str,
        *,
        responses: Sequence[Response] = (),
        history: Sequence[HistoryRow] = (),
        errors: Sequence[BaseException] = (),
    ) -> None:
        super().__init__(message)
        # Of a provider's kind, it has the plain facts that such an error has: a code, a
        # body. The whole response stays with the cause: it may quote a key.
        facts = vars(errors[0]) if errors else {}
        plain = str | int | float | dict | list | None  # type: ignore[type-arg]  # a check
        vars(self).update({k: v for k, v in facts.items() if isinstance(v, plain)})
        self._message = message
        self.responses = list(responses)
        self.history = list(history)
        self.errors = list(errors)
        self.status_code = _status_of(self.errors)
        self.__cause__ = self.errors[0] if self.errors else None

    def __str__(self) -> str:
        return self._message

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the user's own lines, and the message.

        The frames of LangGraph and LangChain in between would be 200 lines.
        """
        frames = traceback.extract_tb(self.__traceback__)
        own = [f for f in frames if not f.filename.startswith(_LIBRARIES)]
        message = f"{type(self).__name__}: {self._message}"
        return [*traceback.format_list(own), message]

    def __reduce__(self) -> Any:
        return type(self), self.args, self._pickled()

    def _pickled(self) -> dict[str, Any]:
        # As Python leaves out the cause: few errors of providers can be made again.
        return {**vars(self), "errors": []}


class NoResponsesError(StepFailedError):
    """No response is left: every call failed, or a filter rejected them all."""


def of_kind(
    kind: type[StepFailedError], errors: Sequence[BaseException]
) -> type[StepFailedError]:
    """Return a class of error that is also of the kind that all errors are.

    LangChain and its users act on these kinds: middleware retries what `is_retryable`,
    and compacts a conversation after a `ContextOverflowError`; `with_retry` and
    `except` name a provider's classes, or Python's.

    Args:
        kind: The class of error to raise.
        errors: What the calls of a step raised.

    Example:
        >>> from langchain_core.exceptions import ModelRateLimitError
        >>> overload = of_kind(StepFailedError, [ModelRateLimitError("slow down")])
        >>> issubclass(overload, ModelRateLimitError), overload.is_retryable
        (True, True)
    """
    retry = any(getattr(error, "is_retryable", False) for error in errors)
    for base in type(errors[0]).__mro__ if errors else ():
        # An error of a mixture inside has its own kind behind this package's, and one
        # that was redacted has it behind the class that does this.
        if issubclass(base, MixtureError) or issubclass(kind, base):
            continue
        if all(isinstance(error, base) for error in errors) and not is_redacted(base):
            with suppress(Exception):  # some classes cannot be joined with others
                return _joined(kind, base, retry)  # type: ignore[arg-type]  # mypy: hash of errors
    return kind


@cache
def _joined(
    kind: type[StepFailedError], base: type[BaseException], is_retryable: bool
) -> type[StepFailedError]:
    def __reduce__(error: StepFailedError) -> Any:  # noqa: N807  # it becomes a method
        made = (kind, base, is_retryable, error.args)
        return _unpickled, made, error._pickled()  # noqa: SLF001  # it becomes a method

    namespace: dict[str, Any] = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__reduce__": __reduce__,
    }
    if issubclass(base, ModelError):
        namespace["is_retryable"] = is_retryable
    joined: type[StepFailedError] = type(kind.__name__, (kind, base), namespace)
    joined("")  # some, such as ExceptionGroup, are not made of a message alone
    return joined


def _unpickled(
    kind: type[StepFailedError],
    base: type[BaseException],
    is_retryable: bool,
    args: tuple[Any, ...],
) -> StepFailedError:
    return _joined(kind, base, is_retryable)(*args)  # type: ignore[arg-type]  # as above


def _status_of(errors: Iterable[object]) -> int | None:
    found = {_status(error) for error in errors}
    return found.pop() if len(found) == 1 else None


def _status(error: object) -> int | None:
    # The error of an HTTP client has it in its response, which Mistral's package uses.
    for holder in (error, getattr(error, "response", None)):
        if isinstance(status := getattr(holder, "status_code", None), int):
            return status
    return None


def shown(value: object) -> str:
    """Return a value as an error message shows it.

    Plain values are shown as they are. Anything else is shown by its type alone,
    because the repr of a model or a client may hold a key.

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
    """Return a number and a noun, in the plural unless the number is 1.

    Example:
        >>> counted(1, "second"), counted(0.5, "second")
        ('1 second', '0.5 seconds')
    """
    return f"{number:.15g} {noun}{'' if number == 1 else 's'}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: the nearest name, or all names.

    Example:
        >>> nearest("deadlin", ["timeout", "deadline"])
        'nearest: deadline'
        >>> nearest("memory", ["timeout", "deadline"])
        'allowed: timeout, deadline'
    """
    names = list(known)
    # A little below difflib's own 0.6, so that "temperature" means "temp".
    near = meant(name, names, cutoff=0.52)
    return f"nearest: {near}" if near else f"allowed: {', '.join(names)}"


def meant(name: str, known: Iterable[str], cutoff: float) -> str | None:
    """Find the known name that is spelt like another, or that means the same.

    Args:
        name: The other name.
        known: The names that there are.
        cutoff: How alike they must be, from 0 to 1.

    Example:
        >>> meant("model", ["agent", "temp"], 0.6)
        'agent'
    """
    names = list(known)
    same = _SYNONYMS.get(name, "")
    near = difflib.get_close_matches(name, names, 1, cutoff)
    return same if same in names else next(iter(near), None)


_SYNONYMS = {
    **dict.fromkeys(["model", "llm", "judge"], "agent"),
    **dict.fromkeys(["models", "llms", "proposers"], "agents"),
    **dict.fromkeys(["function", "key", "predicate"], "fn"),
    **dict.fromkeys(["k", "top", "top_k", "top_n"], "n"),
    **dict.fromkeys(["system", "instruction", "instructions"], "prompt"),
    **dict.fromkeys(["question", "input"], "query"),
    **dict.fromkeys(["answers", "proposals"], "responses"),
}
"""Other people's words for what is called differently here."""


def refuse(unknown: Iterable[str], function: Callable[..., object]) -> None:
    """Raise an error for keywords that a function does not have.

    Raises:
        InvalidMixtureError: There is such a keyword; the message names the nearest one.

    Example:
        >>> refuse([], print)
    """
    for name in unknown:
        parameters = inspect.signature(function).parameters.values()
        known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        raise InvalidMixtureError(
            f"{function.__name__} has no argument {name!r}; {nearest(name, known)}."
        )
