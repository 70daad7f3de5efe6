"""Keys in errors of every kind, and in all that is made of an error."""

import asyncio
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.base import BaseTracer
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel, SecretStr, ValidationError
from tenacity import retry, stop_after_attempt

from langchain_mixture import (
    InvalidMixtureError,
    Map,
    Propose,
    StepFailedError,
    create_mixture,
)
from langchain_mixture.errors import shown
from langchain_mixture.secrets import (
    LONGEST_ERROR,
    LONGEST_TEXT,
    cleaner,
    describe,
    keys_in,
    one_line,
    redact,
    redact_error,
)
from tests.models import Scripted, ask

KEY = "sk-abcdef1234567890"


class ComputedError(Exception):
    """An error that writes its text anew whenever it is asked."""

    def __init__(self, body: Any) -> None:
        super().__init__("see the body")
        self.body = body

    def __str__(self) -> str:
        return f"the provider said {self.body}"


class AnsweredError(ComputedError):
    """What a provider's HTTP response said."""

    def __str__(self) -> str:
        return f"401: {self.body.text}"


class Text:
    """An HTTP response, which is no plain data."""

    text = f"bad key {KEY}"

    def __repr__(self) -> str:
        return f"<Text {self.text}>"


class SlottedError(Exception):
    """An error without a dict of its own."""

    __slots__ = ("message",)
    message: str

    def __str__(self) -> str:
        return str(self.message)


@dataclass(frozen=True)
class FrozenError(Exception):
    """An error whose fields cannot be set."""

    said: str

    def __str__(self) -> str:
        return self.said


class ChoosyError(Exception):
    """An error of which no subclass can be made."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        raise TypeError("no subclasses")

    def __str__(self) -> str:
        return str(self.args[0].text)


class Fields(BaseModel):
    """Settings, one of them a number."""

    n: int


def slotted() -> Exception:
    """Make an error whose text stands in a slot."""
    error = SlottedError()
    error.message = KEY
    return error


def noted() -> Exception:
    """Make an error with a note."""
    error = ValueError("see the note")
    error.add_note(f"the key was {KEY}")
    return error


def invalid() -> Exception:
    """Make an error of pydantic's, which quotes the input."""
    with pytest.raises(ValidationError) as raised:
        Fields(n=KEY)  # type: ignore[arg-type]  # what the error is about
    return raised.value


def chained(error: Exception, **links: BaseException) -> Exception:
    """Link an error to others."""
    for name, link in links.items():
        setattr(error, f"__{name}__", link)
    return error


def circular() -> Exception:
    """Make an error that is its own context's context."""
    first, second = ValueError(KEY), KeyError(KEY)
    first.__context__, second.__context__ = second, first
    return first


PLAIN = ValueError
ERRORS: dict[str, Callable[[], BaseException]] = {
    "argument": lambda: PLAIN(f"key {KEY}"),
    "argument that is no text": lambda: PLAIN(Text()),
    "argument in a list": lambda: PLAIN([{KEY: (KEY, 1)}]),
    "key of a dict": lambda: KeyError(KEY),
    "bytes": lambda: PLAIN(KEY.encode()),
    "text of its own": lambda: ComputedError({"error": [KEY]}),
    "text of a response": lambda: AnsweredError(Text()),
    "text in a slot": slotted,
    "frozen": lambda: FrozenError(KEY),
    "no subclasses": lambda: ChoosyError(Text()),
    "note": noted,
    "file name": lambda: OSError(2, "No such file", f"/keys/{KEY}"),
    "second file name": lambda: OSError(2, "No such file", "a", None, f"/k/{KEY}"),
    "path": lambda: FileNotFoundError(2, "No such file", Path(KEY)),
    "strerror": lambda: PermissionError(1, f"bad key {KEY}"),
    "syntax": lambda: SyntaxError("bad", ("a.py", 1, 1, f"key = '{KEY}'\n")),
    "pydantic": invalid,
    "cause": lambda: chained(PLAIN("outer"), cause=PLAIN(KEY)),
    "context": lambda: chained(PLAIN("outer"), context=PLAIN(KEY)),
    "context beside a cause": lambda: chained(
        PLAIN("outer"), cause=PLAIN("inner"), context=ComputedError(KEY)
    ),
    "context of a cause": lambda: chained(
        PLAIN("outer"), cause=chained(PLAIN("inner"), context=PLAIN(KEY))
    ),
    "circle": circular,
    "member of a group": lambda: ExceptionGroup(
        "two", [PLAIN("fine"), ExceptionGroup("one", [PLAIN(KEY)])]
    ),
    "cause of a member": lambda: ExceptionGroup(
        "one", [chained(PLAIN("outer"), cause=PLAIN(KEY))]
    ),
    "group's own words": lambda: ExceptionGroup(f"key {KEY}", [PLAIN("fine")]),
    "beyond what is read": lambda: PLAIN("x " * LONGEST_TEXT + KEY),
    "at the end of what is read": lambda: PLAIN(
        "x" * (LONGEST_TEXT - 12) + f" {KEY} is wrong"
    ),
}


