r"""Keys: from a text to what is compared when answers are counted.

A key is a function of one text. It returns a hashable value, equal for texts that mean
the same answer, or None where the text holds no answer: that response has no vote.
The keys here take time linear in the text, whatever a model wrote.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.records import Response
from langchain_mixture.steps.prompts import written_out

Key: TypeAlias = Callable[[str], Hashable | None]
"""From a text to what is compared, or None for "no vote"."""


# -- exact ---------------------------------------------------------------------------

_QUOTES: Final = "\"'`«»\u2039\u203a\u201a\u201e「」『』"
_BEFORE: Final = f"{_QUOTES}¿¡ "
# A point in front stays, as in ".5"; signs such as +, -, # and % stay everywhere.
_BEHIND: Final = f"{_QUOTES}.,;:!?…。，；：！？、 "  # noqa: RUF001  # Chinese marks
_STRAIGHT: Final = str.maketrans("“”‘’−", "\"\"''-")  # noqa: RUF001  # curly ones


def exact(text: str) -> str | None:
    """Return the text without what does not change an answer.

    Case does not count, nor how much space there is, nor quotes, sentence marks and
    bold at the edges. Signs, points inside, `+` and `#` stay.

    Example:
        >>> exact(' "New  York." ')
        'new york'
        >>> exact("C++"), exact("-3.5"), exact("?!")
        ('c++', '-3.5', None)
    """
    said = unicodedata.normalize("NFC", " ".join(text.split())).translate(_STRAIGHT)
    for _ in range(3):  # such as quotes within bold within quotes
        said = said.lstrip(_BEFORE).rstrip(_BEHIND)
        if not (said.startswith("**") and said.endswith("**")):
            break
        said = said[2:-2]
    return said.casefold() or None


# -- Claims --------------------------------------------------------------------------

# Each gap is bounded, as a model may write one word to its token limit.
_CLAIM: Final = (
    r"(?i:\b(?:answer"
    r"|(?:best|closest|correct|nearest|right) (?:choice|match|one|option))\b"
    r"(?:[^.:=\n]{0,60}?(?:\b(?:is|are|was|(?:must|should|will|would) be)\b|[:=])"
    r"|\W{0,4}\n))"
)
MOST_CLAIMS: Final = 100
"""How many of a text's claims are read, from its end."""
MOST_READ: Final = 100_000
"""How many characters of a text `letter` and `number` read, from its end."""


