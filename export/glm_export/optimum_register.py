"""What `optimum-cli` runs at its start: wheels hold it in `optimum/commands/register/` too.

Optimum looks there for what other packages bring (`load_optimum_namespace_cli_commands`). We bring
no command; GLM-4 becomes known when an export asks, since importing Optimum's exporter takes
seconds. Whatever goes wrong must not keep others from exporting their models.
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
