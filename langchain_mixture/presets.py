"""The papers' pipelines, as plain lists of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, cycle, islice, repeat
from typing import Any, Final, Never

from langchain_mixture.conditions import agreed, decided, lead
from langchain_mixture.errors import refuse
from langchain_mixture.steps import prompts
from langchain_mixture.steps.asking import (
    Aggregate,
    Analyze,
    Propose,
    Rank,
    Refine,
    Synthesize,
)
from langchain_mixture.steps.base import Agent, Condition, Step
from langchain_mixture.steps.checks import check_value
from langchain_mixture.steps.counting import Majority, Medoid
from langchain_mixture.steps.keys import Key, exact
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
        proposers: The models of every layer but the last.
        aggregator: The model that writes the answer.
        layers: The number of layers, 2 or more: `Propose`, then `layers - 2` times
            `Synthesize`, then `Aggregate`.
        temp: Sampling temperature; None for models that refuse one.
        max_tokens: Limit of each reply, in tokens; None = the models' own.
        **unknown: Misspelt keywords, which raise an error.

    Raises:
        InvalidMixtureError: There are fewer than 2 layers, or no proposers.

    Example:
        >>> [type(step).__name__ for step in together_moa()]
        ['Propose', 'Synthesize', 'Aggregate']
    """
    refuse(unknown, together_moa)
    _check(together_moa, proposers=proposers, aggregator=aggregator, layers=layers)
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
    _check(moa_lite, proposers=proposers, aggregator=aggregator)
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
    Qwen1.5-110B-Chat score 65.7 on AlpacaEval 2.0 (LC); the 2-layer mixture of six
    models scores 59.1.

    Args:
        model: The model that is sampled.
        samples: The number of samples, 1 or more.
        aggregator: The model that fuses the samples; None = the same one.
        temp: Sampling temperature; None for models that refuse one.
        max_tokens: Limit of each reply, in tokens; None = the models' own.
        **unknown: Misspelt keywords, which raise an error.

    Example:
        >>> self_moa("openai:gpt-4o", samples=4)[0].bounds(0)[1]
        4
    """
    refuse(unknown, self_moa)
    fuser = model if aggregator is None else aggregator
    _check(self_moa, model=model, samples=samples, aggregator=fuser)
    # Self-MoA is MoA-Lite with one model as all of its proposers.
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
        proposers: The models that propose.
        aggregator: The model that writes the answer.
        rate: Probability in [0, 1] with which each proposal is dropped.
        seed: Makes shuffling and dropping repeatable; None = random each time.
        temp: Sampling temperature; None for models that refuse one.
        max_tokens: Limit of each reply, in tokens; None = the models' own.
        **unknown: Misspelt keywords, which raise an error.

    Example:
        >>> [type(step).__name__ for step in robust_moa(["a", "b"], "a")]
        ['Propose', 'Shuffle', 'Dropout', 'Aggregate']
    """
    refuse(unknown, robust_moa)
    _check(robust_moa, proposers=proposers, aggregator=aggregator)
    propose, aggregate = moa_lite(
        proposers, aggregator, temp=temp, max_tokens=max_tokens
    )
    return [propose, Shuffle(seed=seed), Dropout(rate, seed=seed), aggregate]


def _check(preset: Callable[..., object], **arguments: object) -> None:
    """Check arguments by the preset's own names, which the steps do not know."""
    for name, value in arguments.items():
        check_value(value, name, preset.__name__)


def fusion(
    agents: Sequence[Agent],
    judge: Agent,
    aggregator: Agent | None = None,
    *,
    temp: float | None = None,
    max_tokens: int | None = None,
) -> list[Step]:
    """Fusion: a panel, a judge who compares, and a writer; n + 2 calls.

    `Propose`, `Analyze`, `Aggregate`. What OpenRouter sells as Fusion since June 2026:
    on DRACO (100 tasks, run by the vendor, no interval) two models fused score
    69.0, the better one alone 65.3; Opus fused with itself 65.5, alone 58.8. No one has
    published what the judge adds to a panel and a writer.

    Args:
        agents: Who proposes; the same one several times is sampled as often.
        judge: Who compares the proposals.
        aggregator: Who writes the answer; None = the judge.
        temp: Sampling temperature of the proposals; None = the models' own.
        max_tokens: Limit of each reply, in tokens; None = the models' own.

    Example:
        >>> [type(step).__name__ for step in fusion(["a", "b"], "c")]
        ['Propose', 'Analyze', 'Aggregate']
    """
    writer = judge if aggregator is None else aggregator
    return [
        Propose(agents, temp=temp, max_tokens=max_tokens),
        Analyze(judge, max_tokens=max_tokens),
        Aggregate(writer, max_tokens=max_tokens),
    ]


