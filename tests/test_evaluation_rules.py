"""Verdicts, the choice of a panel, and who can be trusted: the rules alone."""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_mixture.evaluation import choose, reliability, verdicts
from langchain_mixture.evaluation.panel import plurality
from langchain_mixture.evaluation.statistics import (
    Differences,
    clopper_pearson,
    mcnemar,
    questions_needed,
)
from tests.recorded import BEST_FIRST, Record, letters, needs_recorded, samples

SIX = BEST_FIRST[:6]


def right(rows: Sequence[Record], agent: str) -> list[bool]:
    """Return where an agent is right."""
    return [row["answers"].get(agent) == row["gold"] for row in rows]


def voted(rows: Sequence[Record], agents: Sequence[str]) -> list[bool]:
    """Return where the plurality of some agents is right."""
    return [
        plurality([row["answers"].get(agent) for agent in agents]) == row["gold"]
        for row in rows
    ]


def only(rows: Sequence[Record], agents: Sequence[str]) -> list[Record]:
    """Return the rows with the answers of some agents alone."""
    return [{**row, "answers": {a: row["answers"][a] for a in agents}} for row in rows]


def without_gold(answers: Sequence[dict[str, Any]]) -> list[Record]:
    """Make records that have no gold."""
    return [{"answers": row} for row in answers]


# -- Statistics ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [(0, 0, 0.5), (5, 0, 1 / 64), (0, 5, 63 / 64), (1, 1, 0.5)],
    ids=["nothing differs", "five to none", "none to five", "one each"],
)
def test_mcnemar_is_the_mid_p_of_a_fair_coin(b: int, c: int, p: float) -> None:
    """Half the chance of what was seen, and the chance of more."""
    assert mcnemar(b, c) == pytest.approx(p)


@pytest.mark.parametrize(
    ("points", "questions"), [(1, 7062), (2, 1764), (3, 783), (5, 281)]
)
def test_the_questions_that_a_difference_takes(points: int, questions: int) -> None:
    """At 9 % discordant pairs: the formula with two-digit quantiles, within 1 %."""
    found = questions_needed(0.09, points / 100)
    assert found == pytest.approx(questions, rel=0.01)


def test_without_a_difference_two_points_are_looked_for() -> None:
    """Also where no two answers differ, the number is one that can be asked."""
    assert questions_needed(0.09, 0.0) == questions_needed(0.09, 0.02)
    assert 100 < questions_needed(0.0, 0.0) < 1000


def test_a_share_of_none_has_an_upper_end() -> None:
    """The rule of three: none of n leaves about 3.7 / n."""
    assert clopper_pearson(0, 50) == pytest.approx((0, 0.0711), abs=1e-3)


def test_few_differences_are_compared_by_flipped_signs() -> None:
    """Five of one sign cannot be significant: one of 32 flips is as extreme."""
    assert Differences([0.1] * 5).p == pytest.approx(1 / 32)
    assert Differences([0.1] * 6).p == pytest.approx(1 / 64)
    assert Differences([0.1] * 40).p == 0.0
    assert Differences([-0.1] * 40).p == 1.0
    assert Differences([0.0] * 40).p == 0.5


def test_related_questions_count_once() -> None:
    """Forty copies of two observations are two observations."""
    values = [0.5, 0.1] * 20
    assert Differences(values).p < 0.001
    assert Differences(values, [0, 1] * 20).p == pytest.approx(0.25)


# -- Verdicts ------------------------------------------------------------------------


def test_a_mixture_must_beat_every_member() -> None:
    """Better than the weak ones is not enough."""
    strong, weak = [1, 1, 1, 0] * 50, [1, 0, 0, 0] * 50
    found = verdicts({"strong": strong, "weak": weak, "mix": strong}, ["mix"])["mix"]
    assert (found.verdict, found.best, found.difference) == ("cannot tell", "strong", 0)
    assert found.interval[0] < 0 < found.interval[1]
    assert "cannot tell" in str(found)
    assert f"{found.needed:,} questions" in str(found)


def test_a_mixture_hurts_where_one_of_the_best_beats_it() -> None:
    """The sentence says by how much, and against whom."""
    scores = {"one": [1, 1, 1, 0] * 50, "mix": [1, 1, 0, 0] * 50}
    found = verdicts(scores, ["mix"])["mix"]
    assert found.verdict == "hurts"
    assert found.difference == -0.25
    assert str(found).startswith("mix hurts: -25.0 points against one alone [-3")


def test_several_mixtures_share_the_chance_of_a_false_claim() -> None:
    """What is significant for one is not where five are compared."""
    member, better = [0] * 200, [1] * 6 + [0] * 194
    assert verdicts({"m": member, "x": better}, ["x"])["x"].verdict == "helps"
    five = dict.fromkeys("vwxyz", better)
    found = verdicts({"m": member, **five}, list(five))
    assert {v.verdict for v in found.values()} == {"cannot tell"}


