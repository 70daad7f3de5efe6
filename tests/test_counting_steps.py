"""The steps that compare responses: Majority, Medoid, Diverse."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from langchain_mixture import (
    ChatMixture,
    Diverse,
    InvalidMixtureError,
    Kept,
    Majority,
    Medoid,
    Propose,
    Response,
    Step,
    StepFailedError,
    create_mixture,
    letter,
    number,
)
from langchain_mixture.steps.similarity import similarity, vectors_of
from langchain_mixture.threads import wait_for
from tests.models import ask, models
from tests.recorded import recorded
from tests.test_conditions import FOUR, date
from tests.test_steps import response


def said(*texts: str) -> list[Response]:
    """Make a response of each text."""
    return [response(number, text) for number, text in enumerate(texts)]


def kept(step: Step, responses: Sequence[Response]) -> list[Response]:
    """Give what a step keeps, sync or async."""
    chosen = step.keep(responses, [])
    return chosen if isinstance(chosen, list) else wait_for(chosen)


def texts_of(responses: Sequence[Response]) -> list[str]:
    """Give the texts of responses."""
    return [response["text"] for response in responses]


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda: Majority("letter"), "Majority: key is 'letter'; allowed: a function"),  # type: ignore[arg-type]
        (lambda: Medoid(embed="x"), "Medoid: embed is 'x'; allowed: None or a func"),  # type: ignore[arg-type]
        (lambda: Diverse(0), "Diverse: k is 0; allowed: a whole number >= 1"),
        (lambda: Diverse(2.0), "Diverse: k is 2.0"),  # type: ignore[arg-type]
    ],
    ids=["key", "embed", "zero", "float"],
)
def test_a_wrong_argument_is_an_error(make: Callable[[], Step], culprit: str) -> None:
    """A wrong argument fails where it is written, with the culprit and the value."""
    with pytest.raises(InvalidMixtureError) as raised:
        make()
    assert culprit in str(raised.value)


@pytest.mark.parametrize(
    ("step", "n", "leaves"),
    [
        (Majority(), 4, 1),
        (Medoid(), 4, 1),
        (Diverse(3), 4, 3),
        (Diverse(3), 2, 2),
        (Majority(), 0, 0),
        (Medoid(), 0, 0),
        (Diverse(3), 0, 0),
    ],
    ids=str,
)
def test_they_ask_nobody_and_say_how_many_they_leave(
    step: Step, n: int, leaves: int
) -> None:
    """The graph needs no branch for them."""
    assert step.bounds(n) == ((), leaves)
    assert step.answers is False


# -- Majority ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "winner"),
    [
        (["(A)", "The answer is (B).", "B"], 1),
        (["(A)", "(B)"], 0),
        (["(B)", "(A)", "(A)", "(B)"], 0),
        (["?", "(B)", "(A)", "(A)"], 2),
        (["?", "?", "(A)"], 2),
        (["(C)"], 0),
    ],
    ids=str,
)
def test_majority_keeps_the_first_response_of_the_answer_given_most(
    texts: list[str], winner: int
) -> None:
    """Ties go to the first, and the response is handed on as it is."""
    responses = said(*texts)
    (chosen,) = kept(Majority(letter), responses)
    assert chosen is responses[winner]


def test_majority_tells_the_history_how_the_votes_fell() -> None:
    """Counts, share, and who voted otherwise; a response without a vote is neither."""
    chosen = kept(Majority(letter), said("(B)", "(A)", "(B)", "dunno"))
    assert isinstance(chosen, Kept)
    assert chosen.note == {
        "counts": {"B": 2, "A": 1},
        "share": 0.5,
        "minority": ["1_propose/1"],
    }
    assert chosen.reason is None


def test_answers_are_written_short_into_the_history() -> None:
    """Free texts do not stand in it once more, and none hides another."""
    one, two = "x" * 100 + "1", "x" * 100 + "2"
    chosen = kept(Majority(), said(one, two, two, "no"))
    assert isinstance(chosen, Kept)
    assert isinstance(chosen.note, dict)
    name = "x" * 80 + "…"
    assert chosen.note["counts"] == {name: 1, f"{name} #2": 2, "no": 1}


def test_where_nobody_has_a_vote_the_first_is_kept_and_the_result_says_so() -> None:
    """Nothing is guessed, and nothing fails silently."""
    chosen = kept(Majority(number), said("many", "few"))
    assert isinstance(chosen, Kept)
    assert texts_of(chosen) == ["many"]
    assert chosen.reason == "none of 2 responses has a vote; the first is kept"


def test_majority_counts_tool_calls_where_there_is_no_text() -> None:
    """Models that would call the same tool alike agree, and the calls are kept."""
    responses = said("", "", "")
    for number_, query in enumerate(["a", "b", "b"]):
        responses[number_]["text"] = ""
        responses[number_]["tool_calls"] = [
            {"name": "search", "args": {"q": query}, "id": str(number_)}
        ]
    assert kept(Majority(), responses) == [responses[1]]


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_counted_answer_is_the_models_own_message(how: str) -> None:
    """It goes through the graph unchanged; the votes stand in its row."""
    client = models(a="(B)", b="The answer is (A).", c="A")
    graph = create_mixture([Propose(list(client)), Majority(letter)], client=client)
    state = graph.invoke(ask()) if how == "invoke" else await graph.ainvoke(ask())
    assert state["messages"][-1].text == "The answer is (A)."
    assert state["messages"][-1].response_metadata["model_name"] == "b"
    row = state["mixture"]["history"][-1]
    assert row["note"]["counts"] == {"B": 1, "A": 2}
    assert row["note"]["minority"] == ["1_propose/0"]
    assert state["mixture"]["status"] == "complete"
    assert type(state["mixture"]["responses"]) is list


def test_a_count_without_votes_is_a_degraded_answer() -> None:
    """The result names the step, and what was done instead."""
    model = ChatMixture(
        [Propose(["a", "b"]), Majority(letter)], client=models(a="?", b="!")
    )
    answer = model.invoke("Which?")
    about = answer.response_metadata["mixture"]
    assert answer.text == "?"
    assert about["status"] == "degraded"
    assert about["reasons"] == [
        "2_majority: none of 2 responses has a vote; the first is kept"
    ]


def test_a_key_that_fails_is_blamed_by_the_name_of_its_step() -> None:
    """A user's function that raises ends the run, and what was paid for is kept."""

    def key(text: str) -> str:
        raise KeyError(text)

    graph = create_mixture([Propose(["a"]), Majority(key)], client=models("a"))
    with pytest.raises(StepFailedError, match="2_majority: KeyError") as raised:
        graph.invoke(ask())
    assert texts_of(raised.value.responses) == ["a answers"]


