"""Anthropic's interface: one file per endpoint, beside the schemas of its bodies."""
