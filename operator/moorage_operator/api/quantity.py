"""What quantities, durations and file modes of a manifest mean as numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from moorage_operator.errors import InvalidSpec

_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_FRACTIONS: Final = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000)}
_WHOLE: Final = {suffix: Fraction(factor) for suffix, factor in (_BINARY | _DECIMAL).items()}
_SUFFIXES: Final = _WHOLE | _FRACTIONS
_QUANTITY: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(n|u|m|k|[KMGTPE]i|[MGTPE]|)")
_DURATION: Final = re.compile(r"(?:[0-9]{1,5}(?:h|ms|m|s)){1,4}")
_DURATION_PART: Final = re.compile(r"([0-9]+)(h|ms|m|s)")
_UNIT_S: Final = {"h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}


def cpu_millis(quantity: str) -> int:
    """Thousandths of a core, rounded up: "500m", "1.5", "2". Raises InvalidSpec."""
    return _rounded_up(_number(quantity, "cpu", '"500m" or "1.5"') * 1000)


def memory_bytes(quantity: str) -> int:
    """Bytes, rounded up: "256Mi", "1G", "4096". Raises InvalidSpec."""
    return _rounded_up(_number(quantity, "memory", '"256Mi" or "1Gi"'))


def seconds(duration: str) -> float:
    """Seconds in "10s", "1m30s", "500ms" (the duration format of the Gateway API). Raises InvalidSpec."""
    if not _DURATION.fullmatch(duration):
        raise InvalidSpec(f'"{duration}" is not a duration: write for example "10s", "1m30s" or "500ms"')
    return float(sum(Decimal(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(duration)))


def file_mode(mode: str) -> int:
    """Permission bits in "0444". Raises InvalidSpec."""
    if not re.fullmatch(r"0?[0-7]{3}", mode):
        raise InvalidSpec(f'"{mode}" is not a file mode: write three octal digits, quoted, for example "0440"')
    return int(mode, 8)


def cpu_text(millis: int) -> str:
    """As Kubernetes writes it: 1500 → "1500m", 2000 → "2"."""
    return f"{millis}m" if millis % 1000 else str(millis // 1000)


def memory_text(size: int) -> str:
    """Bytes for people, rounded up to a binary unit that keeps three digits: 1 GiB → "1Gi", 1.2 GiB → "1229Mi"."""
    for suffix, factor in reversed(_BINARY.items()):
        if size >= factor and (size % factor == 0 or size >= 100 * factor):
            return f"{-(-size // factor)}{suffix}"
    return str(size)


def _number(quantity: str, what: str, example: str) -> Fraction:
    matched = _QUANTITY.fullmatch(quantity)
    if matched is None:
        raise InvalidSpec(f'"{quantity}" is not a {what} quantity: write for example {example}')
    return Fraction(matched[1]) * _SUFFIXES[matched[2]]


def _rounded_up(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
