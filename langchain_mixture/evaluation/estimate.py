"""What a comparison will ask, before the first call is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langchain_core.messages.utils import count_tokens_approximately

from langchain_mixture import Step
from langchain_mixture.evaluation.candidates import Candidate, Plan, Slot
from langchain_mixture.evaluation.examples import Question
from langchain_mixture.evaluation.identity import name_of
from langchain_mixture.evaluation.store import Store
from langchain_mixture.prices import Prices, price_of


@dataclass(frozen=True)
class Arms:
    """The equal-budget samples, before anybody knows which model is the best."""

    calls: int
    low: float
    """Dollars, if the best model is the cheapest one."""
    high: float
    """Dollars, if it is the dearest."""


@dataclass(frozen=True)
class Estimate:
    """Calls and dollars; `str()` is what is shown before the first call."""

    candidates: int
    questions: int
    calls: int
    """At most: steps that may be skipped count, too. Shared proposals count once."""
    saved: int
    """How many of these are in the file."""
    cost: float | None
    """Dollars for the calls that are left, about; None without prices."""
    unpriced: list[str]
    """The models without a price."""
    arms: Arms | None

    @classmethod
    def of(
        cls,
        plan: Plan,
        questions: Sequence[Question],
        store: Store,
        repeats: int,
        prices: Prices | None,
        *,
        arms: bool,
    ) -> Estimate:
        """Count the calls of a plan."""
        slots = list(_distinct(plan.candidates.values()).values())
        times = len(questions) * repeats
        calls = len(slots) * times
        by = {slot.single.by for slot in slots}
        saved = min(calls, store.saved(by, {question.id for question in questions}))
        read = sum(count_tokens_approximately(q.conversation) for q in questions)
        bill = _Bill(store, prices, read / len(questions))
        cost = sum(map(bill.of, slots)) * times * (1 - saved / calls)
        return cls(
            candidates=len(plan.candidates),
            questions=len(questions),
            calls=calls,
            saved=saved,
            cost=cost if prices else None,
            unpriced=sorted(bill.unpriced),
            arms=_arms(plan, bill, times) if arms else None,
        )

    def __str__(self) -> str:
        said = (
            f"{self.candidates} candidates, {self.questions} questions: "
            f"at most {self.calls:,} calls"
        )
        if self.saved:
            said += f", {self.saved:,} of them saved"
        if self.cost is not None:
            said += f", about ${self.cost:,.2f} to pay"
        if self.arms is not None:
            said += f"; then at most {self.arms.calls:,} for equal budgets"
        if self.arms is not None and self.cost is not None:
            said += f", ${self.arms.low:,.2f} to ${self.arms.high:,.2f}"
        if self.cost is not None and self.unpriced:
            said += f"; no price: {', '.join(self.unpriced)}"
        return said + "."


def _arms(plan: Plan, bill: _Bill, times: int) -> Arms:
    dollars = [bill.of(single.slots[0]) for single in plan.singles]
    calls, low, high = 0, 0.0, 0.0
    for mixture in plan.mixtures:
        samples, tail = equal_budget_of(mixture)
        first = len(mixture.steps) - len(tail)
        rest = sum(bill.of(slot) for slot in mixture.slots if slot.index >= first)
        calls += len(mixture.slots) * times
        low += (samples * min(dollars) + rest) * times
        high += (samples * max(dollars) + rest) * times
    return Arms(calls, low, high)


def _distinct(candidates: Iterable[Candidate]) -> dict[object, Slot]:
    """Return the slots of a question; the same question to a model counts once."""
    found: dict[object, Slot] = {}
    for candidate in candidates:
        for slot in candidate.slots:
            shared = slot.shared or not candidate.is_mixture
            place: object = (
                (slot.single.by, slot.sample)
                if shared
                else (candidate.name, slot.index, slot.position)
            )
            found.setdefault(place, slot)
    return found


class _Bill:
    """What calls may cost; the models that have no price are kept."""

    def __init__(self, store: Store, prices: Prices | None, read: float) -> None:
        self._store = store
        self._prices = prices
        self._read = read
        self.unpriced: set[str] = set()

    def of(self, slot: Slot) -> float:
        """Return the dollars of one call: the conversation read, an answer written."""
        single = slot.single
        name = name_of(single.agent)
        price = price_of(self._prices, None, name)
        if price is None:
            self.unpriced.add(name)
            return 0.0
        written = self._store.usual(single.by)
        most = single.step.max_tokens or written
        # Behind the first step the responses are read, too.
        read = self._read + (0 if slot.shared else slot.index * 4 * written)
        tokens = {"input_tokens": read, "output_tokens": min(most, written)}
        return price(tokens)


def equal_budget_of(mixture: Candidate) -> tuple[int, list[Step]]:
    """Return how often the best model is sampled, and what puts the samples together.

    The whole makes as many calls as the mixture.
    """
    steps = list(mixture.steps)
    asking = {slot.index for slot in mixture.slots}
    last = max(asking)
    needs_responses = not steps[last].bounds(0)[0]
    cut = last if needs_responses else last + 1
    ending = sum(slot.index >= cut for slot in mixture.slots)
    return max(1, len(mixture.slots) - ending), steps[cut:]
