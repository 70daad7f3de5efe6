"""The answer, token by token as it is written. Needs OPENAI_API_KEY."""

from langchain_mixture import ChatMixture, self_moa

model = ChatMixture(self_moa("openai:gpt-4o-mini", samples=3))
for chunk in model.stream("What is quantum computing?"):
    print(chunk.text, end="", flush=True)
print()