def test_graded_scores_are_compared_by_their_differences() -> None:
    """A rating a little better on most questions helps; the interval says so."""
    draw = random.Random(1)
    member = [draw.uniform(0, 0.5) for _ in range(60)]
    mixture = [score + draw.uniform(-0.05, 0.15) for score in member]
    found = verdicts({"m": member, "x": mixture}, ["x"])["x"]
    assert found.verdict == "helps"
    assert 0 < found.interval[0] < found.difference < found.interval[1]


def test_a_failed_answer_counts_as_wrong() -> None:
    """None is 0."""
    found = verdicts({"m": [None, True], "x": [True, True]}, ["x"])["x"]
    assert (found.score, found.best_score) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("scores", "mixtures", "message"),
    [
        ({"m": [1]}, ["x"], "mixture 'x' has no scores"),
        ({"x": [1]}, ["x"], "all candidates are mixtures"),
        ({"m": [1, 0], "x": [1]}, ["x"], "{'m': 2, 'x': 1}"),
        ({"m": [], "x": []}, ["x"], "1 or more"),
        ({"m": [float("nan")], "x": [1]}, ["x"], "'m' has a score that is no finite"),
    ],
    ids=["unknown mixture", "no member", "unequal lengths", "no questions", "nan"],
)
def test_scores_that_cannot_be_compared(
    scores: Any, mixtures: list[str], message: str
) -> None:
    """The message names what is wrong."""
    with pytest.raises(ValueError, match=re.escape(message)):
        verdicts(scores, mixtures)


def panels(rows: Sequence[Record]) -> dict[str, list[bool]]:
    """Return the scores of ten models and of three votes over the best of them."""
    return {
        **{model: right(rows, model) for model in BEST_FIRST},
        "four": voted(rows, BEST_FIRST[:4]),
        "eight": voted(rows, BEST_FIRST[:8]),
        "ten": voted(rows, BEST_FIRST),
    }


MIXTURES = ["four", "eight", "ten"]


@needs_recorded
def test_four_help_ten_hurt_and_eight_cannot_be_told() -> None:
    """On 5,000 questions the vote of four models beats each, that of ten does not."""
    found = verdicts(panels(letters()), MIXTURES)
    assert {name: verdict.verdict for name, verdict in found.items()} == {
        "four": "helps",
        "eight": "cannot tell",
        "ten": "hurts",
    }
    assert {verdict.best for verdict in found.values()} == {"gemini-1.5-pro-002"}
    assert found["four"].difference == pytest.approx(0.0192, abs=5e-4)
    assert found["eight"].needed > 5000


@needs_recorded
def test_five_hundred_questions_seldom_tell_that_ten_hurt() -> None:
    """A difference of 1.5 points is too small for so few."""
    found = Counter(
        verdicts(panels(random.Random(seed).sample(letters(), 500)), MIXTURES)[
            "ten"
        ].verdict
        for seed in range(20)
    )
    assert found["cannot tell"] >= 14
    assert found["helps"] == 0


@needs_recorded
@pytest.mark.parametrize("members", [1, 4, 11])
@pytest.mark.parametrize("questions", [50, 500])
def test_equal_members_are_seldom_told_apart(members: int, questions: int) -> None:
    """Each answer is that of a random model, so that any claim is a false one."""
    rights = np.array([[a == row["gold"] for a in row["answers"].values()]
                       for row in letters()])  # fmt: skip
    false: Counter[str] = Counter()
    for seed in range(200):
        draw = np.random.default_rng([seed, members, questions])
        rows = draw.integers(len(rights), size=(questions, 1))
        models = draw.integers(10, size=(questions, members + 1))
        columns = rights[rows, models].T.tolist()
        scores = dict(zip(["mix", *range(members)], columns, strict=True))
        false[verdicts(scores, ["mix"])["mix"].verdict] += 1
    # 3 and 3.5 % of 200 are 6 and 7; the margin is three standard errors.
    assert false["helps"] <= 6 + 8
    assert false["hurts"] <= 7 + 8


@needs_recorded
def test_ten_samples_of_code_output_cannot_be_told_from_one() -> None:
    """At a low temperature the plurality of ten is no better."""
    rows = samples("cruxeval")
    one = [
        sum(reply["right"] for reply in row["replies"]) / len(row["replies"])
        for row in rows
    ]
    ten = [
        plurality([reply["text"] for reply in row["replies"]])
        in {reply["text"] for reply in row["replies"] if reply["right"]}
        for row in rows
    ]
    assert verdicts({"one": one, "ten": ten}, ["ten"])["ten"].verdict == "cannot tell"
    first = [row["replies"][0]["right"] for row in rows]
    assert verdicts({"one": first, "ten": ten}, ["ten"])["ten"].verdict == "cannot tell"


