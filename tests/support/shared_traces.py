"""Each decoder is traced once in a run: tracing takes seconds and depends on its arguments alone.

Not for tests of tracing itself, which call `trace_decoder`.
"""

from collections.abc import Iterator
from functools import cache

import onnx_ir as ir
import pytest
import torch

import glm_export.pipeline
from glm_export.graph.trace import trace_decoder
from glm_export.model.architectures import DecoderConfig

_trace = cache(trace_decoder)


def copy_trace(config: DecoderConfig, *dtypes: torch.dtype) -> ir.Model:
    """A copy of the graph, which the passes may change."""
    return _trace(config, *dtypes).clone()


@pytest.fixture(scope="session", autouse=True)
def shared_traces() -> Iterator[None]:
    """Exports of this process take their graphs from the first trace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glm_export.pipeline, "trace_decoder", copy_trace)
        yield
