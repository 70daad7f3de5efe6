"""What the evaluation's rules do on recorded answers of real models.

Reads `../shared/recorded/` (answers of 2024's models to MMLU-Pro, samples of single
models), replays them as chat models through real pipelines, and writes a Markdown page.
About a quarter of an hour on two cores; `--quick` takes a minute, and shows less.

    python benchmarks/quality.py [--quick] [PAGE.md]
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_mixture import Majority, Propose, letter
from langchain_mixture.evaluation import (
    Comparison,
    choose,
    compare,
    matches,
    reliability,
    verdicts,
)

FOLDER = Path(__file__).parent.parent.parent / "shared" / "recorded"
BEST_FIRST = [
    "gemini-1.5-pro-002",
    "gemini-1.5-flash-002",
    "Meta-Llama-3_1-70B-Instruct",
    "DeepSeek-Coder-V2",
    "jamba-1.5-large",
    "Qwen1.5-72B-Chat",
    "Meta-Llama-3_1-8B-Instruct",
    "Mixtral-8x7B-Instruct-v0.1",
    "Phi-3-mini-4k-instruct",
    "mathstral-7B",
]
LETTERS = "ABCDEFGHIJ"
PAGE = Path(__file__).parent.parent / "docs" / "quality.md"
VOTES = {"four": BEST_FIRST[:4], "eight": BEST_FIRST[:8], "ten": BEST_FIRST}

Record = dict[str, Any]


# -- Recorded answers ----------------------------------------------------------------


def letters() -> list[Record]:
    """Read the 5,000 questions with the letters of ten models."""
    with gzip.open(FOLDER / "mmlu_pro_letters_dev.csv.gz", "rt") as lines:
        return [
            {
                "id": row["id"],
                "gold": row["answer"],
                "answers": {model: row[model] or None for model in BEST_FIRST},
            }
            for row in csv.DictReader(lines)
        ]


def samples(name: str) -> list[Record]:
    """Read the questions with ten samples of one model."""
    with gzip.open(FOLDER / f"samples_{name}_dev.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


class Replay(BaseChatModel):
    """Gives recorded answers: those of its question, one a sample."""

    model: str
    recorded: Mapping[str, Sequence[str]]
    """By question, the texts of its samples."""

    @property
    def _llm_type(self) -> str:
        return "replay"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        sample = str(messages[-1].response_metadata.get("sample", "1.1"))
        texts = self.recorded[messages[-1].text]
        message = AIMessage(texts[int(sample.split(".")[1]) - 1])
        return ChatResult(generations=[ChatGeneration(message=message)])


def plurality(answers: Sequence[Any]) -> Any:
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=lambda answer: counts[answer], default=None)


def right(rows: Sequence[Record], model: str) -> list[bool]:
    return [row["answers"].get(model) == row["gold"] for row in rows]


def voted(rows: Sequence[Record], models: Sequence[str]) -> list[bool]:
    votes = (plurality([row["answers"].get(m) for m in models]) for row in rows)
    return [vote == row["gold"] for vote, row in zip(votes, rows, strict=True)]


def only(rows: Sequence[Record], models: Sequence[str]) -> list[Record]:
    return [{**row, "answers": {m: row["answers"][m] for m in models}} for row in rows]


# -- The rows of the page ------------------------------------------------------------

Row = tuple[str, str]
"""What was done, and what came of it."""


def whole_file(rows: Sequence[Record]) -> tuple[Comparison, Row]:
    """Compare three votes with the ten models, through real pipelines."""
    client = {
        model: Replay(
            model=model,
            recorded={row["id"]: [row["answers"][model] or "none"] for row in rows},
        )
        for model in BEST_FIRST
    }
    begun = time.perf_counter()
    found = compare(
        {name: [Propose(agents), Majority(letter)] for name, agents in VOTES.items()},
        [{"input": row["id"], "gold": row["gold"]} for row in rows],
        matches(letter),
        client=client,
    )
    seconds = time.perf_counter() - begun
    said = "; ".join(f"{v.mixture} {v.verdict}" for v in found.verdicts.values())
    what = f"`compare`, {len(rows):,} questions, {found.calls:,} calls, {seconds:.0f} s"
    return found, (what, said)


def smaller(rows: Sequence[Record], draws: int) -> Row:
    """Give verdicts on 500 questions, drawn again and again."""
    found = {name: Counter[str]() for name in VOTES}
    for seed in range(draws):
        some = random.Random(seed).sample(rows, min(500, len(rows) // 2))
        scores = {model: right(some, model) for model in BEST_FIRST}
        scores |= {name: voted(some, agents) for name, agents in VOTES.items()}
        for name, verdict in verdicts(scores, list(VOTES)).items():
            found[name][verdict.verdict] += 1
    said = "; ".join(
        f"{name}: " + ", ".join(f"{v} {n / draws:.0%}" for v, n in of.most_common())
        for name, of in found.items()
    )
    return f"the same on 500 questions, {draws} draws", said


@dataclass(frozen=True)
class Claims:
    """How often a mixture that is as good as the best was said to help, or to hurt."""

    where: str
    helps: float
    hurts: float


def claims(
    where: str, draws: int, scores_of: Callable[[np.random.Generator], dict[str, Any]]
) -> Claims:
    """Give verdicts on scores that are drawn again and again."""
    found = Counter[str]()
    for seed in range(draws):
        scores = scores_of(np.random.default_rng([seed, zlib.crc32(where.encode())]))
        found[verdicts(scores, ["mix"])["mix"].verdict] += 1
    return Claims(where, found["helps"] / draws, found["hurts"] / draws)


def false_claims(rows: Sequence[Record], draws: int) -> list[Row]:
    """Give verdicts where the mixture is as good as the best member."""
    rights = np.array(
        [[a == row["gold"] for a in row["answers"].values()] for row in rows], dtype=int
    )
    vote = np.array(voted(rows, BEST_FIRST[:4]), dtype=int)

    def equal(n: int, members: int, draw: np.random.Generator) -> dict[str, Any]:
        """Give each of them the answer of a random model, question by question."""
        asked = draw.integers(len(rights), size=(n, 1))
        models = draw.integers(10, size=(n, members + 1))
        names = ["mix", *map(str, range(members))]
        return dict(zip(names, rights[asked, models].T.tolist(), strict=True))

    def swapped(n: int, draw: np.random.Generator) -> dict[str, Any]:
        """Swap the vote of four and the best of them, by the toss of a coin."""
        asked = draw.integers(len(rights), size=n)
        swap = draw.random(n) < 0.5
        members = rights[asked].T
        mix = np.where(swap, members[0], vote[asked])
        best = np.where(swap, vote[asked], members[0])
        columns = {
            "mix": mix,
            "0": best,
            "1": members[1],
            "2": members[2],
            "3": members[3],
        }
        return {name: column.tolist() for name, column in columns.items()}

    sizes = (50, 100, 200, 500, 1000, 2000)
    first = [
        claims(f"n = {n}, {members} members", draws, partial(equal, n, members))
        for n in sizes
        for members in (1, 2, 4, 6, 11)
    ]
    second = [claims(f"n = {n}", draws, partial(swapped, n)) for n in sizes]
    what = f"{draws:,} draws each"
    return [
        (f"false claims, 1 to 11 equal members, n = 50 to 2,000, {what}", worst(first)),
        (
            f"false claims, vote of four as good as the best of them, {what}",
            worst(second),
        ),
    ]


def worst(found: Sequence[Claims]) -> str:
    said = []
    for side in ("helps", "hurts"):
        shares = {each.where: getattr(each, side) for each in found}
        where = max(shares, key=lambda one: shares[one])
        mean = sum(shares.values()) / len(shares)
        said.append(
            f"{side} {mean:.1%} on average, at most {shares[where]:.1%} ({where})"
        )
    return "; ".join(said)


def gain(fit: Sequence[Record], rest: Sequence[Record]) -> float:
    """Return the points by which a panel beats the single model of the same fit."""
    chosen = choose(fit)
    best = max(chosen.scores, key=lambda model: chosen.scores[model])
    points = sum(voted(rest, chosen.members)) - sum(right(rest, best))
    return 100 * points / len(rest)


def halves(rows: Sequence[Record], seeds: int) -> Row:
    gains = []
    for seed in range(seeds):
        shuffled = list(rows)
        random.Random(seed).shuffle(shuffled)
        half = len(rows) // 2
        gains.append(gain(shuffled[:half], shuffled[half:]))
    first = ", ".join(f"{points:+.2f}" for points in gains[:6])
    mean = sum(gains) / seeds
    share = sum(points >= 1.4 for points in gains) / seeds
    said = (
        f"the first six: {first} (mean {sum(gains[:6]) / 6:+.2f}); all: mean "
        f"{mean:+.2f}, lowest {min(gains):+.2f}, {share:.0%} of them +1.4 or more"
    )
    return f"`choose`, fitted on half, read on the other half, {seeds} splits", said


def pools(rows: Sequence[Record], seeds: int) -> Row:
    gains = []
    for seed in range(seeds):
        draw = random.Random(seed)
        pool = draw.sample(BEST_FIRST, draw.randint(5, 8))
        some = only(draw.sample(rows, len(rows)), pool)
        gains.append(gain(some[:100], some[100:]))
    worse = sum(points < -0.25 for points in gains) / seeds
    said = (
        f"{sum(gains) / seeds:+.2f} points on average; worse by over 0.25: {worse:.1%}"
    )
    what = f"`choose`, n = 100, pools of 5 to 8 of the ten, {seeds} seeds"
    return what, f"{said} (than the best single model of the same 100)"


def lying(
    rows: Sequence[Record], liar: str, *, plausible: bool, seed: int = 1
) -> list[Record]:
    """Change each answer of one model to a wrong one."""
    draw = random.Random(seed)
    changed = []
    for row in rows:
        wrong = [one for one in LETTERS if one != row["gold"]]
        others = Counter(
            a for m, a in row["answers"].items() if m != liar and a in wrong
        )
        said = draw.choice(wrong)
        if plausible and others:
            said = others.most_common(1)[0][0]
        changed.append({**row, "answers": {**row["answers"], liar: said}})
    return changed


def liars(rows: Sequence[Record]) -> Row:
    six = BEST_FIRST[:6]
    found = []
    for plausible in (False, True):
        named = same = 0
        for liar in six:
            told = lying(only(rows, six), liar, plausible=plausible)
            panel = reliability(told)
            named += panel.dropped == [liar] and not panel.merged
            honest = [model for model in six if model != liar]
            same += voted(told, panel.members) == voted(rows, honest)
        kind = "most plausible wrong letter" if plausible else "random wrong letter"
        found.append(
            f"{kind}: named alone in {named} of 6, and the rest votes as it does "
            f"without the liar in {same} of 6"
        )
    return "`reliability`, each of the best six lying in turn", "; ".join(found)


def copies(rows: Sequence[Record], seeds: int) -> Row:
    copied = pairs = single = 0
    for seed in range(seeds):
        draw = random.Random(seed)
        pool = draw.sample(BEST_FIRST, draw.randint(6, 10))
        some = only(draw.sample(rows, 100), pool)
        twice = [
            {"answers": {**r["answers"], "copy": r["answers"][pool[0]]}} for r in some
        ]
        copied += (pool[0], "copy") in reliability(twice).merged
        told = lying(some, pool[1], plausible=True, seed=seed)
        single += pool[1] in reliability(told).dropped
        for row in told:
            row["answers"][pool[2]] = row["answers"][pool[1]]
        panel = reliability(told)
        pairs += (pool[1], pool[2]) in panel.merged
    said = (
        f"copy found {copied / seeds:.1%}, colluding pair {pairs / seeds:.1%}, single "
        f"plausible liar {single / seeds:.1%}"
    )
    return f"`reliability`, n = 100, panels of 6 to 10, {seeds} seeds", said


def honest(rows: Sequence[Record], seeds: int) -> Row:
    found = []
    for n in (100, 500):
        lost = 0
        for seed in range(seeds):
            draw = random.Random(seed)
            pool = draw.sample(BEST_FIRST, draw.randint(4, 10))
            lost += bool(reliability(only(draw.sample(rows, n), pool)).dropped)
        found.append(f"n = {n}: {lost / seeds:.1%} lose a member")
    return f"`reliability`, honest panels of 4 to 10, {seeds} seeds", "; ".join(found)


def self_consistency(name: str, key: Callable[[Record], str]) -> Row:
    """Compare ten samples with one, through a real pipeline."""
    rows = samples(name)
    texts = {
        row["id"]: [key(reply) or "none" for reply in row["replies"]] for row in rows
    }
    rights = {
        row["id"]: {key(reply) for reply in row["replies"] if reply["right"]}
        for row in rows
    }
    found = compare(
        {"ten": [Propose(["one"] * 10), Majority(str)]},
        [{"input": row["id"]} for row in rows],
        lambda example, answer: answer in rights[example["input"]],
        client={"one": Replay(model="one", recorded=texts)},
        progress=False,
    )
    return f"`compare`, `samples_{name}`: ten samples against one", str(
        found.verdicts["ten"]
    )


# -- The page ------------------------------------------------------------------------

INTRODUCTION = """# What the evaluation's rules do on real answers

