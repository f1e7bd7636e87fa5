"""From the text of a setting to its value.

Pure. Each raises `ValueError` with the words that say what was expected.
"""

import re
from collections.abc import Callable


def text(raw: str) -> str:
    """Return a name."""
    if not raw or len(raw) > 256 or not raw.isprintable() or "/" in raw:
        raise ValueError("1 to 256 printable characters without '/'")
    return raw


def digest(raw: str) -> str:
    """Return a digest."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", raw):
        raise ValueError("sha256: and 64 lower-case hexadecimal digits")
    return raw


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return what converts to a whole number within bounds."""

    def convert(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", raw) or not low <= int(raw) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(raw)

    return convert


def seconds(raw: str) -> float:
    """Return a length of time."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", raw):
        raise ValueError("seconds, as in 5 or 0.5")
    return float(raw)


def short_seconds(raw: str) -> float:
    """Return a short length of time."""
    if not re.fullmatch(r"[0-9](\.[0-9]{1,6})?", raw):
        raise ValueError("seconds below 10, as in 0.002")
    return float(raw)


def share(raw: str) -> float:
    """Return a share."""
    if not re.fullmatch(r"[01](\.[0-9]{1,6})?", raw) or float(raw) > 1:
        raise ValueError("a share from 0 to 1, as in 0.01")
    return float(raw)


def truth(raw: str) -> bool:
    """Return a truth value."""
    if raw.lower() not in {"true", "false"}:
        raise ValueError("true or false")
    return raw.lower() == "true"


def providers(raw: str) -> tuple[str, ...]:
    """Return names of execution providers."""
    if not re.fullmatch(r"[A-Za-z]{1,60}(,[A-Za-z]{1,60}){0,9}", raw):
        raise ValueError("names separated by commas, as in cuda,cpu")
    return tuple(raw.split(","))


def memory_mode(raw: str) -> str:
    """Return a memory mode."""
    if raw.lower() not in {"standard", "low"}:
        raise ValueError("standard or low")
    return raw.lower()


def level(raw: str) -> str:
    """Return a level of the log."""
    if raw.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("debug, info, warning or error")
    return raw.upper()


def processes(raw: str) -> int | None:
    """Return a number of processes, None for as many as pay."""
    if raw.lower() == "auto":
        return None
    try:
        return whole(1, 64)(raw)
    except ValueError:
        raise ValueError("a whole number from 1 to 64, or auto") from None
