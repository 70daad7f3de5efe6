"""A mixture for an agent's hard questions alone. Needs OPENAI_API_KEY."""

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelChoice, ModelRouterMiddleware
from langchain.chat_models import init_chat_model
from langchain_core.decisions import BaseDecisionModel, ChoiceAnswer, ClassifierResponse

from langchain_mixture import ChatMixture, self_moa


class Judge(BaseDecisionModel):
    """A small chat model that chooses a label; the router asks it once a turn."""

    model: str = "openai:gpt-4o-mini"
    _provider = "openai"

    def _classify(self, state: Any, questions: Any) -> ClassifierResponse:
        ((name, question),) = questions.items()
        choice = {"choice": {"enum": list(question.criteria)}}
        schema = {"title": "choose", "type": "object", "properties": choice}
        model = init_chat_model(self.model)
        chooser = model.with_structured_output(schema, method="function_calling")
        said: Any = chooser.invoke(f"{question}\n\n{state.text}")
        answer = ChoiceAnswer(type="choice", probabilities={}, confidence=1, **said)
        return ClassifierResponse(model=self.model, answers={name: answer})


choices = {
    "easy": ModelChoice("openai:gpt-4o-mini", "A fact, or a short task."),
    "hard": ModelChoice(ChatMixture(self_moa("openai:gpt-4o")), "Needs much thought."),
}
router = ModelRouterMiddleware(
    choices=choices, instructions="How hard is it?", classifier=Judge()
)
agent = create_agent("openai:gpt-4o-mini", middleware=[router])
state = agent.invoke({"messages": [{"role": "user", "content": "Why is it so?"}]})
print(state["messages"][-1].text)
