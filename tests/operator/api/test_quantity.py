"""Quantities, durations and modes mean the numbers people expect."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage_operator.api import cpu_millis, cpu_text, file_mode, memory_bytes, memory_text, seconds
from moorage_operator.api.scalars import CPU, DURATION, MEMORY
from moorage_operator.errors import InvalidSpec


@pytest.mark.parametrize(("written", "millis"), [("1", 1000), ("500m", 500), ("1.5", 1500), ("0.0001", 1), ("0", 0), ("100000n", 1)])
def test_cpu(written: str, millis: int) -> None:
    assert cpu_millis(written) == millis


@pytest.mark.parametrize(
    ("written", "size"),
    [("4096", 4096), ("1Ki", 1024), ("256Mi", 268435456), ("1.5Gi", 1610612736), ("1k", 1000), ("1G", 10**9), ("0.1", 1), ("2Ti", 2**41)],
)
def test_memory(written: str, size: int) -> None:
    assert memory_bytes(written) == size


@pytest.mark.parametrize(
    ("written", "length"), [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1h1m1s1ms", 3661.001), ("0s", 0), ("1h", 3600), ("90m", 5400)]
)
def test_duration(written: str, length: float) -> None:
    assert seconds(written) == length


@pytest.mark.parametrize(("written", "bits"), [("0444", 0o444), ("400", 0o400), ("0777", 0o777)])
def test_file_mode(written: str, bits: int) -> None:
    assert file_mode(written) == bits


@pytest.mark.parametrize("written", ["", "-1", "1e3", "1 Gi", "512mb", "Mi", "1gi", "1.", "٣"])
def test_a_quantity_that_is_none_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(InvalidSpec, match=r'is not a memory quantity: write for example "256Mi" or "1Gi"'):
        memory_bytes(written)
    with pytest.raises(InvalidSpec, match=r'is not a cpu quantity: write for example "500m" or "1.5"'):
        cpu_millis(written)


@pytest.mark.parametrize("written", ["", "10", "s", "10 s", "1d", "-1s", "1.5s", "1s1s1s1s1s", "٣s"])
def test_a_duration_that_is_none_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(InvalidSpec, match="write for example"):
        seconds(written)


@pytest.mark.parametrize("written", ["", "9", "0999", "1777", "u+r", "00444"])
def test_a_mode_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(InvalidSpec, match="three octal digits"):
        file_mode(written)


@given(st.from_regex(re.compile(DURATION), fullmatch=True))
def test_the_operator_reads_every_duration_the_server_accepts(written: str) -> None:
    assert seconds(written.rstrip("\n")) >= 0


@given(st.from_regex(re.compile(CPU, re.ASCII), fullmatch=True), st.from_regex(re.compile(MEMORY, re.ASCII), fullmatch=True))
def test_the_operator_reads_every_quantity_the_server_accepts(cpu: str, memory: str) -> None:
    assert cpu_millis(cpu.rstrip("\n")) >= 0
    assert memory_bytes(memory.rstrip("\n")) >= 0


@given(st.integers(0, 2**62))
def test_text_of_a_size_is_short_and_never_less_than_it(size: int) -> None:
    written = memory_text(size)
    assert size <= memory_bytes(written) <= size + size // 100 + 1
    assert len(written) <= 8


@given(st.integers(0, 10**9))
def test_text_of_cpu_is_exact(millis: int) -> None:
    assert cpu_millis(cpu_text(millis)) == millis
