"""Finds the browser of the tests."""

import os
import shutil

import pytest


def find_chromium() -> str:
    """Return the path of Chromium; skip the test if there is none."""
    names = ("chromium", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("needs Chromium: Debian's package chromium, or its path in CHROMIUM")
    return found
