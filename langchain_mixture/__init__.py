"""Mixture-of-Agents for LangChain and LangGraph.

Several models answer, other models improve, judge and fuse the answers. A pipeline is
a list of steps: `ChatMixture` makes a chat model of it, `create_mixture` a LangGraph
graph, and `run` answers one question.
"""

from langchain_mixture.agents.resolve import Client
from langchain_mixture.chat import ChatMixture
from langchain_mixture.errors import (
    InvalidMixtureError,
    MixtureError,
    NoResponsesError,
    StepFailedError,
)
from langchain_mixture.graph import create_mixture, run
from langchain_mixture.plan import count_calls
from langchain_mixture.presets import (
    TOGETHER_PROPOSERS,
    moa_lite,
    robust_moa,
    self_moa,
    together_moa,
)
from langchain_mixture.records import (
    Call,
    HistoryRow,
    LLMCall,
    Reply,
    Response,
    Result,
    Usage,
    answered,
)
from langchain_mixture.steps.asking import (
    Aggregate,
    Propose,
    Rank,
    Refine,
    Synthesize,
    Vote,
)
from langchain_mixture.steps.base import Agent, Step
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
    "Call",
    "ChatMixture",
    "Client",
    "Dropout",
    "Filter",
    "HistoryRow",
    "InvalidMixtureError",
    "LLMCall",
    "Map",
    "MixtureError",
    "NoResponsesError",
    "Propose",
    "Rank",
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
    "count_calls",
    "create_mixture",
    "moa_lite",
    "robust_moa",
    "run",
    "self_moa",
    "together_moa",
]
