"""The picture of the servers: throughput and times by number of clients."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PANELS = (
    ("tokens_per_second", "tokens per second in all", 1.0),
    ("first_token_p50_seconds", "time to the first token, s (p50, p99)", 1.0),
    ("between_p50_seconds", "time between tokens, ms (p50, p99)", 1000.0),
)


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draw one panel for each kind of figure. matplotlib is needed."""
    import matplotlib as mpl  # noqa: PLC0415 - only this needs it

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "serve"
    from matplotlib import pyplot  # noqa: PLC0415

    figure, panels = pyplot.subplots(1, len(_PANELS), figsize=(12, 3.6), layout="constrained")
    for axes, (key, title, factor) in zip(panels, _PANELS, strict=True):
        for index, (name, one) in enumerate(figures["servers"].items()):
            clients = [int(number) for number in one["clients"]]
            for shown in dict.fromkeys((key, key.replace("p50", "p99"))):
                values = [factor * load[shown]["median"] for load in one["clients"].values()]
                style = "--" if "p99" in shown else "-"
                label = name if shown == key else None
                axes.plot(clients, values, f"o{style}", color=f"C{index}", label=label)
        axes.set(title=title, xlabel="clients", xticks=clients, ylim=(0, None))
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
