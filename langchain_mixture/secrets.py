"""Keys, and how they are kept out of errors, histories and traces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from os import PathLike
from types import MemberDescriptorType
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
    | \beyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-.]{10,}  # a JSON web token
    | (?<=bearer\s)[^\s'",}]+
    | (?<=://)[^\s/:@]{0,80}:[^\s/:@]+(?=@)  # a user and a password in a URL
    | (?:(?<=api[-_\s]key)|(?<=apikey)|(?<=password))
      ((?:\sprovided)?["']?\s?[=:]\s?["']?)[^\s'",&}]+
    """
)

LONGEST_ERROR: Final = 1000
"""Characters of a provider's error that are kept."""

LONGEST_TEXT: Final = 100_000
"""Characters in which keys are looked for; what lies beyond is cut off."""

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


def one_line(text: str, clean: Callable[[str], str] = redact) -> str:
    r"""Put another's text in one short line, without keys.

    Args:
        text: Of any length; a page of HTML is cut short.
        clean: Takes keys out of a text.

    Example:
        >>> one_line("Bad key:\n  sk-abcdef1234567890")
        'Bad key: [redacted]'
    """
    said = clean(re.sub(r"[\s\0-\x1f\x7f-\x9f]+", " ", _bounded(text)).strip())
    if len(said) > LONGEST_ERROR:
        said = f"{said[:LONGEST_ERROR]}… ({len(text)} characters)"
    return said.encode(errors="replace").decode()  # no checkpoint carries surrogates


def describe(error: BaseException, clean: Callable[[str], str] = redact) -> str:
    """Put an error in one short line, without the keys that providers quote in theirs.

    Args:
        error: Of any kind.
        clean: Takes keys out of a text.

    Example:
        >>> describe(ValueError("Incorrect API key provided: sk-abcdef1234567890"))
        'ValueError: Incorrect API key provided: [redacted]'
    """
    name, text = type(error).__name__, _said(error)
    return one_line(f"{name}: {text}" if text.strip() else name, clean)


def redact_error(error: BaseException, clean: Callable[[str], str] = redact) -> None:
    """Take keys out of an error and of all that a traceback shows with it, in place.

    These are its causes, its contexts, and the members of groups.

    Args:
        error: Another's, on its way to a trace or into the cause of one of ours.
        clean: Takes keys out of a text.

    Example:
        >>> error = ValueError("key sk-abcdef1234567890 is wrong")
        >>> redact_error(error)
        >>> error
        ValueError('key [redacted] is wrong')
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            _redact_parts(link, clean)
            _redact_words(link, clean)
            waiting += [link.__cause__, link.__context__]
            if isinstance(link, BaseExceptionGroup):
                waiting += link.exceptions


def _redact_parts(error: BaseException, clean: Callable[[str], str]) -> None:
    """Take keys out of the texts that an error holds: arguments, notes, file names."""
    built_in = [
        name
        for kind in type(error).__mro__
        for name, member in vars(kind).items()
        if isinstance(member, MemberDescriptorType)
    ]
    for name in ("args", *vars(error), *built_in):
        with suppress(Exception):  # it is read-only, or a class of a user's that raises
            value = getattr(error, name)
            if isinstance(value, PathLike | bytes):
                value = str(value)
            is_plain = isinstance(value, str | list | tuple | dict)
            if is_plain and len(str(value)) <= LONGEST_TEXT:
                changed = in_texts(value, clean)
                if changed != value:
                    setattr(error, name, changed)


def _redact_words(error: BaseException, clean: Callable[[str], str]) -> None:
    """Change what an error says of itself, where that still holds a key."""
    said, shown = _said(error), _said(error, repr)
    safe = clean(_bounded(said))
    if safe == said and clean(_bounded(shown)) == shown:
        return
    kind = type(error)
    words = {
        "__slots__": (),  # only a class of the same layout can take its place
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__str__": lambda _: safe,
        "__repr__": lambda _: f"{kind.__name__}({safe!r})",
        _MARK: True,
    }
    try:
        safe_kind = type(kind.__name__, (kind,), words)
        object.__setattr__(error, "__class__", safe_kind)
    except Exception:  # noqa: BLE001  # a built-in error, which says its arguments
        error.args = (safe,)


_MARK: Final = "__redacted__"


def is_redacted(kind: type) -> bool:
    """Whether a class was made for one error, to change what it says.

    Example:
        >>> is_redacted(ValueError)
        False
    """
    return _MARK in vars(kind)


def _said(error: BaseException, form: Callable[[BaseException], str] = str) -> str:
    try:
        return form(error)
    except Exception:  # noqa: BLE001  # an error may be broken, too
        return ""


def _bounded(text: str) -> str:
    """Cut a long text between two words: half a key looks like none."""
    if len(text) <= LONGEST_TEXT:
        return text
    return "".join(text[:LONGEST_TEXT].rsplit(maxsplit=1)[:1])


def in_texts(value: Any, change: Callable[[str], Any]) -> Any:
    """Change every text in plain data, the keys of dicts included.

    Example:
        >>> in_texts({"words": ["a", "b"], "n": 1}, str.upper)
        {'WORDS': ['A', 'B'], 'N': 1}
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [in_texts(item, change) for item in value]
    if type(value) is tuple:  # one with names is not made of a list
        return tuple(in_texts(item, change) for item in value)
    if isinstance(value, dict):
        return {
            in_texts(key, change): in_texts(item, change) for key, item in value.items()
        }
    return value
