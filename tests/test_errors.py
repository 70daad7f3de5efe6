"""The errors of a run: of which kind they are, what they carry, what a pickle keeps."""

import json
import pickle
from typing import Any

import httpx
import openai
import pytest
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAuthenticationError,
    ModelError,
    ModelRateLimitError,
)
from langchain_core.messages import AIMessage
from pydantic import BaseModel, ValidationError

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    NoResponsesError,
    Propose,
    StepFailedError,
    create_mixture,
)
from langchain_mixture.errors import of_kind
from langchain_mixture.secrets import redact_error
from tests.models import Scripted, ask


def response(status: int) -> Any:
    """Make a provider's HTTP response."""
    request = httpx.Request("POST", "http://127.0.0.1/v1")
    return httpx.Response(status, request=request)


def limited(message: str = "slow down") -> openai.RateLimitError:
    """Make the error of OpenAI's client for status 429."""
    body = {"code": "rate_limit_exceeded"}
    return openai.RateLimitError(message, response=response(429), body=body)


class QuotingError(ModelRateLimitError):
    """An error that quotes a key wherever it is shown."""

    def __str__(self) -> str:
        return "sk-abcdef1234567890 is wrong"


def redacted() -> QuotingError:
    """Make an error whose class had to be changed to take its key out."""
    error = QuotingError()
    redact_error(error)
    assert str(error) == "[redacted] is wrong"
    assert type(error) is not QuotingError
    return error


def invalid() -> ValidationError:
    """Make an error of pydantic's, of whose class no other can be made."""

    class Ion(BaseModel):
        charge: int

    with pytest.raises(ValidationError) as raised:
        Ion.model_validate({"charge": "one"})
    return raised.value


class SlowError(Exception):
    """An error of a user's own, which is made of two arguments."""

    def __init__(self, seconds: float, *, by: str) -> None:
        super().__init__(f"{by} took {seconds} seconds")
        self.seconds = seconds


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([ValueError("x")], ValueError),
        ([ValueError("x"), json.JSONDecodeError("x", "", 0)], ValueError),
        ([json.JSONDecodeError("x", "", 0), ValueError("x")], ValueError),
        ([OSError("x"), ConnectionResetError("x")], OSError),
        ([ModelRateLimitError("x")], ModelRateLimitError),
        ([ContextOverflowError("x")] * 3, ContextOverflowError),
        ([ModelRateLimitError("x"), ModelAuthenticationError("x")], ModelError),
        ([limited(), limited()], openai.RateLimitError),
        ([redacted()], QuotingError),
        ([SlowError(3, by="a")], SlowError),
        ([invalid()], ValueError),
        ([NoResponsesError("x")], None),
        ([RuntimeError("x")], None),
        ([ValueError("x"), KeyError("x")], None),
        ([ExceptionGroup("x", [ValueError("x")])], None),
        ([], None),
    ],
    ids=[
        "one error",
        "one of a narrower class",
        "the narrower one first",
        "errors of the system",
        "LangChain's",
        "three alike",
        "LangChain's, which differ",
        "a provider's",
        "redacted",
        "made of other arguments",
        "a class that has no subclasses",
        "ours, without a cause",
        "a kind that ours is already",
        "nothing in common",
        "a group",
        "none",
    ],
)
def test_an_error_is_of_the_kind_that_all_its_causes_are(
    errors: list[Exception], kind: type[Exception] | None
) -> None:
    """It is always ours; where the causes are alike, it is of their class as well."""
    joined = of_kind(StepFailedError, errors)
    if kind is None:
        assert joined is StepFailedError
        return
    error = joined("1_propose has no answer", errors=errors)
    assert isinstance(error, StepFailedError)
    assert isinstance(error, kind)
    assert str(error) == "1_propose has no answer"
    assert error.errors == errors
    assert error.__cause__ is errors[0]
    assert joined.__name__ == "StepFailedError"
    assert of_kind(StepFailedError, errors) is joined


@pytest.mark.parametrize(
    ("errors", "retryable"),
    [
        ([ModelRateLimitError("x")], True),
        ([ModelAuthenticationError("x")], False),
        ([ModelAuthenticationError("x"), ModelRateLimitError("x")], True),
    ],
    ids=["all can be mended", "none can", "one can"],
)
def test_a_step_is_worth_a_retry_where_one_of_its_calls_is(
    errors: list[ModelError], retryable: bool
) -> None:
    """LangChain's retries ask an error of its own classes."""
    error: Any = of_kind(StepFailedError, errors)("no answer", errors=errors)
    assert error.is_retryable is retryable


