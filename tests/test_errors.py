"""One JSON shape for every refusal, one code per class, and nothing of a foreign error on the wire."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from gauzian import errors, registration_errors
from gauzian.errors import ApiError, ClientGone, Message, Receive, Scope, Send, UploadsBusy
from gauzian.web.refusals import AnswerErrors
from tests.asgi import call, scope_of


def subclasses(kind: type[ApiError]) -> list[type[ApiError]]:
    return [kind, *(found for sub in kind.__subclasses__() for found in subclasses(sub))]


def make(kind: type[ApiError]) -> ApiError:
    arguments: dict[type[ApiError], tuple[object, ...]] = {
        errors.BadField: ("index", "not a number"),
        errors.MissingField: ("iv",),
        errors.DuplicateField: ("iv",),
        errors.ChunkTooLarge: (10,),
        errors.BodyTooLarge: (10,),
    }
    return kind(*arguments.get(kind, ()))  # type: ignore[arg-type]


KINDS = [kind for kind in subclasses(ApiError) if kind.__module__ in (errors.__name__, registration_errors.__name__)]


class Raises:
    def __init__(self, error: BaseException, *, after_start: bool = False) -> None:
        self.error, self.after_start = error, after_start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.after_start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise self.error


# For those who catch them another thing, for clients the same.
SAME_TO_CLIENTS = (errors.InternalError, errors.OutcomeUnknown, errors.Collided)


def test_codes_are_unique_words() -> None:
    codes = Counter(kind.code for kind in KINDS if kind not in SAME_TO_CLIENTS)
    assert [code for code, times in codes.items() if times > 1] == []
    assert all(re.fullmatch(r"[a-z][a-z0-9_]+", code) for code in codes)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_every_refusal_has_the_same_shape(kind: type[ApiError]) -> None:
    counted: list[str] = []
    answer = await call(AnswerErrors(Raises(make(kind)), count=counted.append), "GET", "/")
    assert answer.status == kind.status
    assert answer.header("content-type") == "application/json"
    body = answer.json()
    assert body["code"] == kind.code
    assert isinstance(body["error"], str)
    assert body["error"]
    assert counted == [kind.code]
    assert (answer.header("retry-after") is not None) == (kind.retry_after is not None)


@pytest.mark.anyio
async def test_a_foreign_error_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    answer = await call(AnswerErrors(Raises(ValueError("password=hunter22")), count=lambda code: None), "GET", "/")
    assert (answer.status, answer.json()) == (500, {"error": "Internal error", "code": "internal_error"})
    assert "hunter22" in caplog.text  # but the operator is told


@pytest.mark.anyio
async def test_after_the_first_byte_the_error_goes_on_to_the_server() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    app = AnswerErrors(Raises(errors.ObjectDamaged(), after_start=True), count=lambda code: None)
    with pytest.raises(errors.ObjectDamaged):
        await app(scope_of("GET", "/"), receive, send)
    assert [message["type"] for message in sent] == ["http.response.start"]


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ClientGone(), OSError("the peer is gone")])
async def test_a_client_that_left_is_not_answered_and_not_an_error(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        if isinstance(error, OSError):
            raise error
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    class Answers:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if isinstance(error, ClientGone):
                raise error
            await send({"type": "http.response.start", "status": 200, "headers": []})

    scope = scope_of("GET", "/")
    await AnswerErrors(Answers(), count=lambda code: None)(scope, receive, send)
    assert sent == []
    assert caplog.text == ""
    assert scope["gauzian.client_gone"] is True


@pytest.mark.anyio
async def test_an_answer_to_head_has_no_body() -> None:
    answer = await call(AnswerErrors(Raises(errors.NotFound()), count=lambda code: None), "HEAD", "/")
    assert (answer.status, answer.body) == (404, b"")


def test_busy_may_have_another_status() -> None:
    error = UploadsBusy(status=503, headers={"Retry-After": "2"})
    assert (error.answer_status, error.body()) == (503, {"error": "Server busy, please retry", "code": "uploads_busy"})


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "is_logged"),
    [
        (errors.StoreDown(), True),
        (errors.ObjectDamaged(), True),
        (ValueError("a mistake of ours"), True),
        (errors.QuotaExceeded(), False),
        (UploadsBusy(status=503), False),
        (errors.ShuttingDown(), False),
        (errors.NotFound(), False),
    ],
)
async def test_what_fails_is_logged_with_its_code_and_what_we_refuse_on_purpose_is_not(
    caplog: pytest.LogCaptureFixture, error: Exception, is_logged: bool
) -> None:
    answer = await call(AnswerErrors(Raises(error), count=lambda code: None), "GET", "/")
    found = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [getattr(record, "code", None) for record in found] == ([answer.json()["code"]] if is_logged else [])
