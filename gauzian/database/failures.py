"""What psycopg raises, as one of our refusals, or unchanged when it says something about the statement itself."""

from __future__ import annotations

import psycopg
from psycopg_pool import PoolClosed

from gauzian.errors import Collided, DatabaseBusy, DatabaseDown, OutcomeUnknown, Overtaken

# The server ended the session, and perhaps after the commit: 57P01 shutdown, 57P02 crash, 57P03 starting up, 57P05
# idle.
_SESSION_ENDED = ("08", "57P0")
# The server took the statement back and says that trying again may help: time-out, lock.
_TRY_AGAIN = ("57014", "55P03")
# The same, because of another transaction: deadlock, serialization.
_COLLIDED = ("40P01", "40001")
# The server took the statement back and cannot do better for now: disk or memory full, I/O errors, standby (25006).
_CANNOT_NOW = ("53", "58", "25006")
# A foreign key that points to nothing: each statement of ours was preceded by a look at what it needs, so that was
# removed in between.
_REMOVED_MEANWHILE = "23503"


def as_ours(error: psycopg.Error, *, broken: bool) -> Exception:
    """`broken`: the connection did not survive it. Unchanged: other violated constraints and mistakes of ours."""
    state = error.sqlstate or ""
    if broken or state.startswith(_SESSION_ENDED):
        return OutcomeUnknown()
    if state in _COLLIDED:
        return Collided("The database took too long, please retry")
    if state.startswith(_TRY_AGAIN):
        return DatabaseBusy("The database took too long, please retry")
    if state.startswith(_CANNOT_NOW):
        return DatabaseDown()
    if state == _REMOVED_MEANWHILE:
        return Overtaken()
    return error


def cannot_connect(error: psycopg.Error) -> Exception:
    """Nothing was sent, so nothing is unknown. 53300: the server has no session left for us, which passes."""
    return DatabaseBusy() if error.sqlstate == "53300" else DatabaseDown()


def cannot_borrow(error: psycopg.Error, failure: psycopg.Error | None, *, lent: int) -> Exception:
    """`error` is the pool's, `failure` of its last attempt to connect; `lent` connections may still come back."""
    if isinstance(error, PoolClosed):
        return DatabaseDown("The database connections are closed")
    if failure is not None:
        return cannot_connect(failure)
    return DatabaseBusy() if lent else DatabaseDown()
