"""Start here: the process and its command line.

python app.py serve      the service (default)
python app.py migrate    bring the database's schema up to date
python app.py reap       remove unfinished uploads and objects no row names; --dry-run only counts
python app.py scrub      read every stored object and compare it with its row
python app.py users      list users, give space, switch them off and on, delete them; users --help
python app.py settings   the effective settings, their help, and the memory they can come to
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from gauzian import budget
from gauzian.assembly.levels import show_server
from gauzian.assembly.parts import load_of, migrated_database, open_parts
from gauzian.assembly.people import manage
from gauzian.assembly.probes import probes_beside
from gauzian.assembly.tls import Certificate, certificate_of
from gauzian.assembly.urls import compose, server_limits
from gauzian.database.embedded_home import EmbeddedError
from gauzian.database.migrate import MigrationError
from gauzian.errors import ApiError
from gauzian.logs import logging_to
from gauzian.server.memory import Allocator
from gauzian.server.serve import Server, StartFailed
from gauzian.settings import Settings, SettingsError, misspelt
from gauzian.upload.scrub import Damage, Progress

MIGRATIONS = Path(__file__).parent / "migrations"

log = logging.getLogger("gauzian")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done; 1 found damage, or could not go on; 2 the settings or the command line are wrong."""
    given = _parser().parse_args(arguments)
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    # Before the first thread starts: glibc gives each thread a heap of its own otherwise, and keeps what was freed in
    # it.
    Allocator().limit_arenas()
    commands: dict[str, Callable[[], Awaitable[int]]] = {
        "serve": lambda: serve(settings),
        "migrate": lambda: migrate(settings),
        "reap": lambda: reap(settings, dry_run=given.dry_run, adopt=given.adopt_store),
        "scrub": lambda: scrub(settings),
        "users": lambda: users(settings, given),
        "settings": lambda: show(settings),
    }
    with logging_to(sys.stderr, format=settings.log_format, level=settings.log_level.upper()):
        try:
            return asyncio.run(_unless_told_to_stop(commands[given.command], code=0 if given.command == "serve" else 1))
        except SettingsError as error:  # files that they name
            print(error, file=sys.stderr)
            return 2
        except (ApiError, EmbeddedError, MigrationError, StartFailed, OSError) as error:
            print(f"gauzian: {error}", file=sys.stderr)
            return 1


async def serve(settings: Settings) -> int:
    """Until SIGTERM or SIGINT; then no new work, what is in flight finishes, everything is closed in order."""
    for warning in misspelt(os.environ):
        log.warning("%s", warning)
    certificate = certificate_of(settings)
    async with open_parts(settings, migrations=MIGRATIONS) as parts:
        stop = asyncio.Event()

        def begin_to_stop() -> None:
            parts.draining.begin()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, begin_to_stop)
        if certificate is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, certificate.renew)
        async with probes_beside(parts, settings) as probes:
            server = Server(
                compose(parts, settings),
                host=settings.host,
                port=settings.port,
                limits=server_limits(settings),
                grace_seconds=settings.shutdown_grace_seconds,
                on_listening=lambda addresses: _announce(addresses[0], probes, certificate),
                tls=certificate.context if certificate else None,
                storing=parts.threads.writing,
            )
            show_server(parts.metrics, server)
            await server.serve(stop)
    return 0


def _announce(address: tuple[str, int], probes: tuple[str, int] | None, certificate: Certificate | None) -> None:
    beside = f" (probes: {_url('http', *probes)})" if probes else ""
    print(f"GAUZIAN is ready: {_url('https' if certificate else 'http', *address)}{beside}", flush=True)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def migrate(settings: Settings) -> int:
    async with migrated_database(settings, migrations=MIGRATIONS) as (_, applied):
        print("\n".join(applied) if applied else "the schema is up to date")
    return 0


