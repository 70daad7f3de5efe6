"""The papers' pipelines, as plain lists of steps to use, print, or cut apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Never

from langchain_mixture.errors import InvalidMixtureError, refuse
from langchain_mixture.steps.asking import Aggregate, Propose, Synthesize
from langchain_mixture.steps.base import Agent, Step
from langchain_mixture.steps.transforms import Dropout, Shuffle

TOGETHER_PROPOSERS: Final = (
    "wizardlm-2-8x22b",
    "qwen1.5-110b-chat",
    "qwen1.5-72b-chat",
    "llama-3-70b-instruct",
    "mixtral-8x22b-instruct",
    "dbrx-instruct",
)
"""The six proposers of Wang et al. 2024, in the paper's order."""


def together_moa(
    proposers: Sequence[Agent] = TOGETHER_PROPOSERS,
    aggregator: Agent = "qwen1.5-110b-chat",
    layers: int = 3,
    *,
    temp: float | None = 0.7,
    max_tokens: int | None = 2048,
    **unknown: Never,
) -> list[Step]:
    """Mixture-of-Agents: 3 layers, 13 calls, 65.1 ± 0.6 on AlpacaEval 2.0 (LC).

    Wang et al. 2024, arXiv 2406.04692; GPT-4o alone scores 57.5 there.

    Args:
        proposers: Who proposes, and who synthesizes in the middle layers.
        aggregator: Who writes the answer.
        layers: 2 or more, the aggregator's included: `Propose`, then `layers - 2`
            times `Synthesize`, then `Aggregate`.
        temp: Sampling temperature; None for models that refuse one.
        max_tokens: Limit of each reply, in tokens; None = the models' own.
        **unknown: Misspelt keywords, which are refused.

    Raises:
        InvalidMixtureError: Fewer than 2 layers, or no proposers.

    Example:
        >>> [type(step).__name__ for step in together_moa()]
        ['Propose', 'Synthesize', 'Aggregate']
    """
    refuse(unknown, together_moa)
    if layers < 2:
        raise InvalidMixtureError(f"layers is {layers}; allowed: 2 or more.")
    return [
        Propose(proposers, temp=temp, max_tokens=max_tokens),
        *(
            Synthesize(proposers, temp=temp, max_tokens=max_tokens)
            for _ in range(layers - 2)
        ),
        Aggregate(aggregator, temp=temp, max_tokens=max_tokens),
    ]


def moa_lite(
    proposers: Sequence[Agent] = TOGETHER_PROPOSERS,
    aggregator: Agent = "qwen1.5-72b-chat",
    *,
    temp: float | None = 0.7,
    max_tokens: int | None = 2048,
    **unknown: Never,
) -> list[Step]:
    """MoA-Lite: 2 layers, 7 calls, 59.3 ± 0.2 on AlpacaEval 2.0 (LC).

    Wang et al. 2024, arXiv 2406.04692. The arguments are those of `together_moa`.

    Example:
        >>> [type(step).__name__ for step in moa_lite()]
        ['Propose', 'Aggregate']
    """
    refuse(unknown, moa_lite)
    return together_moa(proposers, aggregator, 2, temp=temp, max_tokens=max_tokens)


def self_moa(
    model: Agent,
    samples: int = 6,
    aggregator: Agent | None = None,
    *,
    temp: float | None = 0.7,
    max_tokens: int | None = 2048,
    **unknown: Never,
) -> list[Step]:
    """Self-MoA: several samples of one strong model, fused.

    Li et al. 2025, arXiv 2502.00674: six samples of WizardLM-2-8x22B fused by
    Qwen1.5-110B-Chat score 65.7 on AlpacaEval 2.0 (LC), the 2-layer mixture of six
    models 59.1.

    Args:
        model: Who proposes.
        samples: How many times; 1 or more.
        aggregator: Who fuses the samples; None = the same model.
        temp: Sampling temperature; None for models that refuse one.
        max_tokens: Limit of each reply, in tokens; None = the models' own.
        **unknown: Misspelt keywords, which are refused.

    Example:
        >>> self_moa("openai:gpt-4o", samples=4)[0].bounds(0)[1]
        4
    """
    refuse(unknown, self_moa)
    if samples < 1:
        raise InvalidMixtureError(f"samples is {samples}; allowed: 1 or more.")
    fuser = model if aggregator is None else aggregator
    return moa_lite([model] * samples, fuser, temp=temp, max_tokens=max_tokens)


def robust_moa(
    proposers: Sequence[Agent],
    aggregator: Agent,
    *,
    rate: float = 0.2,
    seed: int | None = None,
    temp: float | None = 0.7,
    max_tokens: int | None = 2048,
    **unknown: Never,
) -> list[Step]:
    """MoA-Lite with shuffled and dropped proposals, against position bias.

    The pipeline is mixture-llm's; no paper measures it.

    Args:
        proposers: Who proposes.
        aggregator: Who writes the answer.
        rate: Probability in [0, 1] with which each proposal is dropped.
        seed: Makes what is drawn repeatable; None = another draw each time.
        temp: Sampling temperature; None for models that refuse one.
        max_tokens: Limit of each reply, in tokens; None = the models' own.
        **unknown: Misspelt keywords, which are refused.

    Example:
        >>> [type(step).__name__ for step in robust_moa(["a", "b"], "a")]
        ['Propose', 'Shuffle', 'Dropout', 'Aggregate']
    """
    refuse(unknown, robust_moa)
    propose, aggregate = moa_lite(
        proposers, aggregator, temp=temp, max_tokens=max_tokens
    )
    return [propose, Shuffle(seed=seed), Dropout(rate, seed=seed), aggregate]
