"""Closed form, twin and ordeal: time by part, joules of counters that come round, and how much talk nothing hides."""

import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from pretrain.train import clock as clocks
from pretrain.train.clock import Clock
from pretrain.train.energy import Energy, packages
from pretrain.train.machine import vendor_flops_per_second
from pretrain.train.overlap import measured, total
from ranks import ranks

MUTANTS = [
    ("src/pretrain/train/clock.py", "self._marks = self._marks[-1:]", "self._marks = self._marks[:1]"),
    ("src/pretrain/train/clock.py", "seconds[part] += ", "seconds[part] = "),
    ("src/pretrain/train/energy.py", "% self._range", ""),
    ("src/pretrain/train/energy.py", "self._before = now", "pass"),
    ("src/pretrain/train/overlap.py", "max(start, reached)", "start"),
    ("src/pretrain/train/overlap.py", "- total(computes)", ""),
]


def test_time_between_two_marks_is_the_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 3.5, 7.0, 10.0])
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: next(now))
    clock = Clock("cpu")
    for part in ("data", "forward", "backward", "forward"):
        clock.mark(part)
    assert clock.read() == {"data": 1.0, "forward": 2.0 + 3.5, "backward": 0.5}
    clock.mark("optimizer")
    assert clock.read() == {"optimizer": 3.0} and clock.read() == {}


def test_a_counter_that_has_come_round_still_rises(tmp_path: Path) -> None:
    for name, start in (("intel-rapl:0", 900), ("intel-rapl:0:0", 5), ("intel-rapl:1", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
        (tmp_path / name / "energy_uj").write_text(f"{start}\n")
    energy = Energy(packages(tmp_path))
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("50\n")
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("9\n")
    assert energy.read() == pytest.approx((200 + 50) / 1e6)
    assert energy.read() == 0.0
    assert Energy(packages(tmp_path / "none")).read() is None


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda span: (span[0], sum(span)))))
def test_what_spans_cover_is_counted_once(spans: list[tuple[int, int]]) -> None:
    assert total(spans) == len({at for start, end in spans for at in range(start, end)})


@ranks(2)
def test_waiting_for_a_slow_rank_is_communication_that_nothing_hides() -> None:
    def step() -> int:
        x = torch.randn(512, 512)
        start = time.process_time()
        while time.process_time() - start < 0.05:
            x = x @ x / 1000
        if dist.get_rank() == 1:
            time.sleep(1)
        dist.all_reduce(torch.ones(3))
        return 7

    dist.barrier()
    seven, found = measured(step, "cpu")
    assert seven == 7 and 0 <= found.exposed <= found.all <= 1, found
    if dist.get_rank() == 0:
        assert found.exposed > 0.2


def test_a_data_sheet_is_found_by_the_name_and_the_precision() -> None:
    assert vendor_flops_per_second("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert vendor_flops_per_second("NVIDIA H100 PCIe", "bf16") == 756e12
    assert vendor_flops_per_second("NVIDIA H200", "fp8_rowwise") == 1979e12
    assert vendor_flops_per_second("NVIDIA A100-SXM4-80GB", "fp8") == 0.0
    assert vendor_flops_per_second("x86_64", "fp32") == 0.0
