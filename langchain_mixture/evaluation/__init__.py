"""Does a mixture beat its best member, on your questions, and at what cost?

`compare` asks all candidates the same questions and gives a verdict on each mixture,
`choose` picks the members of a panel from recorded answers, and `reliability` finds the
member that cannot be trusted. It needs the extra `evaluation`.
"""

from langchain_mixture.evaluation.panel import (
    Ceiling,
    Panel,
    Reliability,
    choose,
    reliability,
)
from langchain_mixture.evaluation.verdict import Verdict, verdicts

__all__ = [
    "Ceiling",
    "Panel",
    "Reliability",
    "Verdict",
    "choose",
    "reliability",
    "verdicts",
]
