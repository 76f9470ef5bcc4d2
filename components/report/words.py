"""Numbers, durations and settings as people read them: one spelling for the page, the tables and the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from components.artifacts import Estimate

NONE = "–"
COUNTED = ("num_parameters", "macs")
SPOKEN = {
    "auc": "AUC", "log_loss": "log-loss", "f1": "F1", "rmse": "RMSE", "mae": "MAE", "r2": "R²",
    "latency_ms": "latency, ms", "size_kb": "size, KiB", "num_parameters": "parameters", "macs": "MACs",
}  # fmt: skip


def figure(value: float | int | None, digits: int = 4) -> str:
    """A measured number: `digits` decimals near one, thousands separated, powers of ten where it is tiny.

    >>> figure(0.99167), figure(48250.4), figure(0.00002)
    ('0.9917', '48,250', '2e-05')
    """
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    size = abs(value)
    if size and size < 10**-digits:
        return f"{value:.2g}"
    if size < 10:
        return f"{value:.{digits}f}"
    return f"{value:,.{max(0, min(2, digits - 1))}f}" if size < 10_000 else f"{value:,.0f}"


def interval(estimate: Estimate | None) -> str:
    """The 95 % interval, lower bound to upper bound."""
    return NONE if estimate is None else f"{figure(estimate.low)} to {figure(estimate.high)}"


def difference(value: float, than: float) -> str:
    """How far `value` is from `than`, with its sign.

    >>> difference(0.99, 0.985), difference(1.0, 1.0)
    ('+0.0050', '±0')
    """
    gap = value - than
    return "±0" if gap == 0 else f"{'+' if gap > 0 else '−'}{figure(abs(gap))}"


def seconds(value: float | None) -> str:
    """A duration.

    >>> seconds(0.0412), seconds(7.31), seconds(74), seconds(3720)
    ('41 ms', '7.3 s', '1 min 14 s', '1 h 02 min')
    """
    if value is None:
        return NONE
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def milliseconds(value: float | None) -> str:
    """A latency in ms, three significant digits."""
    if not value:
        return NONE
    return f"{value:.0f} ms" if value >= 100 else f"{value:#.3g} ms"


def kibibytes(value: float | None) -> str:
    """A file's size given in KiB."""
    if value is None:
        return NONE
    if value >= 1024:
        return f"{value / 1024:.1f} MiB"
    return f"{value:.0f} KiB" if value >= 100 else f"{value:.1f} KiB"


def share(value: float) -> str:
    """A fraction in per cent.

    >>> share(0.0312), share(0.5)
    ('3.1 %', '50 %')
    """
    percent = value * 100
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"


def moment(value: Any) -> str:
    """A point in time, given in seconds since the epoch or already in words, in UTC."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return str(value) if value else NONE


def short(digest: str | None, length: int = 12) -> str:
    """The start of a digest, enough to tell it from others."""
    return digest[:length] if digest else NONE


def metric(name: str) -> str:
    """A metric's or cost's name as a heading says it, with its unit: `log_loss` is log-loss, `latency_ms` latency, ms."""
    return SPOKEN.get(name, name.replace("_", " "))


def plain(name: str) -> str:
    """The name as a sentence says it, without its unit.

    >>> plain("latency_ms"), plain("macs"), plain("log_loss")
    ('latency', 'MACs', 'log-loss')
    """
    return metric(name).partition(",")[0]


def amount(name: str, value: float) -> str:
    """A value of a metric or cost with its unit.

    >>> amount("latency_ms", 0.31), amount("macs", 48250.0)
    ('0.3100 ms', '48,250')
    """
    shown = figure(round(value) if name in COUNTED else value)
    return " ".join([shown, *metric(name).split(", ")[1:]])


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["accuracy", "latency", "size"]), listed(["accuracy"])
    ('accuracy, latency and size', 'accuracy')
    """
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def setting(value: Any) -> str:
    """A setting's value, short enough for a table cell.

    >>> setting([32, 64]), setting(0.0123456), setting({"kind": "plain"}), setting(None), setting(48250.4)
    ('32·64', '0.0123', 'kind plain', 'none', '48,250')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.{4 if abs(value) >= 100 else 3}g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {setting(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "·".join(setting(item) for item in value)
    return str(value)


def settings(values: Mapping[str, Any]) -> str:
    """A mapping's entries in one line: an architecture, a set of hyper-parameters."""
    return ", ".join(f"{key.replace('_', ' ')} {setting(value)}" for key, value in values.items()) or NONE


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> count(1, "trial"), count(2, "class", "classes")
    ('1 trial', '2 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def sentence(text: str) -> str:
    """The text with a full stop, and a capital unless it begins with a name such as `student-int8`, `budget=3m` or `classes:`.

    >>> sentence("one trial failed"), sentence("student-fp32: the smallest"), sentence("")
    ('One trial failed.', 'student-fp32: the smallest.', '')
    """
    text = text.strip()
    if not text:
        return ""
    begins_with_word = text.split()[0].rstrip(",;").isalpha()
    return (text[0].upper() + text[1:] if begins_with_word else text) + ("" if text[-1] in ".!?" else ".")
