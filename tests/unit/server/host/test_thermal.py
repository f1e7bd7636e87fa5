"""The curve from temperature to work, and sensors that tell nonsense."""

import math

import pytest

from inference_server.host.thermal import Thermal, find_zones
from inference_server.host.thermal_curve import next_share, pause_after, share_allowed, slowed
from inference_server.telemetry.metrics import Metrics


class Machine:
    """A sysfs of thermal zones."""

    def __init__(self, root):
        self.root = root
        self.metrics = Metrics()

    def zone(self, number, temp, *, kind="cpu-thermal", trips=()):
        folder = self.root / f"thermal_zone{number}"
        folder.mkdir()
        (folder / "type").write_text(f"{kind}\n")
        self.heat(number, temp)
        for index, (trip, celsius) in enumerate(trips):
            (folder / f"trip_point_{index}_type").write_text(f"{trip}\n")
            (folder / f"trip_point_{index}_temp").write_text(f"{celsius * 1000}\n")

    def heat(self, number, temp):
        text = temp if isinstance(temp, str) else f"{int(temp * 1000)}\n"
        (self.root / f"thermal_zone{number}/temp").write_text(text)

    def thermal(self):
        return Thermal(self.metrics, self.root)

    def sample(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("celsius", "share"), [(-10, 1), (75, 1), (80, 0.75), (85, 0.5), (90, 0.25), (110, 0.25)]
)
def test_the_curve(celsius, share):
    assert share_allowed(celsius, 75, 90) == pytest.approx(share)


@pytest.mark.parametrize(
    ("previous", "celsius", "share"),
    [
        (1.0, 80, 0.75),  # hotter: at once
        (0.5, 84, 0.5),  # one degree cooler: not yet more
        (0.5, 82, 0.5),
        (0.5, 80, 0.6),  # as at 83 degrees
        (0.25, 72, 1.0),
        (0.25, 73, 0.95),
    ],
)
def test_more_is_allowed_only_when_it_is_clearly_cooler(previous, celsius, share):
    assert next_share(previous, celsius, 75, 90) == pytest.approx(share)


@pytest.mark.parametrize(
    ("seconds", "share", "pause"), [(1, 1, 0), (1, 0.5, 1), (0.2, 0.25, 0.6), (1, 0.0, 3)]
)
def test_a_pause_makes_computing_the_share_of_the_time(seconds, share, pause):
    assert pause_after(seconds, share) == pytest.approx(pause)


@pytest.mark.parametrize(
    ("sessions", "share", "allowed", "each"),
    [(1, 1, 1, 1), (1, 0.25, 1, 0.25), (2, 0.25, 1, 0.5), (2, 0.75, 2, 0.75), (4, 0.5, 2, 1), (4, 0.0, 1, 1)],
)
def test_fewer_sessions_and_their_rests_make_the_share_together(sessions, share, allowed, each):
    assert slowed(sessions, share) == (allowed, pytest.approx(each))


@pytest.mark.parametrize(
    ("name", "trips", "begin", "end"),
    [
        ("no trip points", (), 75, 90),
        ("both", (("passive", 80), ("critical", 100)), 70, 95),
        ("the first passive one counts", (("passive", 95), ("passive", 85), ("critical", 105)), 75, 100),
        ("other kinds do not", (("active", 60), ("hot", 90)), 75, 90),
        ("points that were never set", (("passive", 0), ("critical", -274)), 75, 90),
        ("a critical point below the passive one", (("passive", 95), ("critical", 70)), 64, 65),
    ],
)
def test_trip_points_place_the_curve(machine, name, trips, begin, end):
    machine.zone(0, 40, trips=trips)
    (zone,) = find_zones(machine.root)
    assert (zone.name, zone.begin, zone.end) == ("thermal_zone0 cpu-thermal", begin, end)


def test_the_hottest_zone_by_its_own_curve_decides(machine, caplog):
    machine.zone(0, 79)
    machine.zone(1, 79, kind="gpu", trips=(("passive", 75), ("critical", 95)))
    thermal = machine.thermal()
    thermal.poll()
    assert thermal.share == pytest.approx(1 - 0.75 * 14 / 25)
    assert machine.sample("inference_concurrency_limit_ratio") == thermal.share
    assert machine.sample("inference_thermal_celsius", zone="thermal_zone1 gpu") == 79
    assert "too hot" in caplog.text
    machine.heat(0, 40)
    machine.heat(1, 40)
    thermal.poll()
    assert thermal.share == 1
    assert "cool again" in caplog.text


@pytest.mark.parametrize("text", ["", "hot", "-274000", "99999999999999999999", "\xff", "0x10"])
def test_a_sensor_that_tells_nonsense_is_no_sensor(machine, text):
    machine.zone(0, text)
    assert not machine.thermal().present


def test_a_sensor_that_breaks_while_it_was_hot_allows_everything(machine):
    machine.zone(0, 100)
    thermal = machine.thermal()
    thermal.poll()
    assert thermal.share == 0.25
    (machine.root / "thermal_zone0/temp").unlink()
    thermal.poll()
    assert thermal.share == 1
    assert math.isnan(machine.sample("inference_thermal_celsius", zone="thermal_zone0 cpu-thermal"))


def test_a_machine_without_zones_allows_everything(tmp_path):
    thermal = Thermal(Metrics(), tmp_path / "absent")
    thermal.poll()
    assert (thermal.present, thermal.share) == (False, 1)
