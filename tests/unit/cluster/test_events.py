"""Events: one thing told twice is one Event with a count."""

from datetime import UTC, datetime, timedelta

import pytest

from edgemodel.api.meta import OwnerMetadata
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.events import EventRecorder, event_name
from edgemodel.errors import Transient
from edgemodel.reconcile.decision import Event
from tests.simulators.apiserver import ApiServerSimulator, Fault

OWNER = OwnerMetadata(name="detector", namespace="vision", uid="u-1")
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
EVENT = Event("Warning", "SignatureRejected", "nobody signed it")


async def test_an_event_is_about_its_object_and_says_when(api: ApiServer, server: ApiServerSimulator) -> None:
    await EventRecorder(api, instance="pod-1").record(OWNER, "EdgeModel", EVENT, NOW)
    (live,) = server.objects.values()
    assert live["involvedObject"]["uid"] == "u-1"
    assert (live["type"], live["reason"], live["message"]) == (
        "Warning",
        "SignatureRejected",
        "nobody signed it",
    )
    assert live["firstTimestamp"] == live["lastTimestamp"] == "2026-06-01T12:00:00Z"
    assert live["reportingInstance"] == "pod-1"


async def test_the_same_thing_again_counts_up(api: ApiServer, server: ApiServerSimulator) -> None:
    recorder = EventRecorder(api, instance="pod-1")
    for minutes in range(3):
        await recorder.record(OWNER, "EdgeModel", EVENT, NOW + timedelta(minutes=minutes))
    (live,) = server.objects.values()
    assert live["count"] == 3
    assert live["firstTimestamp"] == "2026-06-01T12:00:00Z"
    assert live["lastTimestamp"] == "2026-06-01T12:02:00Z"


def test_another_thing_or_another_object_is_another_event() -> None:
    names = {
        event_name(OWNER, EVENT),
        event_name(OWNER, Event("Warning", "SignatureRejected", "another message")),
        event_name(OWNER, Event("Normal", "SignatureRejected", "nobody signed it")),
        event_name(OWNER.model_copy(update={"uid": "u-2"}), EVENT),
    }
    assert len(names) == 4
    assert all(name.startswith("detector.") for name in names)


async def test_a_long_message_is_cut_to_what_the_api_server_takes(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    await EventRecorder(api, instance="pod-1").record(
        OWNER, "EdgeModel", Event("Normal", "Promoted", "x" * 5000), NOW
    )
    (live,) = server.objects.values()
    assert len(live["message"]) == 1024


async def test_a_failure_is_the_callers(api: ApiServer, server: ApiServerSimulator) -> None:
    server.faults.append(Fault(lambda method, _: method == "POST", status=500))
    with pytest.raises(Transient):
        await EventRecorder(api, instance="pod-1").record(OWNER, "EdgeModel", EVENT, NOW)
