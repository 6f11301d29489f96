"""Run as a script, by root: become another user, then another program. PostgreSQL refuses to be root.

    python unprivileged.py UID GID none|pass|execute PROGRAM ARGUMENT...

`pass` and `execute` carry one right of root's over, as an ambient capability: to pass through directories that only
root may enter (a clone under /root), or to execute what only root may (installed under umask 077). A program of its
own, because code between fork and exec is unsafe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_PR_SET_SECUREBITS = 28
# Rights stay over setuid, and access(2), which PostgreSQL asks about its own program, counts them.
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2  # the lesser one, which containers often take from root
_CHOICES = {"none": (), "pass": (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE), "execute": (_CAP_DAC_OVERRIDE,)}
_CAPABILITY_VERSION = 0x20080522


def main(arguments: list[str]) -> None:
    uid, gid, rights, program = int(arguments[0]), int(arguments[1]), _CHOICES[arguments[2]], arguments[3:]
    libc = ctypes.CDLL(None, use_errno=True)
    if rights:
        libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    keep_one_right(libc, rights)
    os.execv(program[0], program)  # noqa: S606 (the whole purpose; the caller is our own code)


def keep_one_right(libc: ctypes.CDLL, rights: tuple[int, ...]) -> None:
    """Quietly keeps none if root itself had none: PostgreSQL then says which directory it may not enter."""
    for capability in rights:
        header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
        only = 1 << capability
        data = struct.pack(
            "=6I", only, only, only, 0, 0, 0
        )  # effective, permitted, inheritable; then the upper 32 bits
        if libc.capset(header, data) == 0:
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return


if __name__ == "__main__":
    main(sys.argv[1:])
