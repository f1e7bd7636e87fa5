"""Names, manifests, blobs, referrers: what a good registry gives, and what a bad one gets."""

import json
import random
import time

import pytest

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.registry_settings import Limits
from edgemodel.errors import Refused, Transient
from tests.simulators.registry import INDEX, RegistrySimulator
from tests.unit.artifact.registry_client import SHORT, at, client, described, whole

MANIFEST = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()
CONTENT = random.Random(1).randbytes(3 << 20)


async def test_a_tag_is_resolved_to_the_digest_of_the_manifests_bytes():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        digest = simulator.add_manifest("models/a", MANIFEST, tag="v1")
        simulator.fault("GET", "/manifests/v1", headers={"Docker-Content-Digest": "sha256:" + "0" * 64})
        assert await registry.resolve(at(simulator)) == digest
        assert await registry.manifest(at(simulator)) == MANIFEST


async def test_an_unchanged_tag_costs_one_head_and_a_reference_with_digest_costs_nothing():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        digest = Digest(simulator.add_manifest("models/a", MANIFEST, tag="v1"))
        assert await registry.resolve(at(simulator), known=digest) == digest
        assert [request.method for request in simulator.requests] == ["HEAD"]
        assert await registry.resolve(at(simulator).pinned(digest)) == digest
        assert len(simulator.requests) == 1


async def test_a_moved_tag_is_resolved_anew():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        old = Digest(simulator.add_manifest("models/a", MANIFEST, tag="v1"))
        new = simulator.add_manifest("models/a", MANIFEST + b" ", tag="v1")
        assert await registry.resolve(at(simulator), known=old) == new


async def test_a_manifest_with_other_bytes_than_its_digest_is_refused():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        digest = Digest(simulator.add_manifest("models/a", MANIFEST))
        simulator.fault("GET", "/manifests/", corrupt=5)
        with pytest.raises(Refused) as caught:
            await registry.manifest(at(simulator).pinned(digest))
    assert caught.value.reason == "DigestMismatch"


async def test_a_manifest_beyond_the_cap_is_refused():
    async with RegistrySimulator() as simulator, client(simulator, limits=Limits(manifest=1000)) as registry:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        simulator.fault("GET", "/manifests/v1", body=b"x" * 100_000)
        with pytest.raises(Refused) as caught:
            await registry.manifest(at(simulator))
    assert caught.value.reason == "MalformedArtifact"


async def test_a_manifest_that_broke_off_is_read_again():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        simulator.fault("GET", "/manifests/v1", truncate=5)
        assert await registry.manifest(at(simulator)) == MANIFEST


async def test_what_is_missing_is_not_found_and_not_asked_for_again():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator, "gone"))
        assert len(simulator.requests) == 1
    assert caught.value.reason == "NotFound"
    assert simulator.host in caught.value.message
    assert "models/a:gone" in caught.value.message


async def test_a_blob_arrives_whole_or_from_an_offset():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_blob("models/a", CONTENT)
        assert await whole(registry, at(simulator), described(CONTENT)) == CONTENT
        assert await whole(registry, at(simulator), described(CONTENT), 1000) == CONTENT[1000:]
        assert simulator.seen("GET")[-1].headers["range"] == "bytes=1000-"


async def test_an_empty_blob_is_not_asked_for():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        assert await whole(registry, at(simulator), described(b"")) == b""
        assert simulator.requests == []


@pytest.mark.parametrize("ranges", [True, False], ids=["with ranges", "without ranges"])
@pytest.mark.parametrize("how", ["truncate", "stall"])
async def test_a_broken_transfer_goes_on_where_it_stopped(ranges, how):
    async with RegistrySimulator(ranges=ranges) as simulator, client(simulator) as registry:
        simulator.add_blob("models/a", CONTENT)
        simulator.fault("GET", "/blobs/", **{how: 1_200_000})
        assert await whole(registry, at(simulator), described(CONTENT)) == CONTENT
        first, second = simulator.seen("GET")
        assert "range" not in first.headers
        start = int(second.headers["range"].removeprefix("bytes=").removesuffix("-"))
        assert 0 < start <= 1_200_000


async def test_a_transfer_that_breaks_again_and_again_fails_and_says_how_far_it_came():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_blob("models/a", CONTENT)
        simulator.fault("GET", "/blobs/", times=None, truncate=1000)
        with pytest.raises(Transient) as caught:
            await whole(registry, at(simulator), described(CONTENT))
        assert len(simulator.seen("GET")) == SHORT.tries
    assert caught.value.reason == "TransferFailed"
    assert f"of {len(CONTENT)} bytes" in caught.value.message


async def test_a_transfer_that_breaks_often_but_moves_on_succeeds():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        content = CONTENT * 3
        simulator.add_blob("models/a", content)
        simulator.fault("GET", "/blobs/", times=6, truncate=1_300_000)
        assert await whole(registry, at(simulator), described(content)) == content
        assert len(simulator.seen("GET")) == 7


async def test_a_transfer_that_crawls_is_cut():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_blob("models/a", CONTENT)
        simulator.fault("GET", "/blobs/", times=None, trickle=(10, 0.05))
        with pytest.raises(Transient) as caught:
            await whole(registry, at(simulator), described(CONTENT))
    assert caught.value.reason == "TransferFailed"
    assert "bytes/s" in caught.value.message


