"""Advice in a conversation: when the advisers are asked, and where their words stand.

The advisers are the steps before the answering one, and their advice is the responses
that it was shown. It travels in the metadata of an answer, so it survives checkpoints
and other processes, and each request begins with the whole of the one before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, TypeAlias, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_mixture.records import Response
from langchain_mixture.steps.prompts import joined

Consult: TypeAlias = Literal["turn"] | int | Callable[[list[BaseMessage]], bool]
"""When the advisers are asked: once a user turn, after so many answers, or where a
function of the conversation says so."""


@dataclass(frozen=True)
class Advice:
    """The responses that an answering step was shown, and where they stand."""

    at: int
    """They stand behind so many messages of the conversation."""
    responses: Sequence[Response]


@dataclass(frozen=True)
class Advised:
    """A conversation as its answering step is to see it."""

    past: Sequence[Advice]
    """The advice of earlier turns, in its order."""
    now: Advice | None
    """The advice to answer with; None where the advisers are to be asked, or where
    there is none."""
    asks: bool
    """Whether the advisers are to be asked."""
    at: int
    """Where new advice is to stand."""


def turn_of(messages: Sequence[BaseMessage]) -> int:
    """Return how many messages there are up to the user's last one, which is included.

    A human message that a middleware wrote, such as a summary, begins no turn, unless
    it stands for all that the user has said. Where there is no human message, it is the
    number of system messages in front.

    Example:
        >>> turn_of([HumanMessage("Why?"), AIMessage("So.")])
        1
    """
    human = [i for i, m in enumerate(messages) if isinstance(m, HumanMessage)]
    users = [i for i in human if "lc_source" not in messages[i].additional_kwargs]
    if users or human:
        return (users or human)[-1] + 1
    firsts = (i for i, m in enumerate(messages) if not isinstance(m, SystemMessage))
    return next(firsts, len(messages))


def advised(
    messages: Sequence[BaseMessage],
    consult: Consult,
    by: str,
    *,
    counts: Callable[[BaseMessage], bool],
) -> Advised:
    """Find the advice in a conversation, and decide whether to ask for more.

    Args:
        messages: The conversation.
        consult: When the advisers are asked.
        by: Whose advice it is; that of others is passed over.
        counts: Whether a message is one of the n answers of `consult=n`.

    Example:
        >>> talk = [HumanMessage("Why?"), carrying(AIMessage("So."), [], "me")]
        >>> advised(talk, "turn", "me", counts=is_answer).asks
        False
        >>> advised(talk, "turn", "you", counts=is_answer).asks
        True
    """
    turn = turn_of(messages)
    found = [
        (index, _place(messages, index, consult), responses)
        for index, message in enumerate(messages)
        if (responses := carried(message, by)) is not None
    ]
    if consult == "turn":
        current = [item for item in found if item[0] >= turn]
        asks = not current
    else:
        current = found
        asks = _asks(messages, found, consult, counts)
    now = None
    if current and not asks:
        _, at, responses = current[-1]
        now = Advice(at, responses)
    # Earlier advice stands for good where it was given: the last of each turn, where it
    # is asked for once a turn; else all of it.
    given = {at: Advice(at, responses) for _, at, responses in found}
    if consult == "turn":
        given.pop(turn, None)
    past = [advice for advice in given.values() if advice != now]
    return Advised(past, now, asks, turn if consult == "turn" else len(messages))


def _place(messages: Sequence[BaseMessage], index: int, consult: Consult) -> int:
    """Return where the advice stands on which the answer at an index rests."""
    return turn_of(messages[:index]) if consult == "turn" else index


def is_answer(message: BaseMessage) -> bool:
    """Whether a message is an answer, of whatever model.

    Example:
        >>> is_answer(AIMessage("So."))
        True
    """
    return isinstance(message, AIMessage)


def is_of_a_mixture(message: BaseMessage) -> bool:
    """Whether a message is an answer of a ChatMixture.

    Example:
        >>> is_of_a_mixture(AIMessage("So."))
        False
    """
    return "mixture" in message.response_metadata


def _asks(
    messages: Sequence[BaseMessage],
    found: Sequence[tuple[Any, ...]],
    consult: Consult,
    counts: Callable[[BaseMessage], bool],
) -> bool:
    if callable(consult):
        return bool(consult(list(messages)))
    if not found:
        return True
    since = messages[found[-1][0] :]
    return sum(map(counts, since)) >= cast("int", consult)


def carried(message: BaseMessage, by: str) -> list[Response] | None:
    """Return the advice that an answer carries; None where it carries none.

    Example:
        >>> carried(AIMessage("So."), "me") is None
        True
    """
    for told in _mixtures(message.response_metadata.get("mixture")):
        if told.get("by") == by and isinstance(told.get("responses"), list):
            return cast("list[Response]", told["responses"])
    return None


def _mixtures(told: object) -> Iterator[Mapping[str, Any]]:
    while isinstance(told, Mapping):  # a mixture, and the one that answered inside it
        yield told
        told = told.get("inner")


def carrying(message: AIMessage, responses: Sequence[Response], by: str) -> AIMessage:
    """Return an answer that carries the advice on which it rests.

    Example:
        >>> carried(carrying(AIMessage("So."), [], "me"), "me")
        []
    """
    return telling(message, {"by": by, "responses": [dict(r) for r in responses]})


def telling(message: AIMessage, told: Mapping[str, Any]) -> AIMessage:
    """Return an answer whose metadata tells of a mixture, beside what it tells.

    Example:
        >>> one = telling(AIMessage("So."), {"by": "me"})
        >>> telling(one, {"by": "you"}).response_metadata
        {'mixture': {'by': 'me', 'inner': {'by': 'you'}}}
    """
    put = _put(message.response_metadata.get("mixture"), told)
    metadata = {**message.response_metadata, "mixture": put}
    return message.model_copy(update={"response_metadata": metadata})


def _put(told: object, advice: Mapping[str, Any]) -> dict[str, Any]:
    known = dict(told) if isinstance(told, Mapping) else {}
    if "by" not in known and not known.keys() & advice.keys():
        return {**known, **advice}
    return {**known, "inner": _put(known.get("inner"), advice)}


def place_advice(
    messages: Sequence[BaseMessage],
    advice: Sequence[Advice],
    block: Callable[[Sequence[Response]], str | None],
) -> list[BaseMessage]:
    r"""Return a conversation with advice in its places.

    Args:
        messages: The conversation.
        advice: What stands where.
        block: Writes responses out; None = they are not shown.

    Example:
        >>> talk = [HumanMessage("Why?"), AIMessage("So.")]
        >>> [m.text for m in place_advice(talk, [Advice(1, [])], lambda _: "(x)")]
        ['Why?\n\n(x)', 'So.']
    """
    placed = list(messages)
    for one in sorted(advice, key=lambda one: one.at, reverse=True):
        if (text := block(one.responses)) is not None:
            placed[: one.at] = joined(placed[: one.at], text)
    return placed


def fingerprint(name: str, layers: Iterable[Any]) -> str:
    """Return what tells a pipeline's advice from that of others: its steps' agents.

    Args:
        name: Tells two of the same agents apart.
        layers: The steps in their places, with their agents resolved.

    Example:
        >>> fingerprint("mixture", [])
        'mixture:4f53cda18c2baa0c'
    """
    steps = [[layer.name, *(agent.label for agent in layer.agents)] for layer in layers]
    return f"{name}:{sha256(json.dumps(steps).encode()).hexdigest()[:16]}"


def inner(message: AIMessage | None) -> dict[str, Any]:
    """Return what an answer carries of the mixture that wrote it, for one around it.

    Example:
        >>> list(inner(carrying(AIMessage("So."), [], "me"))["inner"])
        ['by', 'responses']
    """
    told = {} if message is None else message.response_metadata.get("mixture")
    if not isinstance(told, Mapping):
        return {}
    kept = {key: told[key] for key in ("by", "responses", "inner") if key in told}
    return {"inner": kept} if kept else {}


def without_tools(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the words of user and assistant alone, up to the user's last ones.

    For `Propose(agents, view=without_tools)`: advisers read no tool calls and results.
    Assistant's texts in a row are joined, and system messages are left out.

    Example:
        >>> talk = [HumanMessage("Why?"), AIMessage("So."), HumanMessage("And?")]
        >>> [message.text for message in without_tools(talk)]
        ['Why?', 'So.', 'And?']
        >>> talk[1:2] = [AIMessage("Let me see."), AIMessage("So.")]
        >>> without_tools(talk)[1].text.split()
        ['Let', 'me', 'see.', 'So.']
    """
    shown: list[BaseMessage] = []
    for message in messages[: turn_of(messages)]:
        if isinstance(message, HumanMessage):
            shown.append(message)
        elif isinstance(message, AIMessage) and message.text.strip():
            if shown and isinstance(shown[-1], AIMessage):
                shown[-1] = AIMessage(f"{shown[-1].text}\n\n{message.text}")
            else:
                shown.append(AIMessage(message.text))
    return shown
