"""Keys, and how they are kept out of errors, histories and traces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from langchain_core.runnables import Runnable
from langgraph.pregel import Pregel
from pydantic import SecretStr

from langchain_mixture.compat import nodes_of

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

MIN_SECRET: Final = 8
"""The fewest characters of a model's key that is taken out of texts."""


def redact(text: str) -> str:
    """Replace what looks like a provider's key.

    Example:
        >>> redact("Authorization: Bearer abc.def")
        'Authorization: Bearer [redacted]'
    """
    return _KEYS.sub(lambda found: f"{found[1] or ''}[redacted]", text)


def cleaner(runnable: Runnable[Any, Any]) -> Callable[[str], str]:
    """Return a function that takes a Runnable's keys, and what looks like one, out.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> agent = RunnableLambda(str).bind(api_key=SecretStr("a-password"))
        >>> cleaner(agent)("a-password is wrong")
        '[redacted] is wrong'
    """
    # A placeholder for servers that want no key, such as "EMPTY", is a word.
    held = [key for key in keys_in(runnable) if len(key) >= MIN_SECRET]
    held.sort(key=len, reverse=True)  # one key may be the beginning of another

    def clean(text: str) -> str:
        for key in held:
            text = text.replace(key, "[redacted]")
        return redact(text)

    return clean


def keys_in(runnable: Runnable[Any, Any]) -> set[str]:
    """Return the keys that the models of a Runnable hold as `SecretStr`.

    Wrappers, sequences, fallbacks and the nodes of graphs are followed; functions are
    not, so a key that only a function knows is found by its shape alone, if at all.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> agent = RunnableLambda(str).bind(api_key=SecretStr("abc"))
        >>> keys_in(agent.with_retry() | str)
        {'abc'}
    """
    keys: set[str] = set()
    seen: set[int] = set()
    waiting: list[object] = [runnable]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, SecretStr):
            keys.add(thing.get_secret_value())
        elif id(thing) not in seen:
            seen.add(id(thing))
            waiting += _parts(thing)
    return keys


def _parts(thing: object) -> Iterable[object]:
    match thing:
        case dict():
            return thing.values()
        case list() | tuple():
            return thing
        case Pregel():
            return nodes_of(thing)
        case Runnable():  # a model, or what is wrapped around one
            return vars(thing).values()
    return ()


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


def redact_error(error: BaseException, clean: Callable[[str], str] = redact) -> None:
    """Take keys out of an error and of those that it was raised from, in place.

    Args:
        error: A provider's, on its way to a trace.
        clean: Takes keys out of a text.

    Example:
        >>> error = ValueError("key sk-abcdef1234567890 is wrong")
        >>> redact_error(error)
        >>> error
        ValueError('key [redacted] is wrong')
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.args = tuple(in_texts(part, clean) for part in link.args)
        link = link.__cause__ or link.__context__


def in_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Change every text in plain data.

    Example:
        >>> in_texts({"words": ["a", "b"], "n": 1}, str.upper)
        {'words': ['A', 'B'], 'n': 1}
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [in_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: in_texts(item, change) for key, item in value.items()}
    return value