async def test_a_reader_that_takes_its_time_is_not_the_networks_fault():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_blob("models/a", CONTENT)
        size = 0
        begun = time.monotonic()
        async for piece in registry.blob(at(simulator), described(CONTENT)):
            size += len(piece)
            # Busy for longer than the window in all: what a slow disk looks like from the network.
            while time.monotonic() < begun + 2 * SHORT.slow_window:
                pass
        assert size == len(CONTENT)
        assert len(simulator.seen("GET")) == 1


async def test_a_blob_longer_than_said_is_refused_before_a_byte_is_taken():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_blob("models/a", CONTENT)
        with pytest.raises(Refused) as caught:
            await whole(registry, at(simulator), described(CONTENT, size=1000))
    assert caught.value.reason == "DigestMismatch"


async def test_never_more_bytes_than_said_even_when_the_length_is_not_announced():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        descriptor = described(b"x" * 1000)
        simulator.add_blob("models/a", b"x" * 1000)
        simulator.fault("GET", "/blobs/", extra=b"y" * 5000, unframed=True)
        received = bytearray()

        async def read() -> None:
            async for piece in registry.blob(at(simulator), descriptor):
                received.extend(piece)

        with pytest.raises(Refused):
            await read()
        assert len(received) <= 1000


async def test_an_answer_with_another_range_than_asked_for_is_not_taken():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_blob("models/a", CONTENT)
        simulator.fault("GET", "/blobs/", times=None, headers={"Content-Range": "bytes 0-10/20"})
        with pytest.raises(Transient) as caught:
            await whole(registry, at(simulator), described(CONTENT), 1000)
    assert caught.value.reason == "TransferFailed"


async def test_a_small_blob_is_checked_and_capped():
    async with (
        RegistrySimulator() as simulator,
        client(simulator, limits=Limits(small_blob=2000)) as registry,
    ):
        simulator.add_blob("models/a", b"x" * 1000)
        simulator.add_blob("models/a", b"x" * 3000)
        assert await registry.small_blob(at(simulator), described(b"x" * 1000)) == b"x" * 1000
        with pytest.raises(Refused) as large:
            await registry.small_blob(at(simulator), described(b"x" * 3000))
        simulator.fault("GET", "/blobs/", corrupt=7)
        with pytest.raises(Refused) as wrong:
            await registry.small_blob(at(simulator), described(b"x" * 1000))
    assert large.value.reason == "MalformedArtifact"
    assert wrong.value.reason == "DigestMismatch"


def referrer(subject: str, number: int, artifact_type: str = "application/vnd.example") -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "artifactType": artifact_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": subject, "size": 2},
            "layers": [],
            "subject": {"mediaType": "x/y", "digest": subject, "size": 1},
            "annotations": {"number": str(number)},
        }
    ).encode()


async def test_referrers_come_from_the_api_page_by_page_signatures_first():
    async with RegistrySimulator(referrers_page=2) as simulator, client(simulator) as registry:
        subject = Digest(simulator.add_manifest("models/a", MANIFEST, tag="v1"))
        others = [simulator.add_manifest("models/a", referrer(subject, n)) for n in range(4)]
        bundle = referrer(subject, 9, "application/vnd.dev.sigstore.bundle.v0.3+json")
        signature = simulator.add_manifest("models/a", bundle)
        found = await registry.referrers(at(simulator), subject)
        assert [descriptor.digest for descriptor in found] == [signature, *others]
        assert len(simulator.seen("GET", "/referrers/")) == 3


async def test_no_more_referrers_than_the_cap_and_no_endless_pages():
    limits = Limits(referrers=3, referrer_pages=2)
    async with RegistrySimulator(referrers_page=1) as simulator, client(simulator, limits=limits) as registry:
        subject = Digest(simulator.add_manifest("models/a", MANIFEST, tag="v1"))
        for number in range(10):
            simulator.add_manifest("models/a", referrer(subject, number))
        assert len(await registry.referrers(at(simulator), subject)) == 2
        simulator.referrers_page = 100
        assert len(await registry.referrers(at(simulator), subject)) == 3


async def test_without_the_api_referrers_come_from_the_fallback_tag():
    async with RegistrySimulator(referrers=False) as simulator, client(simulator) as registry:
        subject = Digest(simulator.add_manifest("models/a", MANIFEST, tag="v1"))
        assert await registry.referrers(at(simulator), subject) == ()
        entry = {"mediaType": "x/y", "digest": "sha256:" + "1" * 64, "size": 5}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        tag = subject.replace(":", "-")
        simulator.add_manifest("models/a", json.dumps(index).encode(), tag=tag, media_type=INDEX)
        (found,) = await registry.referrers(at(simulator), subject)
        assert found.digest == "sha256:" + "1" * 64


async def test_a_page_that_is_no_index_means_no_api():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        subject = Digest(simulator.add_manifest("models/a", MANIFEST, tag="v1"))
        simulator.fault(
            "GET", "/referrers/", status=200, body=b"<html>", headers={"Content-Type": "text/html"}
        )
        assert await registry.referrers(at(simulator), subject) == ()
        assert simulator.seen("GET", "/manifests/sha256-")


async def test_the_legacy_signature_tag_may_be_missing():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        subject = Digest(simulator.add_manifest("models/a", MANIFEST, tag="v1"))
        assert await registry.legacy_signatures(at(simulator), subject) is None
        simulator.add_manifest("models/a", MANIFEST, tag=f"sha256-{subject.hex}.sig")
        assert await registry.legacy_signatures(at(simulator), subject) == MANIFEST
