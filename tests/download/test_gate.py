"""Places for downloads."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from gauzian.download.gate import DownloadGate
from gauzian.errors import DownloadsBusy, ShuttingDown
from gauzian.metrics import Metrics


def test_a_full_gate_says_busy_and_takes_no_place() -> None:
    metrics = Metrics()
    gate = DownloadGate(places=2, metrics=metrics)
    with gate.enter(), gate.enter():
        for _ in range(20):
            with pytest.raises(DownloadsBusy) as refused, gate.enter():
                pass
            assert refused.value.answer_status == 503
            assert refused.value.headers["Retry-After"] in {"1", "2", "3"}
        assert gate.taken == 2
    assert gate.taken == 0
    assert b'gauzian_download_rejections_total{reason="places"} 20.0' in metrics.render()


def test_a_place_is_given_back_by_any_exception() -> None:
    gate = DownloadGate(places=1, metrics=Metrics())
    for kind in (ValueError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(kind), gate.enter():
            raise kind
        assert gate.taken == 0


def test_a_closed_gate_lets_nobody_in_and_everybody_out() -> None:
    gate = DownloadGate(places=2, metrics=Metrics())
    with ExitStack() as inside:
        inside.enter_context(gate.enter())
        gate.close()
        with pytest.raises(ShuttingDown), gate.enter():
            pass
        assert gate.taken == 1
    assert gate.taken == 0
