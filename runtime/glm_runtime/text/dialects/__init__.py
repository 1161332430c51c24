"""How the models of the GLM family write tool calls, one file a dialect."""
