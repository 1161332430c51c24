"""`python -m benchmarks.speed`: how fast our runtime reads prompts and writes tokens."""

import click

from benchmarks.speed.decode import decode
from benchmarks.speed.evaluation import evaluation
from benchmarks.speed.kv_cache import kv_cache
from benchmarks.speed.long_prompt import long_prompt
from benchmarks.speed.speculation import speculation
from benchmarks.speed.structured import structured

speed = click.Group(
    "speed",
    commands=[decode, long_prompt, kv_cache, speculation, structured, evaluation],
    help="Measure how fast our runtime reads prompts and writes tokens.",
)

if __name__ == "__main__":
    speed(prog_name="python -m benchmarks.speed")
