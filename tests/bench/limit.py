"""`python -m tests.bench.limit MIB command ...`: becomes the command, under a real memory limit.

Where the machine lets us make a cgroup (version 2, with the memory controller) that is the limit, for the process and
its children together; elsewhere RLIMIT_DATA is, which counts what the process may write: its heap, its mappings, the
stacks of its threads. Says which on standard error.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

MIB = 1024 * 1024
CGROUPS = Path("/sys/fs/cgroup")
# A thread's stack is reserved as a whole and counts as a whole, whatever is used of it: 8 MiB each by default.
STACK_BYTES = MIB


def join_cgroup(size: int, root: Path = CGROUPS) -> Path | None:
    """A new cgroup with this much memory and us in it; None where that is not to be had."""
    home = root / f"gauzian-{os.getpid()}"
    try:
        if "memory" not in (root / "cgroup.subtree_control").read_text().split():
            return None
        home.mkdir()
    except OSError:
        return None
    try:
        (home / "memory.max").write_text(str(size))
        with contextlib.suppress(OSError):
            (home / "memory.swap.max").write_text("0")
        (home / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        with contextlib.suppress(OSError):
            home.rmdir()
        return None
    return home


def main() -> None:
    size, command = int(sys.argv[1]) * MIB, sys.argv[2:]
    if home := join_cgroup(size):
        kind = f"memory.max of {home}"
    else:
        resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, resource.getrlimit(resource.RLIMIT_STACK)[1]))
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        kind = "RLIMIT_DATA"
    print(f"limit: {kind} {size // MIB} MiB", file=sys.stderr, flush=True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
