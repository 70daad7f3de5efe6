"""The errors of this package, split by when they are raised.

MixtureError
├── InvalidMixtureError (ValueError)     building: a step, an agent, a client
└── StepFailedError (RuntimeError)       running: a step has no usable response
    └── NoResponsesError                 … and neither had any step before it
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_mixture.records import HistoryRow, Response


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
    """One row per step, the failed one last."""

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
    """Return a value as an error message shows it.

    Plain values are shown as they are. Anything else is shown by its type alone,
    because the repr of a model or a client may hold a key.

    Example:
        >>> shown([1, object()])
        '[1, an object]'
    """
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
