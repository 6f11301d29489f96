"""The gate: a place or "busy" at once, a user's share, and places that always come back."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest

from gauzian.errors import ShuttingDown, UploadsBusy
from gauzian.metrics import Metrics
from gauzian.upload.gate import UploadGate


def gate(places: int = 2, per_user: int = 2, status: int = 400) -> UploadGate:
    return UploadGate(places=places, per_user=per_user, busy_status=status, metrics=Metrics())


def test_a_full_gate_says_busy_and_takes_no_place(caplog: pytest.LogCaptureFixture) -> None:
    full = gate(places=1)
    with full.enter():
        with pytest.raises(UploadsBusy) as caught:
            full.enter()
        assert full.taken == 1
    assert full.taken == 0
    assert caught.value.answer_status == 400
    assert caught.value.headers["Retry-After"] in {"1", "2", "3"}
    assert "Upload rejected: too many concurrent uploads" in [record.message for record in caplog.records]


def test_the_start_up_line_names_the_number_of_places(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        gate(places=50)
    assert [record.message for record in caplog.records] == ["Max concurrent uploads: 50"]


def test_busy_has_the_status_that_was_configured() -> None:
    full = gate(places=1, status=503)
    with full.enter(), pytest.raises(UploadsBusy) as caught:
        full.enter()
    assert caught.value.answer_status == 503


def test_one_user_gets_no_more_than_a_share_and_another_still_gets_in() -> None:
    shared = gate(places=4, per_user=2)
    greedy, modest = uuid4(), uuid4()
    with shared.enter() as first, shared.enter() as second:
        first.claim_for(greedy)
        second.claim_for(greedy)
        with pytest.raises(UploadsBusy), shared.enter() as third:
            third.claim_for(greedy)
        assert shared.taken == 2
        with shared.enter() as other:
            other.claim_for(modest)
    assert (shared.taken, shared._of_user) == (0, {})


def test_a_place_comes_back_whatever_happens_in_it() -> None:
    one = gate(places=1)
    for error in (ValueError, KeyboardInterrupt, UploadsBusy):
        with pytest.raises(error), one.enter() as place:
            place.claim_for(uuid4())
            raise error
        assert (one.taken, one._of_user) == (0, {})


def test_refusals_are_counted_under_the_founding_name() -> None:
    numbers = Metrics()
    full = UploadGate(places=1, per_user=1, busy_status=400, metrics=numbers)
    with full.enter():
        for _ in range(3):
            with pytest.raises(UploadsBusy):
                full.enter()
    text = numbers.render().decode()
    assert "\ngauzian_rejected_uploads 3.0\n" in text
    assert 'gauzian_upload_rejections_total{reason="places"} 3.0' in text


def test_a_closed_gate_lets_nobody_in_and_those_inside_finish() -> None:
    closing = gate()
    with closing.enter():
        closing.close()
        with pytest.raises(ShuttingDown):
            closing.enter()
    assert closing.taken == 0
