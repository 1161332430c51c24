"""Ids of the items of a response."""

import uuid


def make_id(prefix: str) -> str:
    """Return a new id, such as `msg_0123...`."""
    return f"{prefix}_{uuid.uuid4().hex}"
