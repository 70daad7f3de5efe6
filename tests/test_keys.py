"""Keys: what of a text is compared, and which texts have no vote."""

import pickle
import re
import time
from collections import Counter
from typing import Any

import pytest

from langchain_mixture import InvalidMixtureError, exact, json_field, letter, number
from langchain_mixture.steps.keys import Key, compared, votes
from tests.recorded import recorded
from tests.test_steps import response


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Paris", "paris"),
        (' "Paris." ', "paris"),
        ("“Paris”", "paris"),
        ("`Paris`!", "paris"),
        ('**"Paris."**', "paris"),
        ("New \n York", "new york"),
        ("¿Qué?", "qué"),
        ("cafe\u0301", "café"),
        ("don’t", "don't"),  # noqa: RUF001  # curly
        ("C++", "c++"),
        ("C#.", "c#"),
        ("A*", "a*"),
        ("-5", "-5"),
        ("−5", "-5"),  # noqa: RUF001  # a minus sign
        ("+5", "+5"),
        (".5", ".5"),
        ("3.14", "3.14"),
        ("50%", "50%"),
        ("#1", "#1"),
        ("_x_", "_x_"),
        ("**a** and **b**", "a** and **b"),
        ("-", "-"),
        ("...", None),
        ('""', None),
        (" \n ", None),
        ("", None),
    ],
    ids=repr,
)
def test_exact_ignores_case_space_and_marks_at_the_edges(
    text: str, key: str | None
) -> None:
    """Two texts are the same answer but for case, space, and marks at their edges."""
    assert exact(text) == key


MARKED = [
    "C",
    "c",
    "C.",
    "(c)",
    "**C**",
    "`C`",
    "C) Paris",
    "(C) Paris",
    "C: Paris",
    "**C. Paris**",
    "C. Paris\n\nParis is the capital of France.",
    "Option C",
    "I would go with option C.",
    "The answer is (C).",
    "The answer is C",
    "The answer is c.",
    "The answer is 'C'.",
    "The answer is [[C]]",
    "The answer is: **C**",
    "The answer is C because B is wrong.",
    "The answer to question 3 is C.",
    "The correct answer is **C. Paris**",
    "The correct option is (C).",
    "The best choice would be C.",
    "The answer is most likely option C.",
    "The answer is Paris, which is (C).",
    "The answer is:\n\nC. Paris",
    "The answer is\n\\[\\boxed{C}\\]",
    "Thus, the answer is $\\boxed{\\text{C}}$. I hope it is correct.",
    "\\[ \\boxed{\\mathrm{(C)}} \\]",
    "ANSWER: C",
    "**Answer:** C",
    "**Answer**: **C**",
    "**Answer: (C)**",
    "## Answer\n\nC",
    "Final Answer: C. Paris",
    "Answer: (C) Paris\n\nWhy: (A) is in Spain, and (B) is in Italy.",
    "(A) is too small, (B) too big. The answer is (C).",
    "The answer is (B). Wait, Rome is in Italy. The answer is (C).",
    "The answer is (B).\n\n\\boxed{C}",
    "The answer is (C), (D), and (E).",
    "The answer is not listed, but the closest option is (C) 2 mm.",
    "Therefore, the answer is （Ｃ）。",  # noqa: RUF001  # full width
    '{"answer": "C"}',
    '```json\n{"answer":"C","why":"A is in Spain"}\n```',
    "<answer>C</answer>",
    "The only list that contains minerals only is (C).",
    "The definition of reliability is:\n\nC. the same result twice",
]


