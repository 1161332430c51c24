"""Draws `loss.svg` from the training log."""

import json
import math

import matplotlib as mpl
from settings import HERE, WORK

mpl.use("svg")
from matplotlib import pyplot as plt


def read_log() -> list[dict[str, float]]:
    """Return the log's entries; after a restart the later entry of a step counts."""
    lines = (WORK / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = {(e["step"], "loss" in e): e for e in map(json.loads, lines)}
    return [entries[key] for key in sorted(entries)]


def main() -> None:
    """Plot training loss and the two validation losses over the steps."""
    mpl.rcParams["svg.hashsalt"] = "glm4-sample"
    log = read_log()
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    training = [entry for entry in log if "loss" in entry]
    axes.plot(
        [entry["step"] for entry in training],
        [entry["loss"] for entry in training],
        color="0.6",
        linewidth=1,
        label="training (text and chat answers, mean of 10 steps)",
    )
    checks = [entry for entry in log if "english" in entry]
    for name, label in (("english", "held-out English"), ("chinese", "held-out Chinese")):
        losses = [math.log(entry[name]) for entry in checks]
        axes.plot([entry["step"] for entry in checks], losses, marker="o", ms=3, label=label)
    axes.set_xlabel("training step")
    axes.set_ylabel("cross-entropy loss (nats per token)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(HERE / "loss.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