def _claims(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Return where a text announces its answer, the last place first."""
    return reversed(deque(pattern.finditer(text), maxlen=MOST_CLAIMS))


# -- letter --------------------------------------------------------------------------

_LETTER_CLAIM: Final = re.compile(_CLAIM)
_BRACKETED: Final = r"(?<![\w)}\]])[(\[{]\s?([a-zA-Z])\s?[)\]}]"
# "A" and "I" are words, too: where they stand bare, the claim must end behind them.
_BARE: Final = (
    r"(?:([B-HJ-Z])(?![\w'+#^=/-])"
    r"|([a-zA-Z])(?=\s{0,9}(?:[.,:;)(\]}!?]|\Z|\n|(?:and|because|or|since)\b)))"
)
_AT_ONCE: Final = re.compile(
    r"\W{0,20}(?:(?i:answer|choice|letter|likely|most|option|probably|the)\b\W{1,8}){0,4}"
    rf"(?:{_BRACKETED}|{_BARE})"
)
_LATER: Final = re.compile(rf"(?:(?!\bnot\b|n't\b|\.\s)[^\n]){{0,120}}?{_BRACKETED}")
_LEADING: Final = re.compile(r"(?m)^[^\w\n]{0,6}([A-Z])[.):](?=\s)")
_INLINE: Final = re.compile(
    r"(?<![\w)])\(([A-Z])\)|\b(?i:answer|choice|option)\s([A-Z])\b(?![\w'+#^=/-])"
    r"|(?::|\b(?:is|are))\s{1,3}([A-Z])(?:[.)]\s|[^\w+#]{0,4}\Z)"
)
_DENIED: Final = re.compile(r"(?i)\b(?:false|incorrect|not|wrong)\b|n't\b")
_COMMANDS: Final = re.compile(r"\\(?:(?:math|text)(?:bf|rm)|text|[()\[\]])")
_FULL_WIDTH: Final = {code + 0xFEE0: code for code in range(0x21, 0x7F)}
_MARKED: Final = re.compile(r"(?:\*\*|[\"'`“‘])([A-Z])(?:\*\*|[\"'`”’])")  # noqa: RUF001  # quotes
_MARKUP: Final = str.maketrans(dict.fromkeys('*_`$"<>', " "))


def letter(text: str) -> str | None:
    r"""Return the letter that a multiple-choice answer marks, as a capital.

    "The answer is (C)", "Answer: C.", "**C**", "C" and `\boxed{C}` all mark one. The
    last one marked counts; of several letters in one claim, the first. A text without
    a claim is read by its last line, or by the option with which it begins. One that
    only discusses the options has no vote. The words are English ones.

    Example:
        >>> letter("(A) is too small. The answer is **(C)**, as 3 > 2.")
        'C'
        >>> letter("I cannot tell: A and B are both plausible.") is None
        True
    """
    plain = _without_markup(text)
    if alone := re.fullmatch(r"\W*([a-zA-Z])\W*", plain):
        return alone[1].upper()
    for claim in _claims(_LETTER_CLAIM, plain):
        found = _AT_ONCE.match(plain, claim.end()) or _LATER.match(plain, claim.end())
        if found:
            return _letter_of(found)
    return _unclaimed(plain)


def _unclaimed(plain: str) -> str | None:
    """Read a text without a claim by its last line, or by how it begins."""
    last_line = plain.rstrip().rpartition("\n")[2]
    ends = {_letter_of(found) for found in _INLINE.finditer(last_line)}
    if len(ends) == 1 and not _DENIED.search(last_line):
        return ends.pop()
    leading = {found[1] for found in _LEADING.finditer(plain)}
    starts = _LEADING.match(plain.lstrip()) or _LEADING.match(last_line)
    return starts[1] if starts and len(leading) == 1 and not ends else None


def _letter_of(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group).upper()


def _without_markup(text: str) -> str:
    text = _MARKED.sub(r"(\1)", text[-MOST_READ:].translate(_FULL_WIDTH))
    text = _COMMANDS.sub(" ", text.replace("\\boxed", " answer: "))
    return text.translate(_MARKUP)


# -- number --------------------------------------------------------------------------

_NUMBER_CLAIM: Final = re.compile(
    r"\\boxed\s?\{(?P<box>(?:[^{}\n]|\{[^{}\n]{0,80}\}){0,200})\}|\#{4}|" + _CLAIM
)
_CLAIM_END: Final = re.compile(
    r"\n|[.!?](?=\s|\Z)|\s\((?=[a-z]{2})|,?\s(?:as|because|since)\b"
)
_NUMBER: Final = re.compile(
    r"""(?x)
    (?P<sign> (?<![\w)\]}]) [-+])? [$€£¥₹]? (?<![\w.,:/'^√])(?<!\\sqrt\{) (?P<minus> -)?
    (?P<run> [1-9]\d{0,2}(?:[ ]\d{3}){1,9}(?:\.\d{1,99})?(?![.,:/'_]?\d)
           | \.?\d(?:(?:[.,:'_]|[ ]?/[ ]?)?\d){0,400}(?![.,:/'_]?\d) )
    (?: [ ](?P<part> \d{1,9}/\d{1,9})(?![\d/]) )?       # 1 1/2
    (?: [eE](?P<e> [-+]?\d{1,3})(?!\w)
      | \s?[*x]\s?\$?10\^(?P<ten> [-+]?\d{1,3})(?!\d)
      | \^(?P<power> \d{1,3})(?!\d)
      | \s(?P<word> thousand | million | billion | trillion)\b )?
    (?P<more> \s?(?:\\(?:sqrt|pi)\b | [π√]) )?         # no number by itself
    """
)
_WORDS: Final = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_GROUPED: Final = re.compile(
    r"[1-9]\d{0,2}(?:(?:,\d{2,3})*,\d{3}|(?:['_ ]\d{3})+)(?:\.\d+)?"
)
_GROUPED_BY_POINTS: Final = re.compile(
    r"[1-9]\d{0,2}(?:(?:\.\d{3})+,\d+|(?:\.\d{3}){2,})"
)
_SIGNS: Final = str.maketrans(
    {"−": "-", "–": "-", "×": "*", "·": "*", "⁄": "/", "’": "'"}  # noqa: RUF001  # models write them
    | dict.fromkeys("\xa0\u2009\u202f", " ")
)
_REWRITTEN: Final = (
    (re.compile(r"\\[,!;: ]|(?<!\d)\*\*|\*\*(?!\d)"), ""),  # thin spaces, bold
    (re.compile(r"\\(?=[$%])|(?<=[a-zA-Z)}\]°])\^\{?[-+]?\d{1,3}\}?"), ""),  # m^2
    (re.compile(r"(?<=\d)(?=\\[dt]?frac)"), " "),
    (
        re.compile(r"\\[dt]?frac(?:(\d)(\d)|\{([\d.,]{1,40})\}\{([\d.,]{1,40})\})"),
        r"\1\3/\2\4",
    ),
    (re.compile(r"\\(?:times|cdot)\b"), "*"),
    (re.compile(r"\*\*|\^\{(?=[-+]?\d{1,3}\})"), "^"),
)


def number(text: str) -> int | float | None:
    r"""Return the number that a text gives as its answer.

    The last number that is claimed counts ("The answer is 42", `\boxed{42}`,
    "#### 42"; behind the last "=" of the claim where there is one), else the last one
    in the text. Thousands may be separated; fractions, powers of ten, "million" and
    LaTeX are understood; currency, "%" and units are left out. A date, a time, a
    version, or a number with a root or pi is none.

    Example:
        >>> number("We need 3 + 4. So the answer is **$1,234.50**.")
        1234.5
        >>> number(r"\boxed{-\frac{3}{4}}"), number("2 million"), number("3:15 pm")
        (-0.75, 2000000, None)
    """
    plain = _rewritten(text[-MOST_READ:])
    for claim in _claims(_NUMBER_CLAIM, plain):
        said = claim["box"]
        if said is None:
            said = plain[claim.end() : claim.end() + 300].lstrip()
            said = said[: end.start()] if (end := _CLAIM_END.search(said)) else said
        for part in (said.rpartition("=")[2], said):
            if found := _NUMBER.search(part):
                return _value(found)
    last = deque(_NUMBER.finditer(plain), maxlen=1)
    return _value(last[0]) if last else None


def _rewritten(text: str) -> str:
    """Write a text's numbers without LaTeX, bold, and signs of other alphabets."""
    if not text.isascii():
        text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
        text = re.sub("[¼-¾⅐-⅞]", lambda m: unicodedata.normalize("NFKC", m[0]), text)
        text = text.translate(_SIGNS)
    text = text.replace("{,}", ",")
    for pattern, written in _REWRITTEN:
        text = pattern.sub(written, text)
    return text


def _value(found: re.Match[str]) -> int | float | None:
    """Return what is written, exactly; None where it is no number, or too large."""
    value, part = _fraction(found["run"]), _fraction(found["part"] or "0")
    if value is None or part is None or found["more"]:
        return None
    tens = int(found["e"] or found["ten"] or _WORDS.get(found["word"], 0))
    value = (value + part) ** int(found["power"] or 1) * Fraction(10) ** tens
    if "-" in (found["sign"], found["minus"]):
        value = -value
    try:
        rounded = float(value)
    except OverflowError:
        return None
    return value.numerator if value.denominator == 1 else rounded


def _fraction(run: str) -> Fraction | None:
    over, _, under = run.replace(" /", "/").replace("/ ", "/").partition("/")
    value, divisor = _decimal(over), _decimal(under or "1")
    return value / divisor if value is not None and divisor else None


def _decimal(run: str) -> Fraction | None:
    if _GROUPED.fullmatch(run):
        run = re.sub("[,'_ ]", "", run)
    elif _GROUPED_BY_POINTS.fullmatch(run):
        run = run.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d*[.,]?\d+", run):
        run = run.replace(",", ".")
    else:
        return None
    return Fraction(run)


# -- json_field ----------------------------------------------------------------------

MOST_OBJECTS: Final = 30
"""How many places of a text that look like a JSON object, and are none, are tried."""


@dataclass(frozen=True)
class _JsonField:
    name: str

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name):
            raise InvalidMixtureError(
                f"json_field: name is {shown(self.name)}; allowed: a field's name."
            )

    def __call__(self, text: str) -> str | None:
        values = [found[self.name] for found in _objects(text) if self.name in found]
        value = values[-1] if values else None
        if isinstance(value, str):
            return exact(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return None if value is None else json.dumps(value, sort_keys=True)


def json_field(name: str) -> Key:
    """Return a key: the value of a field of the JSON object in the text.

    Text around the object does not matter; of several objects the last one with the
    field counts. Texts are compared as by `exact`, `3` equals `3.0` and `"3"`, and
    `null` is no vote.

    Raises:
        InvalidMixtureError: The name is no text, or empty.

    Example:
        >>> key = json_field("city")
        >>> key('Sure: {"city": "Paris.", "sure": true}'), key("Paris")
        ('paris', None)
    """
    return _JsonField(name)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a text, those within others excepted."""
    decoder = json.JSONDecoder()
    at, failed = 0, 0
    while failed < MOST_OBJECTS and (start := _OBJECT.search(text, at)):
        try:
            found, at = decoder.raw_decode(text, start.start())
            yield found
        except (ValueError, RecursionError):  # no JSON, or nested without end
            failed, at = failed + 1, start.end()


_OBJECT: Final = re.compile(r'\{(?=\s{0,99}")')


# -- Votes ---------------------------------------------------------------------------


def compared(response: Response) -> str:
    """Return a response's text, or where it has none, its tool calls written out.

    Example:
        >>> compared({"text": "Paris", "tool_calls": []})
        'Paris'
    """
    if response["text"].strip():
        return response["text"]
    return written_out({**response, "text": ""})


def votes(responses: Sequence[Response], key: Key) -> list[Hashable | None]:
    """Return each response's vote; None for one that has none.

    Raises:
        TypeError: The key returned what cannot be compared.
    """
    found = [key(compared(response)) for response in responses]
    for vote in found:
        if not isinstance(vote, Hashable) or isinstance(vote, Awaitable):
            raise TypeError(
                f"key returned {shown(vote)}; it must return a value that can be "
                "compared and counted, such as text, or None for no vote"
            )
    return found


def counted(votes: Sequence[Hashable | None]) -> dict[Hashable, int]:
    """Count the votes, in the order in which each answer was first given.

    Example:
        >>> counted(["b", "a", None, "b"])
        {'b': 2, 'a': 1}
    """
    return dict(Counter(vote for vote in votes if vote is not None))


def leader(counts: Mapping[Hashable, int]) -> Hashable | None:
    """Return the answer with most votes; a tie goes to the one first given.

    Example:
        >>> leader({"b": 1, "a": 1}), leader({})
        ('b', None)
    """
    return max(counts, key=counts.__getitem__, default=None)
