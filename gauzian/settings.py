"""Every environment variable: read once, checked together, its help beside its default.

`Settings.from_env(environ)` is the only reader; parts get plain values from the assembly. A bad value is never replaced
by a default: all problems are collected and reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gauzian import values

MIB = 1024 * 1024


class SettingsError(Exception):
    """`problems`: one line per bad variable: its name, what it held, what it takes."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("bad settings:\n" + "\n".join(f"  {problem}" for problem in problems))


def _setting(
    default: Any,
    help: str,
    parse: values.Parse,
    *,
    secret: bool = False,
    alias: str | None = None,
    shown: str | None = None,
) -> Any:
    return field(
        default=default, metadata={"help": help, "parse": parse, "secret": secret, "alias": alias, "shown": shown}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One attribute per variable, in lower case; None where nothing was configured and nothing is the default."""

    host: str = _setting("127.0.0.1", "address to listen on; 0.0.0.0 in a container", values.text)
    port: int = _setting(8080, "port to listen on; 0 takes any free one", values.integer(0, 65535))
    probe_port: int | None = _setting(
        None,
        "a second port, for /health and /metrics alone: no crowd stands before it",
        values.integer(0, 65535),
        shown="none",
    )
    tls_cert: Path | None = _setting(
        None, "PEM file: certificate and chain; with TLS_KEY: HTTPS on PORT", values.path, shown="none: plain HTTP"
    )
    tls_key: Path | None = _setting(
        None, "PEM file: its private key, without a passphrase; SIGHUP reads both again", values.path, shown="none"
    )
    data_dir: Path = _setting(
        Path("data"), "where the embedded PostgreSQL, the disk store and temporary files live", values.path
    )
    database_url: str | None = _setting(
        None,
        "an existing PostgreSQL (15 or newer)",
        values.url("postgresql", "postgres"),
        secret=True,
        shown="own PostgreSQL under DATA_DIR",
    )
    database_connections: int = _setting(10, "most connections to PostgreSQL", values.integer(2, 1000))
    database_wait_seconds: float = _setting(
        5.0, "how long a request waits for a free connection before 503", values.seconds(0.1, 60)
    )

    s3_endpoint: str | None = _setting(
        None,
        "an S3-compatible store, as in https://s3.example.org",
        values.endpoint,
        shown="disk store under DATA_DIR",
    )
    s3_access_key: str | None = _setting(None, "its access key", values.text, secret=True, alias="AWS_ACCESS_KEY_ID")
    s3_secret_key: str | None = _setting(
        None, "its secret key", values.text, secret=True, alias="AWS_SECRET_ACCESS_KEY"
    )
    s3_bucket: str = _setting("gauzian", "its bucket; created at start if absent", values.bucket)
    s3_region: str = _setting("us-east-1", "its region", values.text, alias="AWS_REGION")
    s3_connect_seconds: float = _setting(5.0, "longest wait for a connection to the store", values.seconds(0.1, 120))
    s3_read_seconds: float = _setting(30.0, "longest silence of the store", values.seconds(0.1, 600))
    store_threads: int = _setting(
        8, "threads that write and read the disk; 16 to 32 on slow disks", values.integer(1, 128)
    )
    spool_dir: Path | None = _setting(
        None, "temporary files of bodies without a known length", values.path, shown="DATA_DIR/tmp"
    )

    max_chunk_size: int = _setting(10 * MIB, "bytes of one chunk; a larger one gets 413", values.integer(1, 2**31 - 1))
    max_concurrent_uploads: int | str = _setting(
        50,
        "chunks read at once by this process; more get `Server busy`; auto: as many as the memory limit carries",
        values.places,
    )
    max_uploads_per_user: int | None = _setting(
        None, "places one user may hold at once", values.integer(1, 10_000), shown="half of all, at least 1"
    )
    uploads_busy_status: int = _setting(
        400, "status of `Server busy`: 400, 429 or 503", values.one_number_of(400, 429, 503)
    )
    upload_idle_seconds: float = _setting(
        15.0, "an upload that sends nothing for so long gives its place back (408)", values.seconds(0.1, 3600)
    )
    upload_min_rate: int = _setting(
        16 * 1024, "bytes per second an upload must reach after 10 s (408)", values.integer(1, 2**31 - 1)
    )
    upload_ttl_hours: float = _setting(
        24.0, "unfinished uploads untouched for so long are removed", values.hours(0.001, 24 * 365)
    )
    trash_days: int = _setting(
        30, "what lies in the trash for so long is removed for good; 0: it stays", values.integer(0, 36_500)
    )
    quota_bytes: int | None = _setting(
        None, "bytes each user may store (507)", values.integer(0, 2**62), shown="unlimited"
    )
    finalize_check: str = _setting(
        "explained",
        "explained: stored bytes must fit the declared size; contiguous: only the indices are checked",
        values.one_of("explained", "contiguous"),
    )
    max_concurrent_downloads: int = _setting(
        100, "downloads at the same time by this process", values.integer(1, 100_000)
    )
    download_stall_seconds: float = _setting(
        300.0, "a download of which the client takes nothing for so long is cut", values.seconds(1, 3600)
    )
    download_readahead: int = _setting(2, "chunks opened ahead of the one being sent", values.integer(1, 16))
    max_connections: int = _setting(2000, "open connections; the rest wait in the kernel", values.integer(10, 100_000))
    shutdown_grace_seconds: float = _setting(
        30.0, "how long uploads in flight may finish after SIGTERM", values.seconds(0, 3600)
    )

    reap_interval_seconds: float = _setting(600.0, "between two rounds of the reaper", values.seconds(1, 86_400))
    sweep_interval_hours: float = _setting(
        24.0, "between two sweeps for objects no row names", values.hours(0.01, 24 * 365)
    )
    orphan_grace_hours: float = _setting(
        24.0, "an object without a row is left alone for so long", values.hours(1, 24 * 365)
    )

    cookie_auth: bool = _setting(True, "sign-in also sets and accepts a cookie", values.switch)
    cookie_secure: bool = _setting(True, "the cookie is sent over HTTPS only", values.switch)
    trusted_proxies: tuple[str, ...] = _setting(
        (), "proxies whose X-Forwarded-For is believed (addresses, networks)", values.networks
    )
    cors_origins: tuple[str, ...] = _setting((), "origins of browser clients served from elsewhere", values.origins)
    password_checks: int = _setting(
        2, "passwords checked at the same time (19 MiB and one thread each)", values.integer(1, 64)
    )
    smtp_url: values.MailServer | None = _setting(
        None,
        "sends registration codes: smtp://user:password@host:587 (STARTTLS; ?starttls=off), smtps://...:465",
        values.mail_server,
        secret=True,
        shown="none: codes go to the log",
    )
    mail_from: str | None = _setting(None, "the address they come from", values.mailbox)
    metrics_token: str | None = _setting(
        None, "Bearer token that /metrics asks for", values.text, secret=True, shown="none: open"
    )
    metrics_legacy_names: bool = _setting(False, "export the unprefixed names of older dashboards too", values.switch)
    log_format: str = _setting("logfmt", "logfmt or json", values.one_of("logfmt", "json"))
    log_level: str = _setting(
        "info", "debug, info, warning or error", values.one_of("debug", "info", "warning", "error")
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Raises SettingsError with every problem. An empty variable counts as unset."""
        given: dict[str, Any] = {}
        problems: list[str] = []
        for item in fields(cls):
            name, text = _find(item.name.upper(), item.metadata["alias"], environ)
            if not text:
                continue
            try:
                given[item.name] = item.metadata["parse"](text)
            except values.BadValue as takes:
                held = "a secret" if item.metadata["secret"] else repr(text)
                problems.append(f"{name} holds {held}, takes {takes}")
        settings = cls(**given)
        problems += settings._contradictions()
        # Under their AWS names the keys may be there for another program.
        without_endpoint = not environ.get("S3_ENDPOINT", "").strip()  # a bad one has its own line
        if without_endpoint and (environ.get("S3_ACCESS_KEY") or environ.get("S3_SECRET_KEY")):
            problems.append("S3_ACCESS_KEY or S3_SECRET_KEY is set without S3_ENDPOINT: chunks would go to the disk")
        if problems:
            raise SettingsError(problems)
        return settings

    def _contradictions(self) -> list[str]:
        found = []
        if self.s3_endpoint and not (self.s3_access_key and self.s3_secret_key):
            found.append("S3_ENDPOINT is set, so S3_ACCESS_KEY and S3_SECRET_KEY must be too")
        if (self.tls_cert is None) != (self.tls_key is None):
            there, absent = ("TLS_CERT", "TLS_KEY") if self.tls_cert else ("TLS_KEY", "TLS_CERT")
            found.append(f"{there} is set, so {absent} must be too (it may name the same file)")
        if self.smtp_url and not self.mail_from:
            found.append("SMTP_URL is set, so MAIL_FROM must be too")
        return found

    def rows(self) -> list[tuple[str, str, str]]:
        """(variable, effective value, help) of every setting, secrets masked."""
        return [(item.name.upper(), self._shown(item), item.metadata["help"]) for item in fields(self)]

    @classmethod
    def table(cls) -> str:
        """The settings table of README, in Markdown."""
        lines = ["| variable | default | what it is |", "|---|---|---|"]
        for name, default, help in cls().rows():
            item = next(item for item in fields(cls) if item.name.upper() == name)
            alias = f" (or `{item.metadata['alias']}`)" if item.metadata["alias"] else ""
            lines.append(f"| `{name}`{alias} | {default} | {help} |")
        return "\n".join(lines)

    def _shown(self, item: Any) -> str:
        value = getattr(self, item.name)
        if value is None:
            return item.metadata["shown"] or "unset"
        if item.metadata["secret"]:
            return "(set)"
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, tuple):
            return ",".join(value) or "none"
        return f"{value:g}" if isinstance(value, float) else str(value)


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like one of ours but are not: worth a warning, since their owner believes they are set."""
    ours = {item.name.upper() for item in fields(Settings)} | {item.metadata["alias"] for item in fields(Settings)}
    known = sorted(name for name in ours if name and "_" in name)
    found = []
    for name in environ:
        close = get_close_matches(name, known, n=1, cutoff=0.88) if name not in ours else []
        if close:
            found.append(f"{name} is no setting; did you mean {close[0]}?")
    return found


def _find(name: str, alias: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    for candidate in (name, alias):
        if candidate and environ.get(candidate, "").strip():
            return candidate, environ[candidate].strip()
    return name, ""


if __name__ == "__main__":
    print(Settings.table())
