"""The settings of the server, and the limits of what a request may hold."""

from dataclasses import dataclass, field
from pathlib import Path

from glm_agents.configuration import AgentConfiguration
from glm_agents.limits import AgentLimits
from glm_runtime.errors import SamplingError
from glm_runtime.graph.inference import DeviceChoice
from glm_runtime.graph.rotary import RopeScaling

# Limits of one request. They bound the work before the model reads anything.
MAX_BODY_BYTES = 8 << 20
MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_CHOICES = 16
MAX_PROMPTS = 128
MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 1024
MAX_BIASES = 1024
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens, who may use it, and how much it computes at once.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 lets the system choose.
        api_keys: keys of which a client must send one; none admits everyone.
        allowed_hosts: names that the `Host` header may have besides addresses, `localhost` and
            `host`, where no key is set.
        cors_origins: origins whose pages may call the server from a browser; `*` admits all.
        parallel: largest number of answers at once, for each model.
        max_waiting: largest number of requests that wait for a place, for each model.
        context_bytes: memory for KV caches and the prefix cache, for each model; `None` takes half
            of what is free after loading.
        prompt_cache: folder that keeps the prefix cache across restarts; `None` keeps it in memory.
        prompt_cache_bytes: largest number of bytes in that folder.
        device: device to run on.
        threads: number of CPU threads; `None` takes the physical cores.
        has_huge_pages: whether to move the weights onto huge pages (Linux).
        cuda_graph: whether to record a CUDA graph; `None` leaves it to the folder.
        rope_scaling: rotary settings instead of the folders'; `None` keeps them.
        idle_unload_seconds: time without a request after which a model is unloaded; `None` never.
        grace_seconds: time that running answers get when the server is stopped.
        logs_prompts: whether texts of prompts and answers are logged.
        agents: MCP servers whose tools clients may ask for; `None` offers none.
        agent_limits: limits of the calls of one response.

    Raises:
        SamplingError: a value is outside its range.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    parallel: int = 4
    max_waiting: int = 64
    context_bytes: int | None = None
    prompt_cache: Path | None = None
    prompt_cache_bytes: int = 10 * 10**9
    device: DeviceChoice = "auto"
    threads: int | None = None
    has_huge_pages: bool = True
    cuda_graph: bool | None = None
    rope_scaling: RopeScaling | None = None
    idle_unload_seconds: float | None = None
    grace_seconds: float = 30.0
    logs_prompts: bool = False
    agents: AgentConfiguration | None = None
    agent_limits: AgentLimits = field(default_factory=AgentLimits)

    def __post_init__(self) -> None:
        for name, least in (("parallel", 1), ("max_waiting", 0), ("grace_seconds", 0)):
            value = getattr(self, name)
            if value < least:
                raise SamplingError(
                    f"{name} is {value} where {least} or more is expected; correct it."
                )
        if not all(key.strip() and key.isascii() and key.isprintable() for key in self.api_keys):
            raise SamplingError(
                "an API key is empty or has characters outside of ASCII, which no HTTP header can "
                "hold; choose another key."
            )
