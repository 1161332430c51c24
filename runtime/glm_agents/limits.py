"""The limits of one question: turns, seconds, and sizes of what strangers send."""

from dataclasses import dataclass

from glm_agents.errors import AgentError

# Limits of what an MCP server may declare. Prompts hold all of it.
MAX_TOOLS = 128
MAX_LISTED = 4096  # tools that are read at all, before the list is cut
MAX_DESCRIPTION_CHARACTERS = 4096
MAX_SCHEMA_CHARACTERS = 16_384
MAX_SCHEMA_DEPTH = 16
MAX_HTTP_BYTES = 32 << 20  # one response that is no stream of events
DEFAULT_TURNS = 35  # as many as GLM-Z1-Rumination takes


@dataclass(frozen=True)
class AgentLimits:
    """How long the loop may go on for one question.

    Attributes:
        max_turns: largest number of answers that call tools; then the model must answer.
        start_seconds: time in which an MCP server must start and list its tools.
        call_seconds: time for one call.
        total_seconds: time for all calls of one question together, without the model's own.
        result_characters: largest length of a result; the rest is cut with a note.

    Raises:
        AgentError: a value is not above 0.
    """

    max_turns: int = DEFAULT_TURNS
    start_seconds: float = 30.0
    call_seconds: float = 60.0
    total_seconds: float = 900.0
    result_characters: int = 16_384

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise AgentError(
                    f"{name} is {value} where a value above 0 is expected; correct it."
                )
