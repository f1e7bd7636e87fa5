"""Computes less while the machine is hot, before the kernel halves its clock or switches it off.

Reads the thermal zones of sysfs each few seconds and turns the hottest, by its own trip points, into the share of
the time in which models may compute (`share_allowed`, the documented curve). A machine without zones, or with
sensors that tell nonsense, computes as if there were none: no reading ever raises an error or stops a request.

Source: Linux Documentation/driver-api/thermal/sysfs-api.rst (`temp`, `trip_point_*_type`, `trip_point_*_temp`,
millidegrees Celsius).
"""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference_server.host.thermal_curve import (
    BEGIN_CELSIUS,
    BELOW_CRITICAL,
    BELOW_PASSIVE,
    END_CELSIUS,
    next_share,
)
from inference_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

ROOT = Path("/sys/class/thermal")
POLL_SECONDS = 5.0

_MOST_ZONES = 64
_MOST_TRIPS = 16
_PLAUSIBLE = (-40.0, 150.0)
# A trip point below says nothing about a processor: a battery's, a fan's, or one never set.
_LEAST_TRIP = 50.0


@dataclass(frozen=True, slots=True)
class Zone:
    """One thermal zone.

    Attributes:
        name: Folder and type, as in `thermal_zone0 cpu-thermal`.
        temperature: File with the reading.
        begin: Degrees Celsius up to which everything is allowed.
        end: Degrees from which on only `LEAST_SHARE` is.
    """

    name: str
    temperature: Path
    begin: float
    end: float


def find_zones(root: Path = ROOT) -> list[Zone]:
    """Return the zones that have a plausible reading now."""
    try:
        folders = sorted(root.glob("thermal_zone*"))[:_MOST_ZONES]
    except OSError:
        return []
    zones = []
    for folder in folders:
        reading = folder / "temp"
        if _celsius(reading) is None:
            continue
        kind = (_text(folder / "type") or "")[:60]
        passive, critical = _trip(folder, "passive"), _trip(folder, "critical")
        begin = BEGIN_CELSIUS if passive is None else passive - BELOW_PASSIVE
        end = END_CELSIUS if critical is None else critical - BELOW_CRITICAL
        # A critical point below the passive one: the lower of the two is what must not be reached.
        begin = min(begin, end - 1.0)
        zones.append(Zone(f"{folder.name} {kind}".strip(), reading, begin, end))
    return zones


class Thermal:
    """The temperature of this machine, and what follows from it.

    Attributes:
        share: Share of the time in which models may compute now, from `LEAST_SHARE` to 1.
    """

    def __init__(self, metrics: Metrics, root: Path = ROOT) -> None:
        self.share = 1.0
        self._metrics = metrics
        self._zones = find_zones(root)
        self._shares = dict.fromkeys(self._zones, 1.0)
        for zone in self._zones:
            logger.info(
                "thermal zone",
                extra={
                    "fields": {
                        "zone": zone.name,
                        "full_below_celsius": zone.begin,
                        "least_from_celsius": zone.end,
                    }
                },
            )

    @property
    def present(self) -> bool:
        """Whether there is anything to read; without it there is nothing to poll."""
        return bool(self._zones)

    async def follow(self, slow_down: Callable[[float], None]) -> None:
        """Poll for ever, in a thread, since a sensor behind a slow bus takes a while; tell of each new share."""
        while True:
            before = self.share
            await asyncio.to_thread(self.poll)
            if self.share != before:
                slow_down(self.share)
            await asyncio.sleep(POLL_SECONDS)

    def poll(self) -> None:
        """Read every zone. A zone that cannot be read now allows everything until it can."""
        for zone in self._zones:
            celsius = _celsius(zone.temperature)
            self._metrics.thermal.labels(zone.name).set(math.nan if celsius is None else celsius)
            self._shares[zone] = (
                1.0 if celsius is None else next_share(self._shares[zone], celsius, zone.begin, zone.end)
            )
        share = min(self._shares.values(), default=1.0)
        if (share < 1.0) != (self.share < 1.0):
            hottest = min(self._shares, key=lambda zone: self._shares[zone])
            logger.warning(
                "too hot: computing less" if share < 1.0 else "cool again: computing as before",
                extra={"fields": {"zone": hottest.name, "share": round(share, 2)}},
            )
        self.share = share
        self._metrics.concurrency_ratio.set(share)


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(128).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):  # a sensor that is switched off answers EAGAIN, EINVAL or EIO
        return None


def _celsius(path: Path) -> float | None:
    text = _text(path)
    try:
        celsius = int(text or "") / 1000
    except ValueError:
        return None
    return celsius if _PLAUSIBLE[0] <= celsius <= _PLAUSIBLE[1] else None


def _trip(folder: Path, kind: str) -> float | None:
    """Return the lowest trip point of a kind that can be meant for a processor."""
    found = []
    for number in range(_MOST_TRIPS):
        stated = _text(folder / f"trip_point_{number}_type")
        if stated is None:
            break
        celsius = _celsius(folder / f"trip_point_{number}_temp")
        if stated == kind and celsius is not None and celsius >= _LEAST_TRIP:
            found.append(celsius)
    return min(found, default=None)
