"""The state of the graph: its input, its output, and what its nodes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self, cast

from langchain_core.messages import AIMessage, AnyMessage, MessageLikeRepresentation
from langgraph.channels import BinaryOperatorAggregate, EphemeralValue, Topic
from langgraph.graph import add_messages
from langgraph.types import Command
from typing_extensions import TypedDict

from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.records import NO_USAGE, Reply, Result

NOTHING: Final = Result(
    status="complete", reasons=[], responses=[], history=[], usage=NO_USAGE
)


class TurnChannel(BinaryOperatorAggregate[Result]):
    """Holds the result so far, and saves each text of it once.

    With 2 kB answers, a run of four steps has 9 times its answers in SQLite, and 13
    times if each step writes the whole history, and each text twice.
    """

    def __init__(self, typ: Any = Result, operator: Any = None) -> None:
        super().__init__(typ, operator or added)

    def checkpoint(self) -> Result:
        """Return the result without the texts that it has elsewhere."""
        return thinned(self.value)

    def from_checkpoint(self, checkpoint: Result) -> Self:
        """Return a channel that holds a saved result, with all its texts."""
        channel = super().from_checkpoint(checkpoint)
        channel.value = _filled(channel.value)
        return channel


def added(result: Result, update: Mapping[str, Any]) -> Result:
    """Return a result with an update; `rows` of it are added to the history.

    Example:
        >>> row = {"name": "2_take", "responses": ["1_propose/0"]}
        >>> responses = [{"id": "1_propose/0", "text": "Paris"}]
        >>> before = {"history": [], "responses": responses}
        >>> added(before, {"rows": [row]})["history"]
        [{'name': '2_take', 'responses': ['1_propose/0'], 'outputs': ['Paris']}]
    """
    merged: dict[str, Any] = {**result, **update}
    rows = merged.pop("rows", None)
    if rows is not None:
        merged["history"] = [*result["history"], *rows]
    return _filled(cast("Result", merged))


def thinned(result: Result) -> Result:
    """Leave the texts out of each row that are in the responses or an earlier row."""
    if not result.get("history"):
        return result
    texts = {response["id"]: response["text"] for response in result["responses"]}
    rows: list[Any] = []
    for row in result["history"]:
        if [*map(texts.get, row["responses"])] == row["outputs"]:
            rows.append({key: row[key] for key in row if key != "outputs"})  # type: ignore[literal-required]  # its own keys
        else:
            rows.append(row)
            texts = {
                **dict(zip(row["responses"], row["outputs"], strict=True)),
                **texts,
            }
    return {**result, "history": rows}


def _filled(result: Result) -> Result:
    """Put the texts back that `thinned` left out."""
    history: Any = result.get("history", ())
    if all("outputs" in row for row in history):
        return result
    texts = {response["id"]: response["text"] for response in result["responses"]}
    rows: list[Any] = []
    for row in history:
        if "outputs" in row:
            rows.append(row)
            texts = {
                **dict(zip(row["responses"], row["outputs"], strict=True)),
                **texts,
            }
        else:
            outputs = [texts[name] for name in row["responses"]]
            rows.append({**row, "outputs": outputs})
    return {**result, "history": rows}


class MixtureInput(TypedDict):
    """The input of the graph."""

    messages: Annotated[list[AnyMessage | MessageLikeRepresentation], add_messages]


class AdvisedInput(MixtureInput):
    """The input of a graph that begins with the answering step."""

    mixture: Annotated[Result, TurnChannel()]


class MixtureOutput(TypedDict):
    """The output of the graph."""

    messages: Annotated[list[AnyMessage], add_messages]
    mixture: Annotated[Result, TurnChannel()]


class MixtureState(MixtureOutput):
    """The state that the nodes share. Only `messages` grows from turn to turn."""

    # A Topic is emptied in each superstep: a step's replies do not stay in the thread.
    replies: Annotated[list[Reply], Topic(Reply)]
    """The replies of a step's branches, until the step's own node has run."""
    answers: dict[str, AIMessage]
    """The models' own messages, by response id, until the answer is chosen."""
    # It lasts one superstep, as the Topic above.
    doubted: Annotated[str, EphemeralValue]
    """The name of a step whose condition raised an error; the step is entered, and
    fails. After a resume it asks its condition itself."""


def check_input(value: object) -> None:
    """Refuse an input without messages, which LangGraph would take.

    An earlier turn of the thread would be answered again, or an empty conversation.

    Raises:
        InvalidMixtureError: There are none; the message names what was given.

    Example:
        >>> check_input({"question": "Why?"})
        Traceback (most recent call last):
            ...
        langchain_mixture.errors.InvalidMixtureError: messages is missing in the \
input, which has 'question'; allowed: {"messages": [...]}.
    """
    if value is None or isinstance(value, Command):  # a run goes on
        return
    if isinstance(value, Mapping):
        if value.get("messages") is not None:
            return
        given = [shown(key) for key, item in value.items() if item is not None]
        said = f"has {', '.join(given) or 'nothing'}"
    elif hasattr(value, "messages"):  # an outer graph's state may be a dataclass
        return
    else:
        said = f"is {shown(value)}"
    raise InvalidMixtureError(
        f'messages is missing in the input, which {said}; allowed: {{"messages": '
        "[...]}."
    )
