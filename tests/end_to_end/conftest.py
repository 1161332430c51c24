"""Exports of these tests share their traces."""

from support.shared_traces import shared_traces  # noqa: F401