@pytest.mark.parametrize(
    ("errors", "status"),
    [
        ([limited(), limited()], 429),
        (
            [
                httpx.HTTPStatusError(
                    "x", request=httpx.Request("POST", "/"), response=response(401)
                )
            ],
            401,
        ),
        ([limited(), ValueError("x")], None),
        ([ValueError("x")], None),
        ([], None),
    ],
    ids=["a provider's", "an HTTP client's", "they differ", "it has none", "no error"],
)
def test_an_error_has_the_status_that_all_its_causes_have(
    errors: list[Exception], status: int | None
) -> None:
    """Whichever way a client keeps it."""
    error = of_kind(StepFailedError, errors)("no answer", errors=errors)
    assert error.status_code == status


def test_an_error_has_the_facts_of_the_first_cause_but_no_response() -> None:
    """A handler of the provider's errors finds its code; a response may hold a key."""
    error: Any = of_kind(StepFailedError, [limited()])("no", errors=[limited()])
    assert error.code == "rate_limit_exceeded"
    assert error.body == {"code": "rate_limit_exceeded"}
    assert not hasattr(error, "response")


@pytest.mark.parametrize(
    "cause",
    [None, ValueError("x"), ModelRateLimitError("x"), limited(), SlowError(3, by="a")],
    ids=["no cause", "Python's", "LangChain's", "a provider's", "a user's"],
)
def test_a_pickle_keeps_all_of_an_error_but_its_causes(cause: Any) -> None:
    """They stay behind, as Python leaves `__cause__` behind: few can be made again."""
    errors = [] if cause is None else [cause]
    kind = of_kind(NoResponsesError, errors)
    error = kind("no response is left", history=[], errors=errors)
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert twin.status_code == error.status_code
    assert (twin.responses, twin.history, twin.errors) == ([], [], [])
    assert getattr(twin, "is_retryable", None) == getattr(error, "is_retryable", None)


@pytest.mark.parametrize("depth", [1, 2, 3], ids=["a mixture", "nested", "twice"])
def test_a_run_raises_an_error_of_the_models_kind_at_any_depth(depth: int) -> None:
    """Retries and compaction around a mixture of mixtures act on it, too."""
    cause = ContextOverflowError("the prompt is too long")
    model: Any = Scripted(model="a", script=cause)
    for _ in range(depth):
        model = ChatMixture([Propose([model])])
    with pytest.raises(ContextOverflowError, match="no response is left") as raised:
        model.invoke("Why?")
    assert isinstance(raised.value, NoResponsesError)
    assert raised.value.is_retryable is False
    assert str(raised.value).count("no response is left") == depth


def test_the_errors_of_a_step_are_told_in_the_order_of_its_calls() -> None:
    """The first one is the cause; fallbacks come behind the model in front of them."""
    causes = [OSError(name) for name in ("a", "b", "c")]
    a, b, c = (Scripted(model=str(cause), script=cause) for cause in causes)
    with pytest.raises(OSError, match="has no answer") as raised:
        ChatMixture(
            [Propose(["x"]), Aggregate(a, fallbacks=[b, c])],
            client={"x": Scripted(model="x")},
        ).invoke("Why?")
    assert isinstance(raised.value, StepFailedError)
    assert raised.value.errors == causes
    assert raised.value.__cause__ is causes[0]


def test_an_error_is_of_no_kind_where_a_call_failed_without_one() -> None:
    """An empty answer is none: a retry for the others' sake may be in vain."""
    models = [
        Scripted(model="down", script=ModelRateLimitError("slow down")),
        Scripted(model="mute", script=AIMessage("")),
    ]
    with pytest.raises(NoResponsesError) as raised:
        create_mixture([Propose(models)]).invoke(ask())
    assert not isinstance(raised.value, ModelError)
    assert [str(error) for error in raised.value.errors] == ["slow down"]


def test_a_group_of_errors_is_a_failed_call_as_any_other() -> None:
    """Agents with task groups raise them."""
    group = ExceptionGroup("two tasks", [ValueError("x"), KeyError("y")])
    with pytest.raises(NoResponsesError, match="two tasks") as raised:
        ChatMixture([Propose([Scripted(model="a", script=group)])]).invoke("Why?")
    assert raised.value.__cause__ is group
