"""An HTTP server for exported folders, with the interfaces of OpenAI and Anthropic.

`glm-run serve FOLDER` starts it; `glm_server.app.create_app` makes the ASGI application for other
servers. Read in this order: `settings.py`, `store.py` (models), `answers.py` (from a request to
events), `openai/` and `anthropic/` (one file per endpoint), `app.py`.
"""
