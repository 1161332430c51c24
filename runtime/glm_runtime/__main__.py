"""`python -m glm_runtime` is `glm-run`."""

from glm_runtime.cli import main

main()