# -- Medoid and Diverse --------------------------------------------------------------

IONS = (
    "An ion is an atom that lost or gained electrons.",
    "An ion is an atom that has lost or gained electrons.",
    "Ions are atoms that gained electrons or lost some.",
    "Bananas are yellow.",
)


def test_medoid_keeps_the_response_that_is_most_like_all_others() -> None:
    """The odd one out is never chosen, wherever it stands."""
    for order in itertools.permutations(IONS):
        (chosen,) = texts_of(kept(Medoid(), said(*order)))
        assert chosen != IONS[3]


def test_diverse_keeps_those_that_differ_most_in_the_order_in_which_they_came() -> None:
    """Of two that say the same one is left, and the list's order stays."""
    for order in itertools.permutations(IONS):
        chosen = texts_of(kept(Diverse(2), said(*order)))
        assert IONS[3] in chosen
        assert chosen == [text for text in order if text in chosen]
    assert not {*IONS[:2]} <= {*texts_of(kept(Diverse(3), said(*IONS)))}


@pytest.mark.parametrize("step", [Medoid(), Diverse(1), Diverse(2)], ids=str)
@pytest.mark.parametrize(
    "texts",
    [["same"] * 3, ["", "", "x"], ["a", "b", "c"], ["one"]],
    ids=str,
)
def test_texts_that_are_equal_short_or_empty_can_be_compared(
    step: Step, texts: list[str]
) -> None:
    """Ties go to the first, and nothing divides by zero."""
    responses = said(*texts)
    for one in responses:
        one["text"] = one["text"] if one["text"] in texts else ""
    chosen = kept(step, responses)
    assert len(chosen) == step.bounds(len(texts))[1]
    if len({*texts}) == 1:
        assert chosen == responses[: len(chosen)]


def vectors(texts: list[str]) -> list[list[float]]:
    """Embed a text as a direction: its number of degrees."""
    degrees = [math.radians(float(text)) for text in texts]
    return [[math.cos(angle), math.sin(angle)] for angle in degrees]


async def vectors_later(texts: list[str]) -> list[list[float]]:
    """Embed texts, async."""
    return vectors(texts)


