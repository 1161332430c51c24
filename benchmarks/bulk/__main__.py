"""`glm-run batch` beside `glm-run generate --prompts`, and a simulation of 1 to 1,000 machines.

`runs.py` starts the commands, `driver.py` measures how many rows the driver handles, and
`simulation.py` lets machines work in simulated time.
"""

import click

from benchmarks.bulk.driver import measure_driver
from benchmarks.bulk.runs import Runs, Work
from benchmarks.bulk.simulation import Service, simulate
from benchmarks.checkpoints import SHAPES
from benchmarks.command import (
    Figures,
    benchmark,
    folder_option,
    rounds_option,
    say,
    say_round,
    shape_option,
    threads_option,
    work_option,
)
from benchmarks.exports import BLOCK_128, provide_folder
from benchmarks.measurement import as_json, compare_pairs, summarize
from glm_runtime import GlmRuntimeError

MACHINES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@benchmark(
    "ray",
    "onnxruntime",
    examples="python -m benchmarks.bulk\npython -m benchmarks.bulk --shape tiny --prompts 16",
    failures=(GlmRuntimeError,),
)
@folder_option
@shape_option
@threads_option
@rounds_option(3)
@click.option(
    "--prompts",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Number of prompts of a job.",
)
@click.option(
    "--new-tokens",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Number of tokens of each answer.",
)
@click.option(
    "--most-workers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Largest number of workers; the threads are divided among them.",
)
@click.option(
    "--driver-rows",
    type=click.IntRange(min=100),
    default=20_000,
    show_default=True,
    help="Number of rows by which the driver alone is measured.",
)
@click.option(
    "--simulated-rows",
    type=click.IntRange(min=1000),
    default=100_000,
    show_default=True,
    help="Number of rows of the simulated job.",
)
@work_option
def bulk(folder, shape, threads, rounds, work, **amounts) -> Figures:  # type: ignore[no-untyped-def]
    """Measure tokens per second by workers, and simulate more machines than there are."""
    amount = Work(amounts["prompts"], amounts["new_tokens"], threads)
    with provide_folder(folder, SHAPES[shape], *BLOCK_128) as found:
        runs = Runs(found, work, amount)
        counts = [count for count in range(1, amounts["most_workers"] + 1) if count <= threads]
        for index in range(-1, rounds):
            say_round(index, rounds)
            runs.run_round(counts)
            if index < 0:
                runs.clear()
    say("measuring the driver")
    driver = measure_driver(amounts["driver_rows"], work)
    rate = summarize(runs.batch[1]).median / amount.new_tokens
    service = Service(1 / rate, driver, runs.rows)
    simulated = [simulate(service, amounts["simulated_rows"], count) for count in MACHINES]
    ratios = {count: compare_pairs(found, runs.plain) for count, found in runs.batch.items()}
    _show(runs, ratios, simulated, driver)
    return {
        "plain": as_json(summarize(runs.plain)),
        "workers": {count: as_json(summarize(found)) for count, found in runs.batch.items()},
        "ratios": {count: as_json(ratio) for count, ratio in ratios.items()},
        "plain_seconds": as_json(summarize(runs.plain_seconds)),
        "batch_seconds": as_json(summarize(runs.batch_seconds)),
        "driver_seconds_per_row": driver,
        "machines": [one.as_json() for one in simulated],
    }


def _show(runs, ratios, simulated, driver) -> None:  # type: ignore[no-untyped-def]
    print("| command | tokens/s | ratio of pairs |\n|---|---|---|")
    print(f"| generate --prompts | {summarize(runs.plain).median:.1f} | |")
    for count, found in runs.batch.items():
        rate = summarize(found).median
        print(f"| batch, {count} workers | {rate:.1f} | {ratios[count].median:.3f} |")
    print(f"\nThe driver takes {driver * 1e6:.0f} microseconds for a row.\n")
    print("| machines | rows/s | efficiency | driver busy |\n|---|---|---|---|")
    for one in simulated:
        print(
            f"| {one.machines} | {one.rows_per_second:.1f} | {one.efficiency:.1%} | "
            f"{one.driver_share:.1%} |"
        )


if __name__ == "__main__":
    bulk()
