"""Which changes of an adapter apply, as PEFT decides it from adapter_config.json.

PEFT adapts the modules that the settings name, and drops tensors of other modules. If the head is
tied to the embedding and the settings keep them tied, the head's change is the embedding's.
Source: PEFT 0.21, `check_target_module_exists` in `tuners/tuners_utils.py`, and `tied_adapter` in
`tuners/lora/`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from glm_export.checkpoint.adapter_files import ADAPTER_CONFIG
from glm_export.checkpoint.adapters.merge import HEADS, WEIGHT, MergeTarget
from glm_export.checkpoint.adapters.open_adapter import LowRankChange, OpenAdapter
from glm_export.checkpoint.adapters.settings import match_modules, refuse_value
from glm_export.errors import CheckpointError

_ALL_LINEAR = "all-linear"  # every linear layer except the head
_LAYER = re.compile(r".*?\.[^.]*\.(?P<idx>\d+)\.")
_LAYER_FORM = r"(?:^|.*?\.){}\.(?P<idx>\d+)\."
_SAVED_FORM = r"(^|.*\.){}($|\..*)"


def select_changes(target: MergeTarget, adapter: OpenAdapter) -> OpenAdapter:
    """Return an adapter with those of its changes that PEFT applies to a model.

    Raises:
        CheckpointError: none applies, or those of the head and the embedding differ.
        UnsupportedModelError: a setting is not what PEFT expects.
    """
    applied = _find_applied(adapter.stored.config, adapter.changes)
    if target.is_tied and adapter.settings.is_tied:
        adapter = _drop_head(target, adapter)
        if any((module + WEIGHT).endswith(HEADS) for module in applied):
            applied.add(target.embedding.removesuffix(WEIGHT))
    changes = tuple(change for change in adapter.changes if change.module in applied)
    left_out = tuple(one.module for one in adapter.changes if one.module not in applied)
    if left_out and not changes:
        raise CheckpointError(
            f"adapter {adapter.name} changes {left_out[0]}, but {ADAPTER_CONFIG} names no module "
            "that it changes; check that both files belong together."
        )
    return replace(adapter, changes=changes, left_out=left_out)


def _find_applied(config: Mapping[str, Any], changes: Sequence[LowRankChange]) -> set[str]:
    modules = tuple(change.module for change in changes)
    found = _find_targeted(config, changes, modules)
    excluded = _find_named(config, "exclude_modules", modules)
    saved = tuple(_read_names(config, "modules_to_save"))
    for matched in match_modules("modules_to_save", saved, modules, _SAVED_FORM).values():
        excluded |= set(matched)
    return found - excluded


def _find_targeted(
    config: Mapping[str, Any], changes: Sequence[LowRankChange], modules: tuple[str, ...]
) -> set[str]:
    key = "target_modules"
    value = config.get(key)
    if value is None:  # PEFT chooses by the type of the model
        return set(modules)
    if isinstance(value, str) and value.lower() == _ALL_LINEAR:
        linear = (one.module for one in changes if not one.is_embedding)
        return {module for module in linear if not (module + WEIGHT).endswith(HEADS)}
    found = _find_named(config, key, modules)
    layers = config.get("layers_to_transform")
    if isinstance(value, str) or layers is None or layers == []:
        return found
    wanted = set(layers if isinstance(layers, list) else [layers])
    if not all(type(layer) is int for layer in wanted):
        refuse_value("layers_to_transform", layers, "a number of a layer, or a list of them")
    indices = _find_layers(config, modules)
    return {one for one in found if one in value or indices.get(one) in wanted}


def _find_named(config: Mapping[str, Any], key: str, modules: tuple[str, ...]) -> set[str]:
    """Return the modules that one expression matches, or whose ends are in a list."""
    value = config.get(key)
    if isinstance(value, str):
        return set(match_modules(key, (value,), modules, is_full=True)[value])
    names = set(_read_names(config, key))
    return {module for module in modules if not names.isdisjoint(_list_ends(module))}


def _list_ends(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _find_layers(config: Mapping[str, Any], modules: tuple[str, ...]) -> dict[str, int]:
    """Return the number of each module's layer."""
    patterns = config.get("layers_pattern") or ()
    if isinstance(patterns, str):
        patterns = (patterns,)
    elif patterns:
        patterns = tuple(_read_names(config, "layers_pattern"))
    found: dict[str, str] = {}
    if not patterns:
        matches = (_LAYER.match(module) for module in modules)
        found = {match.string: match["idx"] for match in matches if match is not None}
    for matched in match_modules("layers_pattern", patterns, modules, _LAYER_FORM).values():
        found = {**matched, **found}
    return {module: int(index) for module, index in found.items() if 0 < len(index) < 10}


def _read_names(config: Mapping[str, Any], key: str) -> list[str]:
    names = config.get(key)
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        refuse_value(key, names, "a list of names")
    return names


def _drop_head(target: MergeTarget, adapter: OpenAdapter) -> OpenAdapter:
    """Leave out the head's change, which PEFT saves beside the embedding's."""
    embedding = target.embedding.removesuffix(WEIGHT)
    changes = {change.module: change for change in adapter.changes}
    replaced = dict(adapter.replaced)
    stored = adapter.stored
    for head in [name for name in changes if (name + WEIGHT).endswith(HEADS)]:
        if embedding not in changes:
            continue
        one, other = changes.pop(head), changes[embedding]
        for name, transposed in ((one.down, other.up), (one.up, other.down)):
            if not np.array_equal(stored.read(name), stored.read(transposed).T):
                raise _refuse_difference(adapter, head, embedding)
    for head in [name for name in replaced if name.endswith(HEADS)]:
        if target.embedding not in replaced:
            continue
        own = replaced.pop(head)
        if not np.array_equal(stored.read(own), stored.read(replaced[target.embedding])):
            raise _refuse_difference(adapter, head, target.embedding)
    return replace(adapter, changes=tuple(changes.values()), replaced=replaced)


def _refuse_difference(adapter: OpenAdapter, head: str, embedding: str) -> CheckpointError:
    return CheckpointError(
        f"adapter {adapter.name} says ensure_weight_tying=True, but changes {head} otherwise than "
        f"{embedding}; load it with PEFT and save it again."
    )
