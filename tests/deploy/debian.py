"""Programs that come with a Debian package and not with pip: where they are absent a test is skipped, with the reason,
but not where CI is set: there a missing one is a failure.
"""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str, *, package: str) -> str:
    """Its path."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        words = f"{name} is not there: apt-get install -y --no-install-recommends {package}"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    return found
