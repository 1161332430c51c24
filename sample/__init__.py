"""How the sample checkpoint in `artifacts/glm4-sample` was made. Read `README.md` first."""