Written by `benchmarks/quality.py`, from recorded answers of ten models to 5,000
lettered questions of MMLU-Pro, and from ten samples of single models (dates: Ling et
al. 2023, CC BY 4.0; code output: CRUXEval, MIT). Differences are in points of right
answers, with 95 % intervals.

| what | found |
|---|---|
"""

LIMITS = """
## What this shows, and what it does not

It shows that the rules find what is there: whether counting four, eight or ten of these
models beats the best of them, which of them to count, and which of them lies. They were
chosen on these questions; a half that was kept aside agrees.

It says nothing about open text, where nothing can be counted and a judge decides. The
answers are lettered, of models of 2024, recorded once. What holds for your models and
your questions `compare` says, on your examples.
"""


def main(arguments: Sequence[str]) -> None:
    quick = "--quick" in arguments
    paths = [Path(argument) for argument in arguments if not argument.startswith("-")]
    if not FOLDER.is_dir():
        sys.exit(f"The recorded answers are not there: {FOLDER}")
    rows = letters()
    asked = rows[:100] if quick else rows
    seeds = 10 if quick else 200
    found, first = whole_file(asked)
    page: list[Row] = [
        first,
        *(("", str(verdict)) for verdict in found.verdicts.values()),
        smaller(rows, seeds // 2),
        *false_claims(rows, 10 if quick else 4000),
        halves(rows, 6 if quick else 100),
        pools(rows, seeds),
        liars(rows[:200] if quick else rows),
        copies(rows, seeds),
        honest(rows, seeds),
        self_consistency("cruxeval", lambda reply: str(reply["text"])),
        self_consistency("date", lambda reply: str(reply["answer"])),
    ]
    lines = "".join(f"| {what} | {said} |\n" for what, said in page)
    table = f"\n```text\n{found}\n```\n"
    text = INTRODUCTION + lines + table + LIMITS
    target = paths[0] if paths else PAGE
    target.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
