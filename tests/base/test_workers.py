"""Twin: an ordered map over processes is `map`; progress says how far and how long."""

import io
import operator

import pytest

from pretrain.base.progress import Progress
from pretrain.base.workers import ordered_map


@pytest.mark.parametrize("processes", [1, 2])
def test_ordered_map_is_map(processes: int) -> None:
    assert list(ordered_map(operator.neg, range(50), processes)) == [-x for x in range(50)]
    with pytest.raises(ValueError, match="seventy"):
        list(ordered_map(int, ["1", "2", "seventy", "3"], processes))


def test_progress_in_a_pipe_is_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 6.0, 7.0, 7.0, 7.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock, 8.0))
    stream = io.StringIO()
    with Progress("reading", 120, unit="files", stream=stream) as progress:
        for _ in range(3):
            progress.advance(20)
    assert stream.getvalue() == "reading: 40 of 120 files, 14 s left\n"