# -- Choosing a panel ----------------------------------------------------------------


def record(gold: str = "A", **answers: str | None) -> Record:
    """Make a record."""
    return {"gold": gold, "answers": answers}


def test_fewer_than_three_good_members_are_no_panel() -> None:
    """The best is asked alone, and the panel says so."""
    rows = [record(x="A", y="A", z="A" if i < 30 else None) for i in range(60)]
    panel = choose(rows)
    assert panel.members == ["x"]
    assert "the best alone, as fewer than three" in str(panel)
    assert (panel.gain, panel.ceiling.headroom) == (0, 0)


def test_a_panel_is_best_first_and_ties_go_by_the_list() -> None:
    """At most k members; the scores are drawn to the mean."""
    rows = [record(w="B" if i < 5 else "A", x="A", y="A", z="A") for i in range(50)]
    panel = choose(rows, k=3)
    assert panel.members == ["x", "y", "z"]
    assert list(panel.scores) == ["x", "y", "z", "w"]
    mean = (45 + 150) / 200
    assert panel.scores["w"] == pytest.approx((45 + 2 * mean) / 52)
    assert "Optimistic" in str(panel)


def test_the_ceiling_is_what_no_member_has_right() -> None:
    """One question of two is missed by all; a quarter is open to a better choice."""
    rows = [
        record(x="A" if i % 4 == 0 else "B", y="A" if i % 4 == 1 else "C", z="D")
        for i in range(100)
    ]
    panel = choose([{**row, "answers": {**row["answers"], "v": None}} for row in rows])
    assert panel.members == ["x"]
    rows = [record(**{**row["answers"], "z": row["answers"]["x"]}) for row in rows]
    ceiling = choose(rows).ceiling
    assert (ceiling.missed, ceiling.headroom) == (0.5, 0.25)
    assert ceiling.interval[0] < 0.5 < ceiling.interval[1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([record(x="A")] * 49, "there are 49 questions; allowed: 50 or more"),
        ([{"answers": {"x": "A"}}] * 50, r"records\[0\] has no gold"),
        ([{"gold": "A"}] * 50, r"records\[0\] has the keys gold"),
    ],
    ids=["too few", "no gold", "no answers"],
)
def test_records_that_choose_cannot_use(rows: list[Record], message: str) -> None:
    """The message names the row and what is allowed."""
    with pytest.raises(ValueError, match=message):
        choose(rows)


def test_records_may_stand_in_a_file(tmp_path: Path) -> None:
    """A record a line; a line that compare was killed at is left aside."""
    file = tmp_path / "records.jsonl"
    rows = [{**record(x="A", y="B"), "question": str(n)} for n in range(50)]
    lines = [json.dumps(row) for row in rows]
    file.write_text("\n".join(lines))
    assert choose(file) == choose(rows)
    file.write_text("\n".join([*lines, '{"cut']))
    with pytest.raises(ValueError, match="line 51: no JSON"):
        choose(file)
    scored = [json.dumps({"question": str(n), "scores": {"x": 1.0}}) for n in range(50)]
    file.write_text("\n".join(['{"key": "1"}', *scored, '{"cut']))
    assert choose(file).members == ["x"]


@pytest.mark.parametrize("k", [0, True, "5"])
def test_k_is_a_whole_number(k: Any) -> None:
    """The message names the value."""
    with pytest.raises(ValueError, match="allowed: a whole number, 1 or more"):
        choose([record(x="A")] * 50, k)


def gain_over_best(fit: Sequence[Record], rest: Sequence[Record]) -> float:
    """Return by how many points a panel beats the single model of the same fit."""
    panel = choose(fit)
    best = max(panel.scores, key=lambda agent: panel.scores[agent])
    points = sum(voted(rest, panel.members)) - sum(right(rest, best))
    return 100 * points / len(rest)


@needs_recorded
def test_a_panel_fitted_on_half_gains_on_the_other_half() -> None:
    """Six seeded splits of 5,000: 1.4 points on each, 1.9 on average."""
    gains = []
    for seed in range(6):
        rows = list(letters())
        random.Random(seed).shuffle(rows)
        gains.append(gain_over_best(rows[:2500], rows[2500:]))
    assert min(gains) >= 1.4
    assert sum(gains) / 6 >= 1.9


@needs_recorded
def test_a_hundred_questions_choose_a_panel_that_seldom_loses() -> None:
    """Pools of five to eight models: 1.4 points on average, a loss in 6 % at most."""
    gains = []
    for seed in range(200):
        draw = random.Random(seed)
        pool = draw.sample(BEST_FIRST, draw.randint(5, 8))
        rows = only(draw.sample(letters(), 2000), pool)
        gains.append(gain_over_best(rows[:100], rows[100:]))
    assert sum(gains) / len(gains) >= 1.4
    assert sum(gain < -0.25 for gain in gains) / len(gains) <= 0.06


