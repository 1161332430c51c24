"""Agents: a model that calls tools of MCP servers, and Python code in a sandbox.

`configuration.py` reads which servers there are, `toolbox.py` starts them and runs calls, and
`loop.py` is the loop between the model and the tools. Nothing here prints or knows about HTTP.
"""
