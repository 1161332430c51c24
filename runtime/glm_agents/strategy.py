"""How the loop treats a model, by what its chat template knows.

- GLM-Z1-Rumination's template lists `search`, `click`, `open` and `finish` itself, and writes no
  other tool. Servers offer the first three by these names; `finish` is run by nobody and leads to
  the report.
- GLM-4 All Tools describes `python`, `simple_browser` and `cogview` itself, in a way of its own. A
  tool that is offered by one of these names is declared by its type alone.
- All other templates write every tool from its name, description and schema.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glm_agents.offers import ToolOffer
from glm_runtime.text.chat_messages import Tool
from glm_runtime.text.chat_template import ChatTemplate

FINISH = "finish"


@dataclass(frozen=True)
class Strategy:
    """How one model uses the tools that are offered.

    Attributes:
        tools: the tools to declare in `ChatOptions.tools`.
        finishing: names of tools that end the loop; see `Turns`.
        notes: sentences about tools that the model cannot call, or that nobody offers.
    """

    tools: tuple[Tool, ...]
    finishing: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def choose_strategy(template: ChatTemplate | None, offers: Sequence[ToolOffer]) -> Strategy:
    """Return how the model of a chat template uses tools."""
    features = None if template is None else template.features
    if features is not None and features.own_tools:
        return _follow_template(tuple(features.own_tools), offers)
    built_in = () if features is None else features.built_in_tools
    return Strategy(
        tuple(
            {"type": offer.name} if offer.name in built_in else offer.describe() for offer in offers
        )
    )


def _follow_template(own: Sequence[str], offers: Sequence[ToolOffer]) -> Strategy:
    """Return how a model uses the tools that its template lists, and no others."""
    offered = {offer.name for offer in offers}
    listed = ", ".join(own)
    notes = [
        f"the model cannot call {name}, since its chat template lists {listed} alone; leave it out."
        for name in sorted(offered - set(own))
    ]
    notes += [
        f"the model's chat template lists the tool {name}, which no server offers; add a server."
        for name in own
        if name not in offered and name != FINISH
    ]
    return Strategy((), frozenset({FINISH}) & set(own) - offered, tuple(notes))
