"""mixture-llm's LiteLLM client, run where litellm is installed: prints the answer."""

import asyncio
import warnings
from typing import Any

warnings.simplefilter("ignore")  # litellm's own are not ours to mend

from litellm import acompletion  # noqa: E402

from langchain_mixture import Aggregate, Propose, run  # noqa: E402


async def groq_client(
    model: str, messages: list[Any], temp: float, max_tokens: int
) -> tuple[str, int, int]:
    """Ask Groq, or what GROQ_API_BASE names, through LiteLLM."""
    answer: Any = await acompletion(
        model=f"groq/{model}",
        messages=messages,
        temperature=temp,
        max_tokens=max_tokens,
    )
    usage = answer.usage
    text = answer.choices[0].message.content
    return text, usage.prompt_tokens, usage.completion_tokens


pipeline = [
    Propose(["llama-3.3-70b-versatile", "qwen/qwen3-32b"], temp=0.7, max_tokens=512),
    Aggregate("llama-3.3-70b-versatile"),
]

if __name__ == "__main__":
    text, history = asyncio.run(run(pipeline, "What is an ion?", groq_client))
    print(text, sum(c["in_tokens"] for row in history for c in row["llm_calls"]))
