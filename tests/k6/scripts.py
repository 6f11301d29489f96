"""The load tests and the two forms they are run in: short ones for every day, long ones as the scripts have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

# What lib/settings.js reads; a person's own values go before those of a form.
VARIABLES = (
    *("STAGES", "USERS", "SECONDS"),
    *("CHUNK_BYTES", "CHUNKS", "CHUNK_P95_MS", "CUT_MS", "MOST_STORED_BYTES", "MOST_TRIES"),
)

# What the scripts leave on the disk at most, in the long form (MOST_STORED_BYTES) and with room for the rest.
FREE_BYTES = 20_000_000_000


@dataclass(frozen=True)
class Form:
    """Settings of the server and of the script, and how long k6 may take before it counts as hanging."""

    server: dict[str, str]
    script: dict[str, str]
    most_seconds: float


@dataclass(frozen=True)
class Script:
    name: str
    short: Form
    long: Form

    @property
    def path(self) -> Path:
        return HERE / f"{self.name}.js"


# Each user of the script comes from an address of its own, as users do: see lib/account.js.
OWN_ADDRESSES = {"TRUSTED_PROXIES": "127.0.0.1"}

SCRIPTS = (
    Script(
        "test-upload-advanced",
        # Twenty users with ten chunks each are more than the 50 places: the short form sees refusals as well.
        short=Form(OWN_ADDRESSES, {"STAGES": "2s:10,2s:20,1s:0", "MOST_STORED_BYTES": "5e8"}, most_seconds=90),
        long=Form(OWN_ADDRESSES, {}, most_seconds=600),
    ),
    Script(
        "test-rejection",
        short=Form({"MAX_CONCURRENT_UPLOADS": "4"}, {"USERS": "16", "SECONDS": "4"}, most_seconds=60),
        long=Form({}, {}, most_seconds=240),
    ),
    Script(
        "test-soak",
        short=Form({}, {"USERS": "25", "SECONDS": "5", "MOST_STORED_BYTES": "5e8"}, most_seconds=60),
        long=Form({}, {}, most_seconds=900),
    ),
)
