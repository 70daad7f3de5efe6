"""What can go wrong, split by when.

MixtureError
├── InvalidMixtureError (ValueError)     building: a step, an agent, a client
└── StepFailedError (RuntimeError)       running: a step had no usable outcome
    └── NoResponsesError                 … and there is no response to go back to
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from langchain_mixture.records import HistoryRow, Response

_KEYS = re.compile(
    r"""(?ix)
    \b(?:sk|pk|rk|gsk|xai|hf|pplx|r8|key|lsv2|gh[pousr])[-_]
      (?=[A-Za-z_\-*.]{0,80}[0-9*])[A-Za-z0-9_\-*.]{12,}
    | \bAIza[A-Za-z0-9_\-]{20,}
    | (?<=bearer\s)[^\s'",}]+
    | (?<=api[-_]key)(["']?\s?[=:]\s?["']?)[^\s'",&}]+
    """
)


LONGEST_ERROR: Final = 1000
"""Characters of a provider's error that are kept."""


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


def redact(text: str) -> str:
    """Replace what looks like a provider's key.

    Example:
        >>> redact("Authorization: Bearer abc.def")
        'Authorization: Bearer [redacted]'
    """
    return _KEYS.sub(lambda found: f"{found[1] or ''}[redacted]", text)


def describe(error: BaseException, clean: Callable[[str], str] = redact) -> str:
    """Put an error in one line, without the keys that providers quote in theirs.

    Args:
        error: Of any kind; a page of HTML as its text is cut short.
        clean: Takes keys out of a text.

    Example:
        >>> describe(ValueError("Incorrect API key provided: sk-abcdef1234567890"))
        'ValueError: Incorrect API key provided: [redacted]'
    """
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  # an error may be broken, too
        text = ""
    said = clean(f"{name}: {text}" if text else name)
    if len(said) > LONGEST_ERROR:
        said = f"{said[:LONGEST_ERROR]}… ({len(said)} characters)"
    return said


def in_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Change every text in plain data."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [in_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: in_texts(item, change) for key, item in value.items()}
    return value


def shown(value: object) -> str:
    """Show plain values; of anything else the type alone, which holds no secret.

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
