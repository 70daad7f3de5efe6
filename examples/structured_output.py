"""An answer in a schema: the advisers write freely. Needs OPENAI_API_KEY."""

from pydantic import BaseModel

from langchain_mixture import ChatMixture, self_moa


class Verdict(BaseModel):
    """A judgement of a claim."""

    is_true: bool
    reason: str


model = ChatMixture(self_moa("openai:gpt-4o-mini", samples=3))
print(model.with_structured_output(Verdict).invoke("Is the sky of Mars blue at noon?"))
