"""A comparison in a process of its own, to be killed: the stub's address, the file."""

import sys

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_mixture import Aggregate, Propose, Refine, Shuffle, Synthesize
from langchain_mixture.evaluation import compare, matches

url, save = sys.argv[1:]
PANEL = [f"m{number}" for number in range(6)]
client = {
    name: ChatOpenAI(model=name, base_url=url, api_key=SecretStr("none"), max_retries=0)
    for name in PANEL
}
found = compare(
    {
        "fused": [Propose(PANEL), Aggregate("m0")],
        "deep": [Propose(PANEL), Shuffle(), Synthesize(["m1", "m2"]), Aggregate("m0")],
        "refined": [Propose(PANEL), Refine(["m3"]), Aggregate("m0")],
    },
    [{"input": f"Question {number}?", "gold": "A"} for number in range(12)],
    matches(str.strip),
    client=client,
    save=save,
    concurrency=4,
)
print(found.calls)
