"""What the database knows and operators ask for: looked up now and then in the background, never at a scrape."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import anyio

from gauzian.database import care
from gauzian.database.pool import Database
from gauzian.errors import ApiError
from gauzian.metrics import Metrics

log = logging.getLogger(__name__)


class Standing:
    """`overdue`: an upload untouched for so long should have been removed."""

    def __init__(self, *, database: Database, metrics: Metrics, overdue: timedelta) -> None:
        self._database = database
        self._overdue = overdue
        self._seen = care.Standing()

        def level(name: str, help: str, read: Callable[[care.Standing], float]) -> None:
            metrics.level(name, help, lambda: read(self._seen))

        level("gauzian_unfinished_uploads", "Uploads begun and not finalized", lambda seen: seen.unfinished_uploads)
        level(
            "gauzian_overdue_uploads",
            "Unfinished uploads that should have been removed by now",
            lambda seen: seen.overdue_uploads,
        )
        level("gauzian_stored_bytes", "Bytes of all chunks of all users", lambda seen: seen.stored_bytes)
        level(
            "gauzian_scrub_finished_timestamp_seconds",
            "When the last scrub came to its end; 0: never",
            lambda seen: seen.scrubbed_at,
        )
        level("gauzian_scrub_checked_objects", "Objects the last scrub has read", lambda seen: seen.scrub_checked)
        level(
            "gauzian_scrub_damaged_objects",
            "Objects the last scrub found damaged or missing",
            lambda seen: seen.scrub_damaged,
        )

    async def look(self) -> None:
        async with self._database.connection() as conn:
            self._seen = await care.find_standing(conn, overdue=self._overdue)


async def keep_looking(standing: Standing, *, every: timedelta) -> None:
    """For ever, as a background task of the service. What was seen last stays while the database cannot be asked."""
    while True:
        try:
            await standing.look()
        except ApiError as error:
            log.warning("the standing could not be looked up, trying again next time: %s", error)
        except Exception:  # nobody waits for this task: it would be gone without a word, and the numbers stand still
            log.exception("the standing could not be looked up, trying again next time")
        await anyio.sleep(every.total_seconds())
