"""Answers that are paid for: each is asked once, and kept in a file."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TextIO

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    message_chunk_to_message,
    message_to_dict,
)
from langchain_core.messages.ai import add_usage
from langchain_core.messages.utils import count_tokens_approximately

from langchain_mixture.prices import Prices, price_of

logger = logging.getLogger("langchain_mixture")

GUESS: Final = 500
"""Tokens that an answer is taken to have before the first one of its model is there."""


@dataclass(frozen=True)
class Asked:
    """One call that was made: its answer, or why there is none."""

    key: str
    """What tells the call apart: model, settings, messages, sample."""
    question: str
    """The id of the question for which it was first asked."""
    agent: str
    sample: str
    """The number of the run and that of the sample in it, such as `1.2`."""
    by: str
    """What tells its agent and settings apart."""
    seconds: float
    text: str = ""
    message: dict[str, Any] | None = None
    """The model's own message; None where the agent gave a plain text."""
    usage: dict[str, Any] = field(default_factory=dict)
    """Its tokens, and `model`, the name that the provider gave."""
    error: str | None = None
    """The class of the error where it failed; its text may hold a key."""

    def output(self) -> AIMessage | str:
        """Return what the agent returned."""
        if self.message is None:
            return self.text
        return AIMessage(**self.message)

    @property
    def is_plain(self) -> bool:
        """Whether it is an answer beyond doubt: text, and no refusal."""
        extra = self.message or {}
        return (
            self.error is None
            and bool(self.text.strip())
            and not extra.get("additional_kwargs")
            and isinstance(extra.get("content", ""), str)
            and extra.get("response_metadata", {}).get("stop_reason") != "refusal"
        )


class Refused(Exception):  # noqa: N818  # it is no error: a limit was reached
    """A call that a limit does not allow."""


class Store:
    """The answers of a comparison; those in its file are never asked again."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        prices: Prices | None = None,
        concurrency: int = 8,
        max_calls: int | None = None,
        max_cost: float | None = None,
    ) -> None:
        self.calls = 0
        """Really made, those that failed included."""
        self.spent = 0.0
        """Dollars, of the calls really made that have a price."""
        self.stopped: str | None = None
        """Why no further call is made."""
        self._prices = prices
        self._max_calls = max_calls
        self._max_cost = max_cost
        self._reserved = 0.0
        self._gate = asyncio.Semaphore(concurrency)
        self._answers: dict[str, Asked] = {}
        self._failures: dict[str, Exception] = {}
        self._written: dict[str, list[int]] = {}
        self._tasks: dict[str, asyncio.Task[Asked]] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._path = path
        self._file: TextIO | None = None
        self._cut = False
        if path is not None:
            self._load(path)

    def _load(self, path: Path) -> None:
        """Read what was saved; a line that a kill cut off is left aside.

        Raises:
            ValueError: The file is none of `compare`'s.
        """
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        broken = 0
        for line in filter(None, text.split("\n")):
            try:
                row = json.loads(line)
                if "key" in row:
                    if row.get("error") is None:
                        self._keep(Asked(**row))
                else:
                    self._records[row["question"]] = row
            except (ValueError, TypeError, KeyError):
                broken += 1
        if broken and not self._answers and not self._records:
            raise ValueError(
                f"save is {str(path)!r}, a file that compare has not written; name "
                "another"
            )
        if broken:
            logger.warning("%s: %d line(s) cut off, asked again", path, broken)
        self._cut = bool(text) and not text.endswith("\n")

    def saved(self, by: set[str], questions: set[str]) -> int:
        """Count the answers of some agents to some questions."""
        answers = self._answers.values()
        return sum(a.by in by and a.question in questions for a in answers)

    def _write(self, row: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8", errors="replace")
            self._file.write("\n" if self._cut else "")
        line = json.dumps(row, ensure_ascii=False, default=str)
        self._file.write(f"{line}\n")
        self._file.flush()

    def record(self, row: dict[str, Any]) -> None:
        """Save the scores of a question, unless they stand there already."""
        plain = json.loads(json.dumps(row, default=str))
        if self._records.get(row["question"]) != plain:
            self._records[row["question"]] = plain
            self._write(plain)

    def _keep(self, asked: Asked) -> None:
        self._answers[asked.key] = asked
        if "output_tokens" in asked.usage:
            written = self._written.setdefault(asked.by, [])
            written.append(asked.usage["output_tokens"])

    async def ask(
        self,
        asked: Asked,
        messages: Sequence[BaseMessage],
        call: Callable[[UsageMetadataCallbackHandler], Awaitable[Any]],
        max_tokens: int | None = None,
    ) -> Asked:
        """Return the answer at hand, or ask; the same call is asked once.

        Raises:
            Refused: A limit allows no further call.
        """
        key = asked.key
        if key in self._answers:
            return self._answers[key]
        if key not in self._tasks:
            expected = self._expected(asked, messages, max_tokens)
            self._allow(expected)
            self.calls += 1
            self._reserved += expected
            task = asyncio.create_task(self._really(asked, messages, call))
            task.add_done_callback(lambda _: self._settle(key, expected))
            self._tasks[key] = task
        # Whoever waits may give up; the call is paid for, and others may wait for it.
        return await asyncio.shield(self._tasks[key])

    async def _really(
        self,
        asked: Asked,
        messages: Sequence[BaseMessage],
        call: Callable[[UsageMetadataCallbackHandler], Awaitable[Any]],
    ) -> Asked:
        async with self._gate:
            counter = UsageMetadataCallbackHandler()
            begun = time.perf_counter()
            try:
                done = _answered(asked, await call(counter), messages, counter)
            except Exception as error:  # noqa: BLE001  # raised for each that waits
                done = replace(asked, error=type(error).__name__)
                self._failures[asked.key] = error
            done = replace(done, seconds=time.perf_counter() - begun)
        self._keep(done)
        self.spent += self.cost(done) or 0.0
        self._write({k: v for k, v in asdict(done).items() if v not in (None, {}, "")})
        return done

    def _settle(self, key: str, expected: float) -> None:
        self._reserved -= expected
        task = self._tasks.pop(key)
        if not task.cancelled():
            task.exception()  # so that asyncio does not say that nobody looked

    def _allow(self, expected: float) -> None:
        if self.stopped is None:
            if self._max_calls is not None and self.calls >= self._max_calls:
                self.stopped = f"max_calls={self._max_calls} is reached"
            elif self._max_cost is not None:
                after = self.spent + self._reserved + expected
                if after > self._max_cost:
                    self.stopped = (
                        f"max_cost={self._max_cost} would be passed: ${self.spent:.4f} "
                        f"spent, ${self._reserved + expected:.4f} under way"
                    )
        if self.stopped is not None:
            raise Refused(self.stopped)

    def _expected(
        self, asked: Asked, messages: Sequence[BaseMessage], max_tokens: int | None
    ) -> float:
        """Return the dollars that a call may cost, if it writes all that it may."""
        price = price_of(self._prices, None, asked.agent)
        if self._max_cost is None or price is None:
            return 0.0
        tokens = {
            "input_tokens": count_tokens_approximately(messages),
            "output_tokens": max_tokens or self.usual(asked.by),
        }
        return price(tokens)

    def usual(self, by: str) -> int:
        """Return the tokens that an agent writes on average, or a guess."""
        written = self._written.get(by)
        return round(sum(written) / len(written)) if written else GUESS

    def failure(self, asked: Asked) -> Exception:
        """Return the error of a call that failed."""
        return self._failures[asked.key]

    def cost(self, asked: Asked) -> float | None:
        """Return what a call cost, in dollars; None where its model has no price."""
        names = (asked.agent, str(asked.usage.get("model", "")))
        price = price_of(self._prices, None, *names)
        return None if price is None else price(asked.usage)

    async def close(self) -> None:
        """Give up the calls for which nobody waits any more, and close the file."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._file is not None:
            self._file.close()
            self._file = None