def said_of(error: BaseException) -> str:
    """Write an error out as tracers and tracebacks do, nothing suppressed."""
    links = [error, error.__cause__, error.__context__]
    for link in filter(None, links):
        link.__suppress_context__ = False
    return repr(error) + "".join(traceback.format_exception(error))


@pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS)
def test_no_error_shows_a_key_once_it_is_redacted(
    make: Callable[[], BaseException],
) -> None:
    """Wherever it stood; and the error is the same object, of the same kinds."""
    error = make()
    kinds = type(error).__mro__
    redact_error(error)
    assert KEY not in said_of(error)
    assert KEY[:10] not in said_of(error)
    assert isinstance(error, kinds[0])
    assert type(error).__name__ == kinds[0].__name__
    assert KEY not in describe(make())
    assert KEY[:10] not in describe(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: PLAIN("the file is missing"),
        lambda: OSError(2, "No such file", "a.txt"),
        lambda: FileNotFoundError(2, "No such file", Path("a.txt")),
        lambda: ComputedError({"error": ["none"]}),
        lambda: chained(PLAIN("outer"), cause=KeyError("k")),
        lambda: PLAIN(Text),
        lambda: PLAIN({"a": [1, None, (2.5,)]}),
    ],
)
def test_an_error_without_a_key_stays_as_it_is(make: Callable[[], Any]) -> None:
    """Its class, its words and its parts are untouched."""
    error, other = make(), make()
    redact_error(error)
    assert type(error) is type(other)
    assert (str(error), repr(error)) == (str(other), repr(other))
    assert vars(error).keys() == vars(other).keys()


class BrokenError(Exception):
    """An error that raises whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("not now")

    __repr__ = __str__

    @property
    def args(self) -> Any:
        """Raise."""
        raise RuntimeError("not now")

    @args.setter
    def args(self, value: Any) -> None:
        raise RuntimeError("not now")


def test_a_broken_error_breaks_nothing() -> None:
    """What it is called can still be said."""
    error = BrokenError()
    redact_error(error)
    assert describe(error) == "BrokenError"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("\x1b[31mred\x00\u2028\x85end", "[31mred end"),
        ("half of a pair \ud800", "half of a pair ?"),
        ("x" * 5000, "x" * LONGEST_ERROR + "… (5000 characters)"),
        (f"{KEY} is wrong", "[redacted] is wrong"),
        (" \n ", ""),
        (" " * 10**6, ""),
        (
            "<p>" * 10**6,
            ("<p>" * LONGEST_ERROR)[:LONGEST_ERROR] + "… (3000000 characters)",
        ),
    ],
    ids=["lines", "controls", "surrogate", "long", "key", "empty", "blank", "page"],
)
def test_anothers_text_is_one_short_line(text: str, line: str) -> None:
    """Without control characters, which a terminal would obey."""
    assert one_line(text) == line


def test_a_value_in_a_message_is_one_short_line_without_a_key() -> None:
    """A key given in the place of something else is not shown."""
    assert shown(KEY) == "'[redacted]'"
    assert len(shown("x" * 10**6)) < 2 * LONGEST_ERROR


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("invalid API key: my-own-password", "invalid API key: [redacted]"),
        ("Incorrect API key provided: abc", "Incorrect API key provided: [redacted]"),
        ("apikey=abcdef&x=1", "apikey=[redacted]&x=1"),
        ("password='abc def'", "password='[redacted] def'"),
        ("https://me:secret@host/v1", "https://[redacted]@host/v1"),
        ("https://host:8080/v1", "https://host:8080/v1"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.abc", "[redacted]"),
        ("the API key is missing", "the API key is missing"),
        ("API keys: see the docs", "API keys: see the docs"),
    ],
)
def test_more_shapes_of_keys_are_redacted_and_words_are_not(
    text: str, redacted: str
) -> None:
    """A key that only a function knows is found by what stands in front of it."""
    assert redact(text) == redacted


def test_the_longer_of_two_keys_is_taken_out_first() -> None:
    """A key that begins with another one leaves no rest behind."""
    agent = Scripted(model="m").bind(
        keys=[SecretStr("gateway"), SecretStr("gateway-2"), SecretStr("gateway-2-long")]
    )
    assert cleaner(agent)("gateway-2-long") == "[redacted]"


class Odd(RunnableLambda[Any, Any]):
    """A Runnable that holds itself, and what raises when it is asked."""

    def __init__(self) -> None:
        super().__init__(str)
        self.me = self
        self.many = [self, {"me": self}]


def test_looking_for_keys_ends() -> None:
    """Runnables that hold themselves are looked at once."""
    assert keys_in(Odd() | Odd()) == set()


class Traces(BaseTracer):
    """Keeps what a trace is told, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.told = ""

    def _persist_run(self, run: Any) -> None:
        self.told += str(run)


