from __future__ import annotations

from datetime import UTC, datetime

from api_server import ApiServer, client_of

from podwire.client.api import Client
from podwire.client.events import BURST, EventRecorder, reference
from podwire.client.kubeconfig import Configuration
from podwire.objects.core import Event, Pod
from podwire.objects.meta import ObjectMeta
from podwire.objects.resources import EVENTS

POD = Pod(metadata=ObjectMeta(name="a", namespace="shop", uid="u"))


def recorder(client: Client) -> EventRecorder:
    return EventRecorder(client, "kubelet", "n1", now=lambda: datetime(2026, 1, 1, tzinfo=UTC), clock=lambda: 0.0)


async def test_an_event_says_about_what_and_by_whom() -> None:
    server = ApiServer()
    async with client_of(server) as client:
        events = recorder(client)
        events.event(POD, "Normal", "Started", "Started container c", "spec.containers{c}")
        await events.flush()
        (event,) = await client.list(EVENTS, "shop")
        assert (event.reason, event.message, event.type, event.count) == ("Started", "Started container c", "Normal", 1)
        about = event.involved_object
        assert (about.kind, about.api_version, about.name, about.uid, about.field_path) == ("Pod", "v1", "a", "u", "spec.containers{c}")
        assert (event.source.component, event.source.host) == ("kubelet", "n1")
        assert event.first_timestamp == "2026-01-01T00:00:00Z"


async def test_repeats_are_counted_and_an_event_that_expired_begins_anew() -> None:
    server = ApiServer()
    async with client_of(server) as client:
        events = recorder(client)
        for _ in range(5):
            events.event(POD, "Warning", "BackOff", "again")
        events.event(POD, "Warning", "BackOff", "another message")
        await events.flush()
        found: dict[str, Event] = {event.message: event for event in await client.list(EVENTS, "shop")}
        assert {message: event.count for message, event in found.items()} == {"again": 5, "another message": 1}
        server.objects.clear()
        events.event(POD, "Warning", "BackOff", "again")
        await events.flush()
        assert [event.count for event in await client.list(EVENTS, "shop")] == [1]


async def test_one_object_cannot_flood() -> None:
    server = ApiServer()
    async with client_of(server) as client:
        events = recorder(client)
        for number in range(100):
            events.event(POD, "Normal", "Spam", f"message {number}")
        await events.flush()
        assert len(await client.list(EVENTS, "shop")) == BURST
        assert events.dropped == 100 - BURST


async def test_an_absent_server_harms_nobody() -> None:
    async with Client(Configuration("http://127.0.0.1:1")) as client:
        events = recorder(client)
        events.event(POD, "Normal", "Lost", "nobody hears")
        await events.flush()
        assert events.dropped == 1


def test_a_reference_knows_kinds_that_lists_leave_out() -> None:
    assert (reference(POD).kind, reference(POD).api_version) == ("Pod", "v1")
