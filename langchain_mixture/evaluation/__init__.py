"""Does a mixture beat its best member, on your questions, and at what cost?

`compare` asks all candidates the same questions and gives a verdict on each mixture,
`choose` picks the members of a panel from recorded answers, and `reliability` finds the
member that cannot be trusted. It needs the extra `evaluation`.
"""

from langchain_mixture.evaluation.comparing import acompare, compare
from langchain_mixture.evaluation.comparison import Comparison
from langchain_mixture.evaluation.found import Answer, Compared
from langchain_mixture.evaluation.panel import (
    Ceiling,
    Panel,
    Reliability,
    choose,
    reliability,
)
from langchain_mixture.evaluation.scores import judged, matches
from langchain_mixture.evaluation.verdict import Verdict, verdicts

__all__ = [
    "Answer",
    "Ceiling",
    "Compared",
    "Comparison",
    "Panel",
    "Reliability",
    "Verdict",
    "acompare",
    "choose",
    "compare",
    "judged",
    "matches",
    "reliability",
    "verdicts",
]
