"""Trains the sample: Muon for the hidden matrices, AdamW for everything else.

Run again after an interruption: it goes on from `work/state.pt`. Read `dataset.py` before.
"""

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim import AdamW, Muon, Optimizer
from transformers import AutoTokenizer, Glm4ForCausalLM

from sample.model import evaluation_parts, new_model, perplexity, save_checkpoint, windows
from sample.settings import CHECKPOINT, WORK, Settings, load_settings, parse_arguments

_STATE = WORK / "state.pt"
_LOG = WORK / "log.jsonl"
_VALIDATION_WINDOWS = 24


@dataclass
class Run:
    """What a training run carries from step to step."""

    model: Glm4ForCausalLM
    optimizers: list[Optimizer]
    step: int = 0
    seconds: float = 0.0


def start(settings: Settings) -> Run:
    """Return the saved run, or a new one."""
    model = new_model(settings)
    run = Run(model, make_optimizers(model, settings))
    if not _STATE.exists():
        return run
    state = torch.load(_STATE, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    run.step, run.seconds = state["step"], state["seconds"]
    return run


def make_optimizers(model: Glm4ForCausalLM, settings: Settings) -> list[Optimizer]:
    """Give matrices between hidden vectors to Muon, embeddings, head and vectors to AdamW."""
    hidden = [p for p in model.model.layers.parameters() if p.ndim == 2]
    taken = {id(p) for p in hidden} | {id(model.model.embed_tokens.weight)}
    rest = [p for p in model.parameters() if id(p) not in taken]
    muon = Muon(
        hidden,
        lr=settings.muon_rate,
        weight_decay=settings.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    groups = [
        {"params": rest, "lr": settings.adam_rate},
        {"params": [model.model.embed_tokens.weight], "lr": settings.embedding_rate},
    ]
    adam = AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return [muon, adam]


def rate_factor(step: int, settings: Settings) -> float:
    """Rise linearly, stay, and fall linearly to zero over the last two thirds."""
    rise = (step + 1) / settings.warmup_steps
    fall = (settings.steps - step) / settings.steps * 1.5
    return min(1.0, rise, fall)


def train_step(run: Run, tokens: torch.Tensor, is_target: torch.Tensor, factor: float) -> float:
    """Take one step on [B, S] tokens and return the mean loss of the targets."""
    keep = is_target[:, 1:]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = run.model.model(tokens[:, :-1], use_cache=False).last_hidden_state
        logits = run.model.lm_head(hidden[keep])
    loss = F.cross_entropy(logits.float(), tokens[:, 1:][keep])
    loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * factor
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def save_state(run: Run) -> None:
    """Write everything a restart needs, then rename it into place."""
    state = {
        "model": run.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "step": run.step,
        "seconds": run.seconds,
    }
    fresh = _STATE.with_suffix(".new")
    torch.save(state, fresh)
    fresh.rename(_STATE)


def log(entry: dict[str, float]) -> None:
    """Append one line to the log and show it."""
    line = json.dumps({name: round(value, 4) for name, value in entry.items()})
    print(line, flush=True)
    with _LOG.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def train(run: Run, settings: Settings, last_step: int) -> None:
    """Train up to `last_step`, with validation and saved states on the way."""
    data = np.load(WORK / "training.npz")
    tokens, is_target = data["tokens"], data["is_target"]
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    parts = evaluation_parts()
    held_out = {
        name: windows(tokenizer, parts[name])[:_VALIDATION_WINDOWS]
        for name in ("english", "chinese")
    }
    began = time.monotonic() - run.seconds
    losses: list[float] = []
    while run.step < last_step:
        rows = slice(run.step * settings.batch_size, (run.step + 1) * settings.batch_size)
        batch = torch.from_numpy(tokens[rows].astype(np.int64))
        factor = rate_factor(run.step, settings)
        losses.append(train_step(run, batch, torch.from_numpy(is_target[rows]), factor))
        run.step += 1
        run.seconds = time.monotonic() - began
        if run.step % 10 == 0:
            log({"step": run.step, "loss": sum(losses) / len(losses), "seconds": run.seconds})
            losses = []
        if run.step % settings.validate_every == 0 or run.step == last_step:
            scores = {name: perplexity(run.model, part) for name, part in held_out.items()}
            log({"step": run.step, **scores})
        if run.step % settings.save_every == 0:
            save_state(run)


def main() -> None:
    """Train to the end, or to `--until` to publish an early checkpoint, and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", type=int, help="stop after this step (default: settings)")
    chosen = parse_arguments(parser, "training.npz")
    settings = load_settings()
    torch.set_num_threads(settings.threads)
    run = start(settings)
    train(run, settings, chosen.until or settings.steps)
    save_state(run)
    save_checkpoint(run.model, settings)


if __name__ == "__main__":
    main()