async def reap(settings: Settings, *, dry_run: bool, adopt: bool) -> int:
    async with open_parts(settings, migrations=MIGRATIONS, background=False) as parts:
        if adopt:
            await parts.reaper.adopt_store()
            print("this store belongs to this database now")
            return 0
        report = await parts.reaper.reap(sweep=True, dry_run=dry_run)
    print(("would remove: " if dry_run else "removed: ") + report.line())
    for key in report.examples:
        print(f"  {key}")
    return 1 if report.refused else 0


async def scrub(settings: Settings) -> int:
    terminal = sys.stderr.isatty()

    def on_damage(damage: Damage) -> None:
        row = damage.row
        print(f"{row.object_key}: {damage.what} (file {row.file_id}, chunk {row.index})", flush=True)

    def on_progress(progress: Progress) -> None:
        if terminal and progress.checked % 50 == 0:
            share = 100 * progress.checked / max(1, progress.objects)
            print(
                f"\r{progress.checked} of {progress.objects} objects, {share:.0f} % ",
                end="",
                file=sys.stderr,
                flush=True,
            )

    async with open_parts(settings, migrations=MIGRATIONS, background=False) as parts:
        result = await parts.scrub.run(on_damage=on_damage, on_progress=on_progress)
    if terminal:
        print("\r\033[K", end="", file=sys.stderr)
    print(f"{result.checked} objects checked ({result.checked_bytes} bytes), {result.damaged} damaged")
    return 1 if result.damaged else 0


async def users(settings: Settings, given: argparse.Namespace) -> int:
    return await manage(
        settings,
        migrations=MIGRATIONS,
        action=given.action,
        email=getattr(given, "email", ""),
        quota_bytes=getattr(given, "bytes", None),
        is_meant=getattr(given, "yes", False),
    )


async def show(settings: Settings) -> int:
    for name, value, help in settings.rows():
        print(f"{name}={value}\n    {help}")
    load = load_of(settings)
    if not isinstance(settings.max_concurrent_uploads, int):
        print(f"\nMAX_CONCURRENT_UPLOADS=auto is {load.uploads} here")
    print(f"\nMemory ceiling: {budget.told(load)} at once (PostgreSQL not included)")
    if (words := budget.misfit(load, budget.memory_limit())) is not None:
        print(f"Warning: {words}")
    return 0


async def _unless_told_to_stop(command: Callable[[], Awaitable[int]], *, code: int) -> int:
    """A signal cancels the command, so that what it has opened is closed in order, a PostgreSQL that is only just
    starting too; then the exit code is `code`. `serve` handles signals itself once it is up.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - we are being awaited
    told = False

    def stop() -> None:
        nonlocal told
        if not told:  # a second one would only disturb the closing
            told = True
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await command()
    except asyncio.CancelledError:
        if not told:
            raise
        print("gauzian: told to stop", file=sys.stderr)
        return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="app.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    parser.set_defaults(command="serve")
    for name in ("serve", "migrate", "scrub", "settings"):
        commands.add_parser(name)
    reap = commands.add_parser("reap")
    reap.add_argument("--dry-run", action="store_true", help="only count")
    reap.add_argument("--adopt-store", action="store_true", help="declare that the store belongs to this database")
    _add_users(commands.add_parser("users"))
    return parser


def _add_users(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    parser.set_defaults(action="list")
    actions.add_parser("list", help="everybody, with tabs between: e-mail, username, state, bytes used, quota, files")
    quota = actions.add_parser("quota", help="how many bytes a user may store")
    quota.add_argument("email")
    quota.add_argument("bytes", type=_bytes, help="a number, or default: what QUOTA_BYTES says")
    for action, help in (("deactivate", "sign a user out and let nobody in"), ("activate", "let a user in again")):
        actions.add_parser(action, help=help).add_argument("email")
    delete = actions.add_parser("delete", help="a user with all files and folders, for good")
    delete.add_argument("email")
    delete.add_argument("--yes", action="store_true", help="it is meant")


def _bytes(text: str) -> int | None:
    if text.lower() == "default":
        return None
    if not text.isdecimal() or int(text) > 2**62:
        raise argparse.ArgumentTypeError("a whole number of bytes, or default")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
