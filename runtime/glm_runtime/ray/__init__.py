"""Jobs over many prompts on Ray: `run_batch`, and a processor for datasets of Ray Data.

    from glm_runtime.ray import GlmProcessorConfig, build_processor, run_batch

Ray is the extra `ray`; it is imported when one of these is called. Reading order: rows, reading,
plan, row_queue, worker, pool, output, job, processor.
"""

from glm_runtime.ray.job import BatchOptions, BatchReport, run_batch
from glm_runtime.ray.processor import GlmProcessorConfig, Processor, build_processor
from glm_runtime.ray.rows import Columns

__all__ = [
    "BatchOptions",
    "BatchReport",
    "Columns",
    "GlmProcessorConfig",
    "Processor",
    "build_processor",
    "run_batch",
]
