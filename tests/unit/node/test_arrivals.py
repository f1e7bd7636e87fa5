"""What a node holds and gives to pods: entries that come, change and go, and everything that keeps one from coming."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from edgemodel.artifact import sealing
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.policy import TrustedKey
from edgemodel.node.csi.holdings import Failed, NotEntitled, NotReady
from edgemodel.node.rechecks import Rechecks
from edgemodel.node.store import NodeStore
from edgemodel.node.transfer import Transfers
from edgemodel.node.turnstile import Turnstile
from tests.unit.artifact.artifacts import KEY, OTHER_KEY, POLICY, RELEASE, publish
from tests.unit.artifact.registry_client import SHORT
from tests.unit.node.node_alone import FILES, Node
from tests.unit.node.site import NODE, entry, spec, until

ANOTHER = {"model.onnx": b"another" * 100, "weights/model.data": b"w" * 300_000}


@pytest.fixture
def published(registry):
    return publish(registry, FILES)


async def test_a_model_comes_and_a_pod_that_waits_gets_it(node, published):
    node.take(spec(entry(published)))
    directory = await node.mount(published)
    for path, content in FILES.items():
        assert (directory / path).read_bytes() == content
    line = node.lines()[published.pinned.digest]
    assert (line.state, line.reason, line.kind, line.bytes) == ("Ready", "Pulled", "Full", line.total)


async def test_a_version_whose_files_are_all_here_already_came_in_no_way(node, registry, published):
    node.take(spec(entry(published)))
    await node.state(published, "Ready")
    again = publish(registry, FILES, tag="v2", release=replace(RELEASE, version="2", sequence=99))
    assert again.pinned.digest != published.pinned.digest
    node.take(spec(entry(published), entry(again, role="Candidate")))
    line = await node.state(again, "Ready")
    assert (line.kind, line.saved_bytes, line.bytes) == ("", 0, line.total)


async def test_a_pod_that_is_quicker_than_the_edge_node_waits_a_little(tmp_path, registry, published):
    node = Node(tmp_path / "store", registry, grace=1.0)
    waiting = asyncio.create_task(node.mount(published))
    await asyncio.sleep(0)
    node.take(spec(entry(published)))
    assert (await waiting).is_dir()
    await node.close()


@pytest.mark.parametrize(("namespace", "name"), [("other", "detector"), ("vision", "other")])
async def test_nobody_else_gets_it(node, published, namespace, name):
    node.take(spec(entry(published)))
    await node.mount(published)
    with pytest.raises(NotEntitled):
        await node.mount(published, namespace, name)


async def test_an_entry_that_went_is_given_to_nobody_and_stays_on_disk(node, published):
    node.take(spec(entry(published)))
    directory = await node.mount(published)
    node.take(spec())
    with pytest.raises(NotEntitled):
        await node.mount(published)
    assert directory.is_dir()
    assert node.board.lines() == []


async def test_a_hundred_pods_wait_for_one_download(node, registry, published):
    node.take(spec(entry(published)))
    found = await asyncio.gather(*(node.mount(published) for _ in range(100)))
    assert len(set(found)) == 1
    weights = Digest.of(FILES["weights/model.data"])
    assert len(registry.seen("GET", f"/blobs/{weights}")) == 1


async def test_what_is_on_its_way_too_long_is_refused_with_its_progress(tmp_path, registry, published):
    weights = Digest.of(FILES["weights/model.data"])
    registry.fault("GET", f"/blobs/{weights}", times=None, stall=200_000)
    node = Node(tmp_path / "store", registry, longest_wait=0.3, limits=replace(SHORT, read=30.0))
    node.take(spec(entry(published)))
    with pytest.raises(NotReady, match=r"of 300500 bytes|waits|verified"):
        await node.mount(published)
    await node.close()


# -- trust -------------------------------------------------------------------------------------------------------------


async def test_what_the_policies_refuse_is_said_and_given_to_nobody(node, registry):
    unsigned = publish(registry, FILES, key=None)
    node.take(spec(entry(unsigned)))
    line = await node.state(unsigned, "Failed")
    assert line.reason == "SignatureMissing"
    with pytest.raises(Failed) as refused:
        await node.mount(unsigned)
    assert refused.value.reason == "SignatureMissing"
    weights = Digest.of(FILES["weights/model.data"])
    assert not registry.seen("GET", f"/blobs/{weights}"), "nothing was downloaded"


@pytest.mark.parametrize("policies", [[], ["site", "missing"]])
async def test_no_policy_and_a_policy_that_is_missing_are_no_trust(node, published, policies):
    node.take(spec(entry(published, policies=policies)))
    line = await node.state(published, "Failed")
    assert line.reason == ("InvalidSpec" if policies else "NoMatchingPolicy")


async def test_a_policy_that_changes_stops_new_mounts_and_touches_nothing(node, published):
    node.take(spec(entry(published)))
    directory = await node.mount(published)
    revoked = replace(POLICY, keys=(TrustedKey("publisher", KEY.public, revoked=True),))
    node.take(spec(entry(published), policies=(revoked,)))
    with pytest.raises(Failed) as refused:
        await node.mount(published)
    assert refused.value.reason == "KeyRevoked"
    assert (directory / "model.onnx").read_bytes() == FILES["model.onnx"]
    node.take(spec(entry(published)))
    assert await node.mount(published) == directory


async def test_a_signature_that_came_later_is_looked_for(node, registry, published):
    node.take(spec(entry(published)))
    await node.mount(published)
    stricter = replace(POLICY, keys=(TrustedKey("other", OTHER_KEY.public),))
    node.take(spec(entry(published), policies=(stricter,)))
    await node.state(published, "Failed")
    publish(registry, FILES, key=OTHER_KEY)
    await node.state(published, "Ready")
    assert await node.mount(published)


async def test_an_image_that_pins_another_digest_is_refused(node, registry, published):
    other = publish(registry, ANOTHER, tag="v2")
    node.take(spec(entry(published, image=str(other.pinned))))
    assert (await node.state(published, "Failed")).reason == "InvalidSpec"


async def test_a_clock_that_is_years_off_has_no_part_in_trust(node, published):
    node.time += timedelta(days=20 * 365)
    node.take(spec(entry(published)))
    assert await node.mount(published)


# -- secrets -----------------------------------------------------------------------------------------------------------


async def test_sealed_pull_secrets_open_here_and_only_for_their_model(node, registry, published):
    registry.auth, registry.users = "basic", {"me": "secret"}
    config = f'{{"auths": {{"{registry.host}": {{"username": "me", "password": "secret"}}}}}}'.encode()
    plain = sealing.pack_documents([config])

    def sealed(name):
        return sealing.seal(node.key.public, plain, sealing.pull_secret_context(NODE, "vision", name))

    node.take(spec(entry(published)))
    assert (await node.state(published, "Failed")).reason == "AuthenticationFailed"
    node.take(spec(entry(published, sealedPullSecrets=sealed("other"))))
    line = await until(
        lambda: "not meant for" in (line := node.lines()[published.pinned.digest]).message and line
    )
    assert "secret" not in line.message.replace("pull secrets", "")
    node.take(spec(entry(published, sealedPullSecrets=sealed("detector"))))
    assert (await node.state(published, "Ready")).kind == "Full"


# -- trouble -----------------------------------------------------------------------------------------------------------


async def test_one_bad_entry_holds_up_no_other(tmp_path, registry, published):
    missing = publish(registry, ANOTHER, tag="v2")
    registry.fault("GET", f"/blobs/{Digest.of(ANOTHER['model.onnx'])}", times=None, status=404)
    node = Node(tmp_path / "store", registry, downloads=1)
    node.take(spec(entry(missing, name="another"), {"namespace": "odd"}, entry(published, role="LastGood")))
    await node.state(published, "Ready")
    assert (await node.state(missing, "Failed")).reason == "NotFound"
    await node.close()


async def test_a_registry_that_is_back_is_found_again(node, registry, published):
    fault = registry.fault("GET", r"/manifests/", times=None, status=500)
    node.take(spec(entry(published)))
    assert (await node.state(published, "Failed")).reason in ("RegistryUnreachable", "TransferFailed")
    fault.times = 0
    assert (await node.state(published, "Ready")).message == ""


async def test_a_full_disk_is_said_and_got_over(node, published):
    node.store.budget = 1000
    node.take(spec(entry(published)))
    assert (await node.state(published, "Failed")).reason == "DiskFull"
    node.store.budget = 1 << 30
    await node.state(published, "Ready")


async def test_a_directory_that_goes_is_made_anew_for_the_next_pod(node, published):
    node.take(spec(entry(published)))
    directory = await node.mount(published)
    node.store.forget(published.pinned.digest)
    assert await node.mount(published) == directory
    assert (directory / "model.onnx").read_bytes() == FILES["model.onnx"]


async def test_without_a_registry_what_is_here_is_enough_also_after_a_reboot(tmp_path, registry, published):
    first = Node(tmp_path / "store", registry)
    first.take(spec(entry(published)))
    await first.mount(published)
    await first.close()
    registry.fault("GET", r"", times=None, status=500)
    again = Node(tmp_path / "store", registry)
    again.store = NodeStore(again.root, boot="another")
    again.arrivals._site.store = again.store
    again.arrivals._site.transfers = Transfers(again.store, again.connections)
    again.take(spec(entry(published)))
    assert await again.mount(published)
    await again.close()


async def test_cancelled_with_its_entry_a_download_stops(node, registry, published):
    weights = Digest.of(FILES["weights/model.data"])
    registry.fault("GET", f"/blobs/{weights}", times=None, trickle=(10_000, 0.05))
    node.take(spec(entry(published)))
    await node.state(published, "Downloading")
    node.take(spec())
    await until(lambda: not node.arrivals._leaving)
    assert node.board.lines() == []


# -- windows -----------------------------------------------------------------------------------------------------------

NIGHT = {"schedule": "0 2 * * *", "duration": "2h"}


async def test_a_candidate_waits_for_its_window_and_says_until_when(node, published):
    node.take(spec(entry(published, role="Candidate", window=NIGHT)))
    line = await node.state(published, "Pending", reason="WaitingForWindow")
    assert "2026-03-02T02:00" in line.message
    with pytest.raises(NotReady, match="window opens"):
        await node.mount(published)
    node.time = datetime(2026, 3, 2, 2, 30, tzinfo=UTC)
    node.take(spec(entry(published, role="Candidate", window={**NIGHT, "duration": "3h"})))
    await node.state(published, "Ready")


async def test_when_a_window_opens_nodes_begin_spread_out(node, registry, published):
    node.arrivals._site.spread = 80_000.0
    window = {**NIGHT, "duration": "23h"}
    node.time = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
    node.take(spec(entry(published, role="Candidate", window=window)))
    await node.state(published, "Pending", reason="WaitingForWindow")
    asked = len(registry.requests)
    node.time = datetime(2026, 3, 2, 2, 0, 0, tzinfo=UTC)
    node.take(spec(entry(published, role="Candidate", window=window, recheckInterval="1h")))
    await until(lambda: "is open" in node.lines()[published.pinned.digest].message)
    assert len(registry.requests) == asked, "it is judged by what was kept"
    node.time += timedelta(seconds=80_000)
    node.take(spec(entry(published, role="Candidate", window=window)))
    await node.state(published, "Ready")


async def test_what_pods_need_now_waits_for_no_window(node, published):
    node.take(spec(entry(published, role="Candidate", window=NIGHT)))
    await node.state(published, "Pending", reason="WaitingForWindow")
    node.take(spec(entry(published, role="Active", window=NIGHT)))
    await node.state(published, "Ready")


async def test_a_download_stops_when_its_window_closes(node, registry, published):
    weights = Digest.of(FILES["weights/model.data"])
    registry.fault("GET", f"/blobs/{weights}", times=None, trickle=(10_000, 0.05))
    node.time = datetime(2026, 3, 2, 3, 59, 59, 700_000, tzinfo=UTC)
    node.take(spec(entry(published, role="Candidate", window=NIGHT)))
    await node.state(published, "Downloading")
    node.time = datetime(2026, 3, 2, 4, 0, 0, tzinfo=UTC)
    await node.state(published, "Pending", reason="WaitingForWindow")


# -- integrity ---------------------------------------------------------------------------------------------------------


async def test_a_bit_that_flips_is_found_said_and_mended(node, published):
    node.take(spec(entry(published, recheckInterval="1h")))
    directory = await node.mount(published)
    since = node.lines()[published.pinned.digest].since
    task = asyncio.create_task(node.rechecks.run())
    await until(lambda: node.rechecks._done)
    path = directory / "weights/model.data"
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    node.time += timedelta(hours=2)
    failed = await node.state(published, "Failed", reason="IntegrityFailed")
    node.time += timedelta(seconds=60)
    line = await node.state(published, "Ready")
    assert since < failed.since < line.since
    assert line.altered_at == failed.altered_at == failed.since, "pods that are older are moved"
    assert (await node.mount(published) / "weights/model.data").read_bytes() == FILES["weights/model.data"]
    task.cancel()
    assert (
        node.metrics.registry.get_sample_value(
            "edgemodel_node_integrity_checks_total", {"result": "mismatch"}
        )
        == 1
    )


async def test_files_that_changed_between_two_mounts_are_noticed_by_the_second(node, published):
    node.take(spec(entry(published)))
    directory = await node.mount(published)
    assert node.lines()[published.pinned.digest].altered_at is None
    path = directory / "weights/model.data"
    path.chmod(0o600)
    path.write_bytes(b"evil")
    node.time += timedelta(seconds=60)
    assert (await node.mount(published) / "weights/model.data").read_bytes() == FILES["weights/model.data"]
    assert node.lines()[published.pinned.digest].altered_at == node.time


async def test_files_that_were_only_touched_stay_what_pods_have(node, published):
    node.take(spec(entry(published)))
    directory = await node.mount(published)
    inode = directory.stat().st_ino
    (directory / "weights/model.data").touch()
    assert await node.mount(published) == directory
    assert directory.stat().st_ino == inode
    assert node.lines()[published.pinned.digest].altered_at is None


async def test_a_model_is_not_looked_at_before_its_time_nor_again_after_a_restart(node, published):
    node.take(spec(entry(published, recheckInterval="1h")))
    await node.mount(published)
    assert node.rechecks._due() == []
    node.time += timedelta(hours=2)
    (digest,) = node.rechecks._due()
    await node.rechecks._check(digest)
    assert node.rechecks._due() == []
    again = Rechecks(node.arrivals, node.store, node.metrics, bytes_per_second=1, clock=lambda: node.time)
    assert again._due() == []
    node.time += timedelta(minutes=61)
    assert again._due() == [digest]


async def test_never_means_never(node, published):
    node.take(spec(entry(published, recheckInterval="0s")))
    await node.mount(published)
    node.time += timedelta(days=400)
    assert node.rechecks._due() == []


# -- turns -------------------------------------------------------------------------------------------------------------


async def test_those_whom_most_wait_for_go_first_and_who_leaves_the_queue_holds_nobody_up():
    turns, order = Turnstile(1), []

    async def go(priority):
        async with turns.passing(priority):
            order.append(priority)

    async with turns.passing(0):
        tasks = [asyncio.create_task(go(priority)) for priority in (3, 1, 2)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [2, 3]
    async with turns.passing(0):
        order.append("free")
    assert order[-1] == "free"


async def test_a_fleet_begins_one_after_the_other_with_a_version_that_takes_anothers_place(
    tmp_path, registry, published
):
    node = Node(tmp_path / "store", registry, stagger=3600.0)
    try:
        node.take(spec(entry(published, role="Candidate")))  # the first: somebody waits for it
        await node.state(published, "Ready")
        update = publish(registry, ANOTHER, release=replace(RELEASE, version="2.0.0", sequence=2))
        asked = len(registry.requests)
        node.take(spec(entry(published), entry(update, role="Candidate")))
        await asyncio.sleep(0)
        assert node.lines()[update.pinned.digest].state == "Pending"
        node.take(spec(entry(published), entry(update)))  # pods wait for it now
        await node.state(update, "Ready")
        assert len(registry.requests) > asked
    finally:
        await node.close()
