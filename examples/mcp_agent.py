"""An agent whose tools are those of MCP servers; the tool of this one runs in another process.

    python examples/mcp_agent.py artifacts/glm4-sample-int4 "Look up Micah 6:8."

It needs `pip install mcp`. The configuration has the format of other MCP hosts, so any MCP server
can be added. In a terminal, `glm-run chat FOLDER --tools examples/mcp/agent.json` does the same.
"""

import json
import sys
from pathlib import Path

import glm_runtime
from glm_agents.configuration import read_configuration
from glm_agents.limits import AgentLimits
from glm_agents.loop import Agent, Returned, open_tools
from glm_agents.strategy import choose_strategy
from glm_runtime import ChatOptions, Conversation, GlmRuntimeError, Piece

SERVER = Path(__file__).parent / "mcp" / "verses.py"
CONFIGURATION = {"mcpServers": {"verses": {"command": sys.executable, "args": [str(SERVER)]}}}
LIMITS = AgentLimits(max_turns=4, call_seconds=30)


def main(folder: str, question: str) -> None:
    """Answer one question, with as many tool calls as the model needs and the limits allow."""
    model = glm_runtime.load(folder)
    configuration = read_configuration(json.dumps(CONFIGURATION), "the configuration")
    with open_tools(configuration, LIMITS) as tools:
        strategy = choose_strategy(model.chat_template, tools.toolbox.offers)
        options = ChatOptions(tools=strategy.tools, is_sanitized=True)
        # Greedy decoding (temperature 0) always chooses the most probable call.
        conversation = Conversation(model, temperature=0, max_new_tokens=200, options=options)
        agent = Agent(conversation, tools, LIMITS)
        for event in agent.follow(conversation.ask(question)):
            if isinstance(event, Piece):
                print(event.text, end="", flush=True)
            elif isinstance(event, Returned):
                print(f"{event.call.name}({event.call.arguments}) -> {event.observation.text}")
        print()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except (GlmRuntimeError, OSError) as error:
        sys.exit(f"Error: {error}")