@pytest.mark.parametrize("text", MARKED, ids=lambda text: repr(text[-50:]))
def test_letter_is_the_last_one_that_the_text_marks(text: str) -> None:
    """However a model marks its choice, it is C."""
    assert letter(text) == "C"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("A", "A"),
        ("I", "I"),
        ("The answer is I.", "I"),
        ("The answer is (I)", "I"),
        ("The answer is A", "A"),
        ("The answer is A because it fits", "A"),
        ("The answer is A or B", "A"),
        ('{"answer": "A", "why": "it fits"}', "A"),
        ("\\boxed{A}", "A"),
        ("The answer is a good one", None),
        ("The answer is I think C", None),
        ("A good answer is hard to find", None),
        ("I cannot tell.", None),
        ("I don't know", None),
    ],
    ids=repr,
)
def test_letter_tells_the_choices_a_and_i_from_the_words(
    text: str, key: str | None
) -> None:
    """An article and a pronoun are no votes."""
    assert letter(text) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "Paris",
        "The answer is C++",
        "The answer is C#",
        "Vitamin C-rich food",
        "Answer: N/A",
        "The answer is None of the above",
        "The answer isn't A.",
        "The answer is not (A), (B), or (C).",
        "The answers are A and C",
        "Option A is wrong. Option B is right.",
        "A. no\nB. no\nC. yes",
        "(A) is too small, and\n(B) is not right.",
        "$P(A) = \\frac{A}{B}$",
    ],
    ids=repr,
)
def test_a_text_that_marks_no_letter_has_no_vote(text: str) -> None:
    """What only discusses the options, or names another answer, is not guessed at."""
    assert letter(text) is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("42", 42),
        ("42.", 42),
        ("007", 7),
        ("-0", 0),
        ("+5", 5),
        ("-5", -5),
        ("−5", -5),  # noqa: RUF001  # a minus sign
        ("-$5", -5),
        ("$-5$", -5),
        ("10-3", 3),
        (".5", 0.5),
        ("0.50", 0.5),
        ("0,5", 0.5),
        ("1,234", 1234),
        ("1,234,567.80", 1234567.8),
        ("12,34,567", 1234567),
        ("1 234 567", 1234567),
        ("100\u202f000", 100000),
        ("1'234", 1234),
        ("1_000", 1000),
        ("1.234,56", 1234.56),
        ("1.234.567", 1234567),
        ("1{,}234", 1234),
        ("10\\,000", 10000),
        ("1/3", 1 / 3),
        ("1 / 4", 0.25),
        ("1 1/2", 1.5),
        ("1½", 1.5),
        ("-½", -0.5),
        ("-\\frac{1}{2}", -0.5),
        ("3\\frac14", 3.25),
        ("1e3", 1000),
        ("1.5e-3", 0.0015),
        ("3 x 10^5", 300000),
        ("2.3×10^2", 230),  # noqa: RUF001  # a multiplication sign
        ("3 \\times 10^{-2}", 0.03),
        ("10**5", 100000),
        ("2^10", 1024),
        ("5 million", 5000000),
        ("50%", 50),
        ("$18.00 a day", 18),
        ("12km", 12),
        ("25 m^2", 25),
        ("2500 J mol^{-1}", 2500),
        ("90^\\circ", 90),
        ("**42**", 42),
        ("x = 5", 5),
        ("16 GB of H2O", 16),
        ("We get 3, then 4.", 4),
        ("The answer is 7 apples. I hope that 2 of them help.", 7),
        ("The answer is 2 + 3 = 5.", 5),
        ("The answer is 42 (since 40 + 2 = 42).", 42),
        ("The answer is 5, because 10 = 2*5", 5),
        ("The answer is 3. Wait, no: the answer is 4.", 4),
        ("The answer is:\n\n42", 42),
        ("**Answer:** -3.5", -3.5),
        ("Answer: (13 - 9) * (7 - 1) = 24", 24),
        ("So 48/2 = 24 clips.\n#### 1,072", 1072),
        ("\\boxed{x = -3} since 3 = 2+1", -3),
        ("$\\boxed{\\$18}$", 18),
        ("\\boxed{\\text{5 km}}", 5),
        ("9" * 300, int("9" * 300)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_number_is_the_one_that_the_text_gives_as_its_answer(
    text: str, key: float
) -> None:
    """However a number is written, equal ones are equal, and whole ones are ints."""
    found = number(text)
    assert found == key
    assert type(found) is type(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "H2O",
        "03/01/2016",
        "2016-03.01.2",
        "3:15 pm",
        "1:2",
        "1,23,4",
        "1/0",
        "1 1/0",
        "2\\sqrt{3}",
        "2\\pi",
        "√2",
        "1e999",
        "1" * 500,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_plain_number_has_no_vote(text: str) -> None:
    """A date, a time, a formula with a root, or a flood of digits is no number."""
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"city": "Paris."}', "paris"),
        ('Sure:\n```json\n{"city": "Paris"}\n```\nAnything else?', "paris"),
        ('{"city": "Rome"} no: {"city": "Paris"}', "paris"),
        ('{"city": "Paris"} {"country": "France"}', "paris"),
        ('{"was": {"city": "Rome"}, "city": "Paris"}', "paris"),
        ('\\frac{1}{2} {"city": "Paris"}', "paris"),
        ('[{"city": true}]', "true"),
        ('{"city": 3.0}', "3"),
        ('{"city": "3"}', "3"),
        ('{"city": 2.5}', "2.5"),
        ('{"city": {"b": [1], "a": 2}}', '{"a": 2, "b": [1]}'),
        ('{"city": null}', None),
        ('{"city": ""}', None),
        ('{"town": "Paris"}', None),
        ('{"was": {"city": "Rome"}}', None),
        ("{'city': 'Paris'}", None),
        ('{"city": "Par', None),
        ('{"city": ' + "1" * 5000 + "}", None),
        ("Paris", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_json_field_is_the_value_of_the_last_object_that_has_it(
    text: str, key: str | None
) -> None:
    """A field is found in whatever stands around its object, and read as a value."""
    assert json_field("city")(text) == key


def test_a_json_field_is_a_value_and_needs_a_name() -> None:
    """A key goes into steps, which are compared, hashed and pickled."""
    assert json_field("city") == json_field("city") != json_field("town")
    assert pickle.loads(pickle.dumps(json_field("city"))) == json_field("city")
    assert len({json_field("city"), json_field("city")}) == 1
    with pytest.raises(InvalidMixtureError, match="json_field: name is ''; allowed"):
        json_field("")


HOSTILE = [
    "answer ",
    "answer is ",
    "answer: ",
    "answer is not ",
    "\\boxed{",
    "#### ",
    "1",
    "1,",
    "1 ",
    "1 234 ",
    "1/",
    "1 1/",
    "½",
    "10^",
    "\\frac{1",
    "-",
    "(A) ",
    "A. \n",
    "**",
    '"',
    '{"',
    '{"a":',
    '{"a":[1,',
    '{"a":1,',
    '{"a": "',
    "\n",
    " ",
    "\ufdfa",
    "the best choice ",
]


@pytest.mark.parametrize(
    "key",
    [exact, letter, number, json_field("a")],
    ids=["exact", "letter", "number", "json_field"],
)
@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_a_key_reads_a_megabyte_of_anything_in_no_time(key: Key, piece: str) -> None:
    """A model that loops to its token limit holds up nobody: reading is linear."""
    started = time.monotonic()
    key(piece * (1_000_000 // len(piece)))
    assert time.monotonic() - started < 30


# -- Votes ---------------------------------------------------------------------------


def test_where_there_is_no_text_the_tool_calls_are_compared() -> None:
    """Two responses that would call the same tool alike are the same answer."""
    one, two = response(1, "  "), response(2, "Let me look.")
    one["tool_calls"] = two["tool_calls"] = [
        {"name": "search", "args": {"q": "ion"}, "id": "1"}
    ]
    assert compared(one) == '[would call the tool search with {"q": "ion"}]'
    assert compared(two) == "Let me look."
    assert votes([one, two], json_field("q")) == ["ion", None]


async def _later(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("key", "culprit"), [(str.split, r"\['a'\]"), (_later, "a coroutine")]
)
@pytest.mark.filterwarnings("ignore:coroutine")  # nobody can wait for it
def test_a_key_that_returns_what_cannot_be_counted_is_named(
    key: Any, culprit: str
) -> None:
    """A list, or an async key, is an error and no vote."""
    with pytest.raises(TypeError, match=f"key returned {culprit}; it must return"):
        votes([response(1, "a")], key)


# -- Real answers --------------------------------------------------------------------


def test_letter_reads_real_answers_as_the_benchmark_did() -> None:
    """On 5,000 answers of ten models the letters are those of the benchmark's reader.

    Left out are the texts that were cut, and those that claim several letters: the
    benchmark took the first one, or any letter where it found no claim.
    """
    claim = re.compile(r"answer is \(?([A-J])\)?")
    outcomes = Counter(
        letter(reply["text"]) == reply["answer"]
        for question in recorded("mmlu_pro_500.jsonl.gz")
        for reply in question["replies"].values()
        if len(reply["text"]) < 4000 and len({*claim.findall(reply["text"])}) == 1
    )
    assert outcomes.total() > 4400
    assert outcomes[False] <= 10


def test_letter_finds_as_many_right_answers_as_the_benchmark_did() -> None:
    """What has no claim is guessed at less, and no right answer is lost by it."""
    questions = recorded("mmlu_pro_500.jsonl.gz")
    right: Counter[str] = Counter()
    for question in questions:
        for reply in question["replies"].values():
            right["benchmark"] += reply["answer"] == question["answer"]
            right["letter"] += letter(reply["text"]) == question["answer"]
    assert right["letter"] > 0.99 * right["benchmark"]


def test_exact_groups_what_the_source_calls_the_same() -> None:
    """Outputs that are equal to `exact` are both right or both wrong."""
    groups: dict[Any, set[bool]] = {}
    for question in recorded("samples_cruxeval_dev.jsonl.gz"):
        for reply in question["replies"]:
            key = (question["id"], exact(reply["text"]))
            groups.setdefault(key, set()).add(reply["right"])
    mixed = [key for key, marks in groups.items() if len(marks) > 1]
    assert len(mixed) <= 0.02 * len(groups)


def test_number_reads_every_expression_that_should_make_24() -> None:
    """In the game of 24 the number behind the last "=" is the answer."""
    texts = [
        sample["text"]
        for question in recorded("samples_game24_dev.jsonl.gz")
        for sample in question["samples"]["direct"]
        if re.search(r"= 24\s*\Z", sample["text"])
    ]
    assert len(texts) > 3000
    assert all(number(text) == 24 for text in texts)