# -- Who can be trusted --------------------------------------------------------------


def test_a_copy_has_one_vote_and_the_first_is_kept() -> None:
    """A pair that agrees on 92 % is merged, missing answers included."""
    rows = without_gold(
        [
            {"x": "A", "y": "AB"[i % 3 == 0], "z": "AC"[i % 4 == 0],
             "v": "AD"[i % 5 == 0], "y2": "E" if i < 4 else "AB"[i % 3 == 0]}
            for i in range(50)
        ]
    )  # fmt: skip
    found = reliability(rows)
    assert found.merged == [("y", "y2")]
    assert found.members == ["x", "y", "z", "v"]
    assert found.scores["y2"] == found.scores["y"]
    assert "y and y2 have one vote" in str(found)


def test_three_members_are_never_parted() -> None:
    """With three a plurality says too little to drop one."""
    rows = without_gold([{a: f"{a}{i}" for a in "wxyz"} for i in range(50)])
    found = reliability(rows)
    assert len(found.members) == 4  # nobody agrees: there is no median to be under
    assert found.scores == dict.fromkeys("wxyz", 0.0)
    liars = [
        {"w": "A", "x": "A", "y": "A", "z": f"{i}", "v": f"v{i}"} for i in range(50)
    ]
    found = reliability([{"answers": {**row, "x": "B" if i % 2 else "A",
                                      "y": "C" if i % 3 else "A"}}
                         for i, row in enumerate(liars)])  # fmt: skip
    assert len(found.members) >= 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"answers": {"x": "A", "y": "B", "z": "A"}}] * 50, "there are 3 agents"),
        ([{"answers": dict.fromkeys("wxyz", "A")}] * 49, "there are 49 questions"),
        ([{"scores": {"x": 1.0}}] * 50, "the records have scores alone"),
    ],
    ids=["three agents", "too few questions", "no answers"],
)
def test_records_that_reliability_cannot_use(rows: list[Record], message: str) -> None:
    """The message names what is missing."""
    with pytest.raises(ValueError, match=message):
        reliability(rows)


def lie(rows: Sequence[Record], liar: str, kind: str, seed: int = 1) -> list[Record]:
    """Return the rows with each answer of one agent changed to a wrong letter."""
    draw = random.Random(seed)
    changed = []
    for row in rows:
        wrong = [letter for letter in "ABCDEFGHIJ" if letter != row["gold"]]
        others = Counter(
            a for m, a in row["answers"].items() if m != liar and a in wrong
        )
        said = draw.choice(wrong)
        if kind == "plausible" and others:
            said = others.most_common(1)[0][0]
        changed.append({**row, "answers": {**row["answers"], liar: said}})
    return changed


@needs_recorded
@pytest.mark.parametrize("kind", ["random", "plausible"])
@pytest.mark.parametrize("liar", SIX)
def test_a_liar_is_named_and_nobody_else(liar: str, kind: str) -> None:
    """The panel without it scores what it would score without it."""
    rows = lie(only(letters(), SIX), liar, kind)
    found = reliability(rows)
    assert (found.dropped, found.merged) == ([liar], [])
    honest = [agent for agent in SIX if agent != liar]
    assert voted(rows, found.members) == voted(letters(), honest)


@needs_recorded
def test_copies_and_colluding_pairs_are_found_in_a_hundred_questions() -> None:
    """In panels of six or more: 99 % of 100 draws, for each."""
    copies = pairs = 0
    for seed in range(100):
        draw = random.Random(seed)
        pool = draw.sample(BEST_FIRST, draw.randint(6, 10))
        rows = only(draw.sample(letters(), 100), pool)
        copied = [{"answers": {**r["answers"], "copy": r["answers"][pool[0]]}}
                  for r in rows]  # fmt: skip
        copies += (pool[0], "copy") in reliability(copied).merged
        lying = lie(rows, pool[1], "plausible", seed)
        for row in lying:
            row["answers"][pool[2]] = row["answers"][pool[1]]
        found = reliability(lying)
        pairs += (pool[1], pool[2]) in found.merged or (
            {pool[1], pool[2]} <= set(found.dropped)
        )
    assert copies >= 99
    assert pairs >= 99


@needs_recorded
def test_honest_panels_keep_their_members() -> None:
    """At 500 questions 1 % of the panels lose one, at most."""
    lost = 0
    for seed in range(100):
        draw = random.Random(seed)
        pool = draw.sample(BEST_FIRST, draw.randint(4, 10))
        lost += bool(reliability(only(draw.sample(letters(), 500), pool)).dropped)
    assert lost <= 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ImportError, match="the extra `evaluation`"):
        verdicts({"m": [1], "x": [0]}, ["x"])