def critique(
    agent: Agent,
    reviewer: Agent,
    *,
    temp: float | None = None,
    max_tokens: int | None = None,
) -> list[Step]:
    """Critique: a draft, a review by another model, the revised answer; 3 calls.

    `Propose`, `Analyze` with a rubric (sources, completeness, grounding), `Refine`. On
    the market the reviewer is a model of another lab. No figures are public; a reviewer
    that is weaker than the writer can make an answer worse.

    Args:
        agent: Who writes the draft, and revises it.
        reviewer: Who reviews it.
        temp: Sampling temperature of the draft; None = the model's own.
        max_tokens: Limit of each reply, in tokens; None = the models' own.

    Example:
        >>> [type(step).__name__ for step in critique("a", "b")]
        ['Propose', 'Analyze', 'Refine']
    """
    return [
        Propose([agent], temp=temp, max_tokens=max_tokens),
        Analyze(reviewer, prompts.REVIEW, max_tokens=max_tokens),
        Refine([agent], max_tokens=max_tokens),
    ]


def council(
    agents: Sequence[Agent],
    aggregator: Agent,
    *,
    temp: float | None = None,
    max_tokens: int | None = None,
) -> list[Step]:
    """Council: every member answers and ranks the others; 2n + 1 calls.

    `Propose`, `Rank` by all members, `Aggregate`. Each member ranks the answers of the
    others, without names; the aggregator is shown all of them, best first. After
    Karpathy's llm-council (2025), a program without figures.

    Args:
        agents: The members: who proposes, and who judges.
        aggregator: Who writes the answer.
        temp: Sampling temperature of the proposals; None = the models' own.
        max_tokens: Limit of each reply, in tokens; None = the models' own.

    Example:
        >>> [type(step).__name__ for step in council(["a", "b", "c"], "a")]
        ['Propose', 'Rank', 'Aggregate']
    """
    return [
        Propose(agents, temp=temp, max_tokens=max_tokens),
        Rank(agents, len(agents), max_tokens=max_tokens),
        Aggregate(aggregator, prompts.COUNCIL, max_tokens=max_tokens),
    ]


def recursive(
    agents: Sequence[Agent],
    samples: int,
    of: int,
    rounds: int,
    *,
    seed: int | None = None,
    temp: float | None = None,
    max_tokens: int | None = None,
) -> list[Step]:
    """Recursive self-aggregation: samples, fused by random groups, again and again.

    `Propose`, then `rounds` times `Synthesize(of=of)`, then `Medoid`: the response most
    like all others is the answer (the paper draws one). `samples` x (rounds + 1) calls.
    Venkatraman et al. 2025, arXiv 2509.26626: one model, 16 samples, groups of 4; the
    authors report that Qwen3-4B rises from 47 to 73 on AIME-25. Not known: what it
    gains on open text, or with several models.

    Args:
        agents: Who is asked, in turn: one model, or several.
        samples: How many responses each round has; 1 or more.
        of: How many responses each call is shown, drawn at random; 1 or more.
        rounds: How often they are fused; 1 or more.
        seed: Another seed draws other groups.
        temp: Sampling temperature; None = the models' own.
        max_tokens: Limit of each reply, in tokens; None = the models' own.

    Raises:
        InvalidMixtureError: A number is less than 1, or there are no agents.

    Example:
        >>> from langchain_mixture import count_calls
        >>> count_calls(recursive(["a"], samples=4, of=2, rounds=3))
        16
    """
    for value, name in ((samples, "samples"), (of, "of"), (rounds, "rounds")):
        check_value(value, name, "recursive")
    check_value(agents, "agents", "recursive")
    asked = list(islice(cycle(agents), samples))
    return [
        Propose(asked, temp=temp, max_tokens=max_tokens),
        *(
            Synthesize(asked, temp=temp, max_tokens=max_tokens, of=of, seed=seed)
            for _ in range(rounds)
        ),
        Medoid(),
    ]


