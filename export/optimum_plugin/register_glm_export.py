"""Tells `optimum-cli export onnx` about GLM-4.

Optimum imports every module of the folder `optimum/commands/register` when `optimum-cli` starts
(`load_optimum_namespace_cli_commands`). This module adds no command. It registers GLM-4 only when
an ONNX export is asked for, because importing Optimum's exporter takes seconds. A failure here is a
warning, so that Optimum still exports its other models.
"""

import importlib.util
import logging
import sys

if sys.argv[1:3] == ["export", "onnx"] and importlib.util.find_spec("optimum.exporters.onnx"):
    try:
        from glm_export.optimum_config import register

        register()
    except Exception as error:
        logging.getLogger(__name__).warning("Optimum will not know GLM-4: %s", error)
