"""Every way the service says no; web/refusals.py is the one place that says it.

A refusal is an exception with a status, a stable code and a text for people. Codes are API: never renamed. On the wire:

    {"error": "<text for people>", "code": "<stable_snake_case>", ...fields}

Whoever meets a new situation adds a class here; nobody writes a status into a response by hand.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientGone(Exception):
    """The client hung up while we waited for it: there is nobody left to answer, so this is no error."""


class ApiError(Exception):
    """A refusal: `status`, `code` and `text` belong to the class; `fields` are further members of the JSON answer."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    text: ClassVar[str] = "Internal error"
    retry_after: ClassVar[int | None] = None

    def __init__(
        self,
        text: str | None = None,
        *,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> None:
        self.answer_status = self.status if status is None else status
        self.answer_text = self.text if text is None else text
        self.headers = dict(headers or {})
        if self.retry_after is not None:
            self.headers.setdefault("Retry-After", str(self.retry_after))
        self.fields = fields
        super().__init__(f"{self.code}: {self.answer_text}")

    def body(self) -> dict[str, Any]:
        return {"error": self.answer_text, "code": self.code, **self.fields}


class InternalError(ApiError):
    """Something we did not foresee. Its cause is in the log under the request id and never in the answer."""


class MalformedJson(ApiError):
    status, code, text = 400, "malformed_json", "The body is not the JSON this route takes"


class MalformedMultipart(ApiError):
    status, code, text = 400, "malformed_multipart", "The body is not valid multipart/form-data"


class BadField(ApiError):
    """A field, query parameter, path part or header with a value we cannot take; `field` names it."""

    status, code, text = 400, "bad_field", "A field has a bad value"

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}", field=field)


class MissingField(ApiError):
    status, code, text = 400, "missing_field", "A field is missing"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is missing", field=field)


class DuplicateField(ApiError):
    """The same field twice: which one is meant is a guess, and a guess here could store the wrong bytes."""

    status, code, text = 400, "duplicate_field", "A field stands there twice"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} stands there twice", field=field)


class EmptyChunk(ApiError):
    status, code, text = 400, "empty_chunk", "Empty chunk body"


class DigestMismatch(ApiError):
    status, code, text = 400, "digest_mismatch", "The bytes that arrived do not match Content-Digest"


class UploadsBusy(ApiError):
    """No free place. 400 by default because the founding contract says so; UPLOADS_BUSY_STATUS changes it."""

    status, code, text = 400, "uploads_busy", "Server busy, please retry"


class NotSignedIn(ApiError):
    status, code, text = 401, "not_signed_in", "No valid token found"

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text, headers={"WWW-Authenticate": "Bearer"})


class InvalidToken(NotSignedIn):
    """A token that we do not know: never issued, expired, or revoked by a sign-out."""

    status, code, text = 401, "invalid_token", "Invalid token: unknown, expired or revoked"


class WrongCredentials(ApiError):
    status, code, text = 401, "invalid_credentials", "Invalid credentials"


class CrossSiteRequest(ApiError):
    status, code, text = 403, "cross_site_request", "A request with only a cookie must come from the same origin"


class OriginNotAllowed(ApiError):
    """A browser asked beforehand whether a page of another origin may send this request."""

    status, code, text = 403, "origin_not_allowed", "Pages of this origin may not send such a request"


class NotYours(ApiError):
    status, code, text = 403, "not_yours", "Access denied"


class NotFound(ApiError):
    status, code, text = 404, "not_found", "There is nothing here"


class FileNotThere(ApiError):
    status, code, text = 404, "file_not_found", "File not found"


class FolderNotThere(ApiError):
    status, code, text = 404, "folder_not_found", "Folder not found"


class ChunkNotThere(ApiError):
    status, code, text = 404, "chunk_not_found", "Chunk not found or access denied"


class UserNotThere(ApiError):
    status, code, text = 404, "user_not_found", "User not found"


class NotInTrash(ApiError):
    status, code, text = 404, "not_in_trash", "It is not in the trash"


class ShareNotThere(ApiError):
    status, code, text = 404, "share_not_found", "Nothing of this is shared with that user"