def failing_model(error: BaseException) -> Any:
    """Make a model that raises."""
    return Scripted(model="m", script=error)


def failing_function(error: BaseException) -> Any:
    """Make an agent of a function that raises."""

    def fail(_: Any) -> str:
        raise error

    return RunnableLambda(fail)


def failing_from(error: BaseException) -> Any:
    """Make an agent of a function that raises from another's error."""

    def fail(_: Any) -> str:
        try:
            raise error
        except type(error) as inner:
            raise RuntimeError("the search failed") from inner

    return RunnableLambda(fail)


def failing_tool(error: BaseException) -> Any:
    """Make an agent of a graph whose tool raises."""

    @tool
    def search(query: str) -> str:
        """Search."""
        raise error

    builder: Any = StateGraph(MessagesState)
    builder.add_node("tools", lambda _: search.invoke({"query": "ion"}))
    return builder.add_edge(START, "tools").compile()


def retried(error: BaseException) -> Any:
    """Make an agent that tells of its own retries, as many clients do."""

    class Retrying(Scripted):
        def _generate(
            self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
        ) -> Any:
            @retry(stop=stop_after_attempt(2), reraise=True, after=run_manager.on_retry)
            def fail() -> None:
                raise error

            fail()

    return Retrying(model="m")


@pytest.mark.parametrize(
    "make", [failing_model, failing_function, failing_from, failing_tool, retried]
)
@pytest.mark.parametrize("kind", ["argument", "text of a response", "cause", "path"])
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_no_trace_history_or_log_shows_a_key(
    make: Callable[[BaseException], Any],
    kind: str,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever an agent is and however it fails, sync and async."""
    graph = create_mixture([Propose([make(ERRORS[kind]()), Scripted(model="good")])])
    traces = Traces()
    config: Any = {"callbacks": [traces]}
    if how == "invoke":
        state = graph.invoke(ask(), config)
    else:
        state = asyncio.run(graph.ainvoke(ask(), config))
    assert state["mixture"]["status"] == "degraded"
    assert "error" in traces.told
    assert KEY not in traces.told + str(state) + caplog.text


def test_a_users_functions_error_is_raised_from_the_original_without_its_key() -> None:
    """What a trace and a traceback show of a failed step holds no key."""

    def fail(text: str) -> str:
        raise AnsweredError(Text()) from PLAIN(KEY)

    traces = Traces()
    graph = create_mixture([Propose([Scripted(model="m")]), Map(fail)])
    with pytest.raises(StepFailedError) as raised:
        graph.invoke(ask(), {"callbacks": [traces]})
    assert isinstance(raised.value.__cause__, AnsweredError)
    assert "error" in traces.told
    assert KEY not in traces.told + said_of(raised.value)


def test_a_client_factorys_error_is_raised_from_the_original_without_its_key() -> None:
    """What is printed of an error at build shows no key, causes included."""

    def factory(name: str) -> Any:
        raise AnsweredError(Text()) from PLAIN(KEY)

    with pytest.raises(InvalidMixtureError) as raised:
        create_mixture([Propose(["gpt"])], client=factory)
    assert isinstance(raised.value.__cause__, AnsweredError)
    assert KEY not in said_of(raised.value)