def key_of(*parts: Any) -> str:
    """Return a short hash that tells values apart; no secret can be read from it.

    Example:
        >>> key_of("gpt-4o", {"temperature": 0}) == key_of("gpt-4o", {"temperature": 1})
        False
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=repr)
    return sha256(text.encode(errors="replace")).hexdigest()[:32]


def written_out(messages: Sequence[BaseMessage]) -> list[Any]:
    """Return what a model reads of messages, and no ids or metadata."""
    return [
        [
            message.type,
            message.name,
            message.content,
            [[c["name"], c["args"]] for c in getattr(message, "tool_calls", ())],
            getattr(message, "tool_call_id", None),
        ]
        for message in messages
    ]


def _answered(
    asked: Asked,
    output: Any,
    messages: Sequence[BaseMessage],
    counter: UsageMetadataCallbackHandler,
) -> Asked:
    if isinstance(output, AIMessageChunk):
        output = message_chunk_to_message(output)
    if not isinstance(output, BaseMessage | str):
        raise TypeError(
            f"{asked.agent} returned {type(output).__name__}; it must return a message "
            "or text"
        )
    text = output if isinstance(output, str) else output.text
    message = None
    if isinstance(output, BaseMessage):
        data = message_to_dict(output)["data"]
        aside = {"id", "type", "example"}
        message = {k: v for k, v in data.items() if v and k not in aside}
        message.setdefault("content", "")
    usage = _usage(output, counter)
    if not usage:
        usage = {
            "input_tokens": count_tokens_approximately(messages),
            "output_tokens": count_tokens_approximately([AIMessage(text)]),
            "estimated": True,
        }
    return replace(asked, text=text, message=message, usage=usage)


def _usage(output: Any, counter: UsageMetadataCallbackHandler) -> dict[str, Any]:
    """Return the tokens that the models reported, with all details."""
    if counted := counter.usage_metadata:
        total = reduce(add_usage, counted.values())
        return {**total, "model": next(iter(counted))}
    reported = getattr(output, "usage_metadata", None)
    if not reported and isinstance(output, BaseMessage):
        mixture = output.response_metadata.get("mixture") or {}
        reported = mixture.get("usage") or {}
        names = ("input_tokens", "output_tokens")
        reported = {k: reported[k] for k in names if reported.get(k)}
    return dict(reported or {})
