"""`python -m glm_export` is `glm-export`."""

from glm_export.cli import main

main()
