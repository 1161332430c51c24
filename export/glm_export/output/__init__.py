"""Writes a folder: completely or not at all, resumable, one row chunk at a time."""