def panel_vote(
    agents: Sequence[Agent],
    key: Key,
    *,
    stop: bool = True,
    temp: float | None = None,
    max_tokens: int | None = None,
) -> list[Step]:
    """Ask a panel and count: the first answer with most votes, unchanged; n calls.

    `Propose`, then one `Propose` more for each further agent, then `Majority`. First
    half of the panel is asked, then one agent after the other, until no answer can
    overtake the leader. The answer is that of the whole vote. On 5,000 questions of
    MMLU-Pro, as recorded by its authors, the best four of ten models are right on
    73.5 %, for 2.5 calls, the best one on 71.6 %; more and weaker members lose (all
    ten: 70.1 %).

    Args:
        agents: The panel, the best first: ties go to who stands first, which is worth
            as much as the vote itself.
        key: From a text to what is compared, such as `letter`.
        stop: Whether asking ends when the outcome is decided; False = all are asked at
            once, which is faster and costs more.
        temp: Sampling temperature; None = the models' own.
        max_tokens: Limit of each reply, in tokens; None = the models' own.

    Raises:
        InvalidMixtureError: There are no agents, or the key is no function.

    Example:
        >>> from langchain_mixture import letter
        >>> [type(step).__name__ for step in panel_vote(["a", "b", "c"], letter)]
        ['Propose', 'Propose', 'Majority']
    """
    _check(panel_vote, agents=agents, key=key)
    # Fewer than half of the votes decide nothing.
    sizes = ((len(agents) + 1) // 2, 1) if stop else (len(agents),)
    decision = decided(of=len(agents), key=key)
    waves = _waves(agents, sizes, decision, temp=temp, max_tokens=max_tokens)
    return [*waves, Majority(key)]


def self_consistency(
    model: Agent,
    samples: int = 10,
    key: Key = exact,
    *,
    stop: Condition | None = lead(3),  # noqa: B008  # conditions are frozen values
    waves: Sequence[int] = (3, 2),
    temp: float | None = None,
    max_tokens: int | None = None,
) -> list[Step]:
    """Self-consistency: samples of one model, and the answer that most of them give.

    Wang et al. 2022, arXiv 2203.11171. `Propose` in waves, then `Majority`; `samples`
    calls at most. On date understanding (189 questions with ten samples of one model
    each, chains of thought) ten samples are right 8.5 points more often than one, and
    9.0 where it stops at a lead of three, for 4.9 calls; the difference of the two is
    chance. At temperature 0.2, or on free text, it gains nothing.

    Args:
        model: The model that is sampled.
        samples: The most samples; 1 or more.
        key: From a text to what is compared.
        stop: When the samples so far are enough; None = never. It is asked after each
            wave. If its own key is `exact`, it takes this preset's.
        waves: How many samples are asked at once; the last size is repeated.
        temp: Sampling temperature; None = the model's own.
        max_tokens: Limit of each reply, in tokens; None = the model's own.

    Raises:
        InvalidMixtureError: An argument cannot be used.

    Example:
        >>> [len(step.agents) for step in self_consistency("a", samples=6)[:-1]]
        [3, 2, 1]
    """
    _check(self_consistency, model=model, samples=samples, key=key, unless=stop)
    _check(self_consistency, waves=waves)
    if isinstance(stop, agreed | decided | lead) and stop.key is exact:
        stop = replace(stop, key=key)
    sizes = waves if stop else (samples,)
    asked = _waves([model] * samples, sizes, stop, temp=temp, max_tokens=max_tokens)
    return [*asked, Majority(key)]


def cascade(
    cheap: Sequence[Agent],
    strong: Agent,
    key: Key,
    *,
    temp: float | None = None,
    max_tokens: int | None = None,
) -> list[Step]:
    """Ask a strong model only where the cheap ones differ; n or n + 1 calls.

    `Propose`, then `Propose([strong])` unless all cheap models give the same answer,
    which then is the first one's, unchanged. The strong model does not see theirs, and
    its answer streams. On 5,000 questions of MMLU-Pro, as recorded by its authors,
    gemini-1.5-flash and Llama-3.1-70B before gemini-1.5-pro are right on
    73.1 %, gemini-1.5-pro alone on 71.6 %; it is asked on 36 % of the
    questions.

    Args:
        cheap: The models that are always asked; two or more.
        strong: The model that answers where they differ.
        key: From a text to what is compared. Free texts always differ.
        temp: Sampling temperature; None = the models' own.
        max_tokens: Limit of each reply, in tokens; None = the models' own.

    Raises:
        InvalidMixtureError: There are fewer than two cheap models, or the key is no
            function.

    Example:
        >>> from langchain_mixture import letter
        >>> cascade(["a", "b"], "c", letter)[-1]
        Propose(c, unless=agreed(key=letter))
    """
    _check(cascade, cheap=cheap, strong=strong, key=key)
    differ = agreed(key=key)
    return [
        Propose(cheap, temp=temp, max_tokens=max_tokens),
        Propose([strong], temp=temp, max_tokens=max_tokens, unless=differ),
    ]


def _waves(
    agents: Sequence[Agent],
    sizes: Sequence[int],
    stop: Condition | None,
    *,
    temp: float | None,
    max_tokens: int | None,
) -> list[Propose]:
    """Return steps that ask the agents in waves, the last size repeated, until a stop.

    Each wave is a checkpoint: a run that is resumed asks nothing of it again.
    """
    left = list(agents)
    found: list[Propose] = []
    for size in chain(sizes, repeat(sizes[-1])):
        wave, left = left[:size], left[size:]
        later: dict[str, Any] = {"add": True, "unless": stop} if found else {}
        found.append(Propose(wave, temp=temp, max_tokens=max_tokens, **later))
        if not left:
            return found
    raise AssertionError  # pragma: no cover  # the sizes never end
