"""A memory limit that is real: a process under it cannot have more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bench.limit import MIB, join_cgroup
from tests.bench.load import ROOT


def under_a_limit(mib: int, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench.limit", str(mib), sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_who_wants_more_than_the_limit_does_not_get_it() -> None:
    small, large = f"print(len(bytearray({16} << 20)))", f"print(len(bytearray({512} << 20)))"
    assert under_a_limit(128, small).stdout == f"{16 * MIB}\n"
    done = under_a_limit(128, large)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "128 MiB" in done.stderr


def test_a_cgroup_is_used_where_there_is_one_for_memory(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    home = join_cgroup(64 * MIB, tmp_path)
    assert home is not None
    assert (home / "memory.max").read_text() == str(64 * MIB)
    assert (home / "cgroup.procs").read_text() == str(os.getpid())


def test_without_the_memory_controller_there_is_no_cgroup(tmp_path: Path) -> None:
    assert join_cgroup(MIB, tmp_path) is None
    (tmp_path / "cgroup.subtree_control").write_text("cpu pids\n")
    assert join_cgroup(MIB, tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.subtree_control"]