@pytest.mark.parametrize("embed", [vectors, vectors_later], ids=["sync", "async"])
def test_a_users_vectors_take_the_place_of_characters(embed: Any) -> None:
    """Where there is `embed`, likeness is the cosine of its vectors."""
    angles = said("0", "10", "20", "50", "180")
    assert texts_of(kept(Medoid(embed=embed), angles)) == ["20"]
    assert texts_of(kept(Diverse(2, embed=embed), angles)) == ["0", "180"]
    assert texts_of(kept(Diverse(3, embed=embed), angles)) == ["0", "50", "180"]


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
@pytest.mark.parametrize("embed", [vectors, vectors_later], ids=["sync", "async"])
async def test_embeddings_are_asked_in_sync_and_async_runs(
    how: str, embed: Any
) -> None:
    """Either kind of function works in either way of running."""
    client = models(a="0", b="10", c="80")
    steps = [Propose(list(client)), Medoid(embed=embed)]
    graph = create_mixture(steps, client=client)
    state = graph.invoke(ask()) if how == "invoke" else await graph.ainvoke(ask())
    assert state["messages"][-1].text == "10"


def test_embeddings_are_not_paid_for_where_there_is_nothing_to_choose() -> None:
    """With no more responses than are kept, nobody is asked for vectors."""

    def embed(texts: list[str]) -> list[list[float]]:
        raise AssertionError

    assert len(kept(Medoid(embed=embed), said("1"))) == 1
    assert len(kept(Diverse(3, embed=embed), said("1", "2", "3"))) == 3


@pytest.mark.parametrize(
    "rows",
    [[[1.0]], [[1.0], [1.0, 2.0]], [[1.0], [math.nan]], []],
    ids=["too few", "unequal", "not a number", "none"],
)
def test_vectors_that_cannot_be_compared_are_an_error(rows: list[list[float]]) -> None:
    """What `embed` returned is named, and no response is kept by chance."""
    with pytest.raises(ValueError, match=r"embed returned .* for 2 texts; it must"):
        kept(Medoid(embed=lambda texts: rows), said("1", "2"))


def test_similarity_is_the_cosine_of_tf_idf_over_runs_of_characters() -> None:
    """It agrees with the formula written out: 1 + ln((1 + n) / (1 + df)), per run."""
    texts = ["abcd", "abce", "xyz"]
    one, two, other = vectors_of(texts)
    shared, alone = 1 + math.log(4 / 3), 1 + math.log(4 / 2)
    # " abcd " has 4 runs of three and 3 of four; it shares " ab", "abc" and " abc".
    by_hand = 3 * shared**2 / (3 * shared**2 + 4 * alone**2)
    assert similarity(one, two) == pytest.approx(by_hand)
    assert similarity(one, other) == 0


@pytest.mark.parametrize("step", [Medoid(), Diverse(8)], ids=str)
def test_many_and_long_texts_are_compared_in_no_time(step: Step) -> None:
    """64 texts of 2 kB take some tenths of a second, and those of 1 MB no more."""
    words = [f"{number} bottles of beer on the wall, " for number in range(64)]
    started = time.monotonic()
    kept(step, said(*(word * (2_000 // len(word)) for word in words)))
    kept(step, said(*(word * (1_000_000 // len(word)) for word in words[:16])))
    assert time.monotonic() - started < 30


# -- Real answers --------------------------------------------------------------------


def test_the_plurality_of_the_best_four_is_right_on_73_5_percent() -> None:
    """On 5,000 questions, without a judge; the best model alone: 71.6."""
    rows = recorded("mmlu_pro_letters_dev.csv.gz")
    right = 0
    for row in rows:
        texts = [f"The answer is ({row[m]})." if row[m] else "None." for m in FOUR]
        (chosen,) = kept(Majority(letter), said(*texts))
        right += letter(chosen["text"]) == row["answer"]
    assert right / len(rows) == pytest.approx(0.735, abs=0.0005)


def points(
    step: Step, name: str, marks: Callable[[Any], list[tuple[str, float]]]
) -> float:
    """Give how many points of a hundred a step gains over one sample."""
    gained = []
    for question in recorded(name):
        samples = marks(question)
        (chosen,) = kept(step, said(*(text for text, _ in samples)))
        mark = dict(reversed(samples))[chosen["text"]]
        gained.append(mark - sum(mark for _, mark in samples) / len(samples))
    return 100 * sum(gained) / len(gained)


def test_medoid_and_majority_gain_on_reasoning() -> None:
    """On date understanding both gain, Medoid without a key."""

    def marks(question: Any) -> list[tuple[str, float]]:
        return [(reply["text"], reply["right"]) for reply in question["replies"]]

    name = "samples_date_dev.jsonl.gz"
    assert points(Medoid(), name, marks) >= 5.5
    assert points(Majority(date), name, marks) >= 7.0


@pytest.mark.parametrize("kind", ["planned", "direct"])
def test_medoid_gains_nothing_on_creative_writing(kind: str) -> None:
    """That is what its docstring says: within two points of one sample."""

    def marks(question: Any) -> list[tuple[str, float]]:
        return [(s["text"], s["score"] / 10) for s in question["samples"][kind]]

    assert abs(points(Medoid(), "samples_writing_dev.jsonl.gz", marks)) < 2
