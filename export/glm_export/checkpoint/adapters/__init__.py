"""LoRA adapters as PEFT saves them, merged into a checkpoint while its rows are read.

Read `choice.py`, `settings.py`, `open_adapter.py`, `merge.py` and then `selection.py`.
"""

from glm_export.checkpoint.adapters.choice import Adapter, check_adapters, parse_adapter
from glm_export.checkpoint.adapters.merge import describe_target, merge_adapters
from glm_export.checkpoint.adapters.open_adapter import (
    OpenAdapter,
    check_adapter_folder,
    open_adapters,
)
from glm_export.checkpoint.adapters.selection import select_changes

__all__ = [
    "Adapter",
    "OpenAdapter",
    "check_adapter_folder",
    "check_adapters",
    "describe_target",
    "merge_adapters",
    "open_adapters",
    "parse_adapter",
    "select_changes",
]