class MethodNotAllowed(ApiError):
    status, code, text = 405, "method_not_allowed", "This method is not allowed here"


class BodyTooSlow(ApiError):
    status, code, text = 408, "body_too_slow", "The body did not arrive in time"


class UploadTooSlow(ApiError):
    status, code, text = 408, "upload_too_slow", "The chunk arrives too slowly, please retry"


class AlreadyRegistered(ApiError):
    status, code, text = 409, "already_registered", "E-mail or username is already registered"


class UploadClosed(ApiError):
    """The upload was finalized: its chunks cannot change any more."""

    status, code, text = 409, "upload_closed", "This upload is closed"


class UploadIncomplete(ApiError):
    """`missing` is a list of [first, last] index ranges that are still to come, as far as they can be told."""

    status, code, text = 409, "upload_incomplete", "The upload is not complete"


class InTrash(ApiError):
    """Its owner asks for something that is not done with what lies in the trash; for others it is not there at all."""

    status, code, text = 409, "in_trash", "It is in the trash"


class TooManyMembers(ApiError):
    status, code, text = 409, "too_many_members", "It is shared with as many users as can be"


class Overtaken(ApiError):
    """Two requests at once: the other one removed a folder, a file or a user that this one was about to use."""

    status, code, text = 409, "overtaken", "What this request needs was removed meanwhile"


class FolderCycle(ApiError):
    status, code, text = 409, "folder_cycle", "A folder cannot lie below itself"


class PreconditionFailed(ApiError):
    status, code, text = 412, "precondition_failed", "It is another version than the one the request insists on"


class ChunkTooLarge(ApiError):
    status, code, text = 413, "chunk_too_large", "The chunk is larger than the limit"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A chunk is at most {limit} bytes", limit=limit)


class BodyTooLarge(ApiError):
    status, code, text = 413, "body_too_large", "The body is larger than the limit"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is at most {limit} bytes", limit=limit)


class UnsupportedMediaType(ApiError):
    status, code, text = 415, "unsupported_media_type", "This route does not take that Content-Type"


class RangeNotSatisfiable(ApiError):
    status, code, text = 416, "range_not_satisfiable", "The range is outside of the file"


class TooManyAttempts(ApiError):
    status, code, text = 429, "too_many_attempts", "Too many attempts, please wait"


class ObjectDamaged(ApiError):
    """An object that is missing, has another length than its row, or other bytes."""

    status, code, text = 502, "chunk_damaged", "A stored chunk is missing or damaged"


class StoreDown(ApiError):
    status, code, text, retry_after = 503, "store_unavailable", "The object store is unavailable, please retry", 5


class DatabaseDown(ApiError):
    status, code, text, retry_after = 503, "database_unavailable", "The database is unavailable, please retry", 5


class OutcomeUnknown(DatabaseDown):
    """The connection broke while a statement ran: it may or may not have been committed. Take nothing back on this."""


class DatabaseBusy(ApiError):
    status, code, text, retry_after = 503, "database_busy", "The database has no free connection, please retry", 2


class Collided(DatabaseBusy):
    """Two transactions waited for each other, and the database took this one back, whole: it may be tried again."""


class DownloadsBusy(ApiError):
    status, code, text, retry_after = 503, "downloads_busy", "Server busy, please retry", 2


class ListsBusy(ApiError):
    """More long listings on their way than we have memory for, and none of them ended in time."""

    status, code, text, retry_after = 503, "lists_busy", "Server busy, please retry", 2


class SignInBusy(ApiError):
    """More password checks than we have memory for; each Argon2id check takes its share of it."""

    status, code, text, retry_after = 503, "sign_in_busy", "Server busy, please retry", 1


class ShuttingDown(ApiError):
    status, code, text, retry_after = 503, "shutting_down", "The server is shutting down, please retry", 5


class QuotaExceeded(ApiError):
    status, code, text = 507, "quota_exceeded", "Insufficient storage space"


class StoreFull(ApiError):
    status, code, text = 507, "store_full", "The server's storage is full"
