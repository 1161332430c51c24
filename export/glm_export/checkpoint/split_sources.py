"""Parameters whose rows a checkpoint stores in several modules where transformers has one.

GPTQModel, for example, quantizes the gate and the up matrix one by one and saves them so.
"""

from collections.abc import Collection, Mapping

from glm_export.model.architectures import ParameterSource

SplitNames = Mapping[str, tuple[str, ...]]


def split_sources(
    parameters: Mapping[str, ParameterSource], stored: Collection[str], split_names: SplitNames
) -> dict[str, ParameterSource]:
    """Replace each source that is not stored by its parts, if one of them is.

    Args:
        parameters: sources of the decoder's parameters.
        stored: names of the checkpoint's tensors.
        split_names: see `Architecture.split_names`.

    Returns:
        The same parameters in the same order; the parts of a source have equal numbers of rows.
    """
    modules = {name.rpartition(".")[0] for name in stored}
    found: dict[str, ParameterSource] = {}
    for parameter, source in parameters.items():
        tensors = [part for one in source.tensors for part in _split(one, modules, split_names)]
        found[parameter] = ParameterSource(tuple(tensors))
    return found


def _split(
    tensor: tuple[str, tuple[int, ...]], modules: Collection[str], split_names: SplitNames
) -> list[tuple[str, tuple[int, ...]]]:
    (name, shape), (module, _, kind) = tensor, tensor[0].rpartition(".")
    for end, ends in split_names.items():
        if module in modules or not module.endswith(f".{end}"):
            continue
        parts = [module.removesuffix(end) + part for part in ends]
        if any(part in modules for part in parts):
            rows = shape[0] // len(parts)
            return [(f"{part}.{kind}", (rows, *shape[1:])) for part in parts]
    return [(name, shape)]
