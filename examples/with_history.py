"""What each step did and cost, with mixture-llm's call. Needs GROQ_API_KEY."""

import asyncio
import os

from langchain_openai import ChatOpenAI

from langchain_mixture import Aggregate, Propose, Rank, run

client = ChatOpenAI(
    base_url=os.environ.get("GROQ_BASE_URL", "https://api.groq.com/openai/v1"),
    api_key=os.environ["GROQ_API_KEY"],
)
pipeline = [
    Propose(["llama-3.3-70b-versatile", "llama-3.1-8b-instant", "qwen/qwen3-32b"]),
    Rank("llama-3.3-70b-versatile", n=2),
    Aggregate("llama-3.3-70b-versatile"),
]
text, history = asyncio.run(run(pipeline, "What is quantum computing?", client))
print(text, end="\n\n")
for row in history:
    print(f"{row['name']}: {row['step_time']:.2f} s, {len(row['outputs'])} left")
    for call in row["llm_calls"]:
        outcome = call.get("error", "ok")
        tokens = f"{call['in_tokens']} + {call['out_tokens']} tokens"
        print(f"  {call['model']}: {call['time']:.2f} s, {tokens}, {outcome}")
