"""Numbers, dollars and seconds as a reader wants them."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """
    >>> number(0.1234), number(1234567), number(None)
    ('0.123', '1,234,567', '')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3f}"


def money(value: float | None) -> str:
    """
    >>> money(0.0), money(12.5), money(0.00002), money(None)
    ('$0', '$12.50', '$0.000020', '')
    """
    if value is None:
        return ""
    if value == 0 or abs(value) >= 0.1:
        return f"${value:,.2f}" if value else "$0"
    places = 1 - math.floor(math.log10(abs(value)))  # two digits that say something
    return f"${value:.{places}f}"


def seconds(value: float | None) -> str:
    """
    >>> seconds(0.0123), seconds(42.0), seconds(5400.0)
    ('12.3 ms', '42 s', '1.5 h')
    """
    if value is None:
        return ""
    if value >= 3600:
        return f"{value / 3600:.1f} h"
    if value >= 120:
        return f"{value / 60:.0f} min"
    return f"{value:.3g} s" if value >= 1 or value == 0 else f"{1000 * value:.1f} ms"
