"""Mixture-of-Agents for LangChain and LangGraph.

Several models answer, other models improve, judge and fuse the answers. A pipeline is
a list of steps: `ChatMixture` makes a chat model of it, `create_mixture` a LangGraph
graph, and `run` answers one question.
"""

from langchain_mixture.advice import without_tools
from langchain_mixture.agents.resolve import Client
from langchain_mixture.chat import ChatMixture
from langchain_mixture.errors import (
    InvalidMixtureError,
    MixtureError,
    NoResponsesError,
    StepFailedError,
)
from langchain_mixture.estimates import Estimate, estimate
from langchain_mixture.graph import create_mixture, run
from langchain_mixture.plan import count_calls
from langchain_mixture.presets import (
    TOGETHER_PROPOSERS,
    cascade,
    council,
    critique,
    fusion,
    moa_lite,
    panel_vote,
    recursive,
    robust_moa,
    self_consistency,
    self_moa,
    together_moa,
)
from langchain_mixture.prices import Cost, Prices, cost
from langchain_mixture.records import (
    Call,
    HistoryRow,
    Kept,
    LLMCall,
    Reply,
    Response,
    Result,
    Usage,
    answered,
)
from langchain_mixture.seeing import Recording, watch
from langchain_mixture.steps.asking import (
    Aggregate,
    Analyze,
    Propose,
    Rank,
    Refine,
    Synthesize,
    Vote,
)
from langchain_mixture.steps.base import Agent, Step
from langchain_mixture.steps.counting import Diverse, Majority, Medoid
from langchain_mixture.steps.keys import exact, json_field, letter, number
from langchain_mixture.steps.program import until
from langchain_mixture.steps.transforms import (
    Dropout,
    Filter,
    Map,
    Sample,
    Shuffle,
    Take,
)

__all__ = [
    "TOGETHER_PROPOSERS",
    "Agent",
    "Aggregate",
    "Analyze",
    "Call",
    "ChatMixture",
    "Client",
    "Cost",
    "Diverse",
    "Dropout",
    "Estimate",
    "Filter",
    "HistoryRow",
    "InvalidMixtureError",
    "Kept",
    "LLMCall",
    "Majority",
    "Map",
    "Medoid",
    "MixtureError",
    "NoResponsesError",
    "Prices",
    "Propose",
    "Rank",
    "Recording",
    "Refine",
    "Reply",
    "Response",
    "Result",
    "Sample",
    "Shuffle",
    "Step",
    "StepFailedError",
    "Synthesize",
    "Take",
    "Usage",
    "Vote",
    "answered",
    "cascade",
    "cost",
    "council",
    "count_calls",
    "create_mixture",
    "critique",
    "estimate",
    "exact",
    "fusion",
    "json_field",
    "letter",
    "moa_lite",
    "number",
    "panel_vote",
    "recursive",
    "robust_moa",
    "run",
    "self_consistency",
    "self_moa",
    "together_moa",
    "until",
    "watch",
    "without_tools",
]
