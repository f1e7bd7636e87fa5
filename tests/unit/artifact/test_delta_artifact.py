"""Deltas as referrers: what is written is read back, rubbish hides nothing, and the choice is one a person would make."""

import json
import re

import pytest

from edgemodel.artifact import media_types
from edgemodel.artifact.attach import refer
from edgemodel.artifact.delta_artifact import (
    MAX_MANIFESTS,
    DeltaLayer,
    build_delta_manifest,
    choose,
    find_deltas,
    read_delta_manifest,
)
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor, build_referrer
from edgemodel.artifact.reference import Reference
from edgemodel.errors import Refused
from tests.simulators.registry import RegistrySimulator, digest_of
from tests.unit.artifact.registry_client import client

REPOSITORY = "models/detector"
TARGET = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",' + (
    b'"config":{"mediaType":"application/vnd.cncf.model.config.v1+json","digest":"sha256:%s","size":2},"layers":[]}'
    % (b"a" * 64)
)
SUBJECT = Descriptor(media_types.OCI_MANIFEST, Digest.of(TARGET), len(TARGET))
FILE = Descriptor(media_types.MODEL_WEIGHT, Digest.of(b"new"), 1_000_000)
OLD, OLDER = Digest.of(b"old"), Digest.of(b"older")


def layer(base=OLD, size=100_000, *, to=FILE.digest, codec="ulp"):
    name = f"{base} {size} {to} {codec}".encode()
    return DeltaLayer(base, to, codec, Descriptor(media_types.DELTA_LAYER, Digest.of(name), size))


def plain(layers):
    return [
        (one.from_digest, one.to_digest, one.codec, one.descriptor.digest, one.descriptor.size)
        for one in layers
    ]


def test_what_is_written_is_read_back():
    layers = [layer(), layer(OLDER), layer(None, 840_000, codec="planes")]
    content = build_delta_manifest(SUBJECT, layers)
    assert sorted(plain(read_delta_manifest(content, SUBJECT.digest)), key=str) == sorted(
        plain(layers), key=str
    )
    assert content == build_delta_manifest(SUBJECT, layers[::-1]), "the same bytes in any order"


def test_a_manifest_is_an_oci_referrer_that_says_what_it_is():
    document = json.loads(build_delta_manifest(SUBJECT, [layer()]))
    assert document["artifactType"] == "application/vnd.edgemodel.delta.v1+json"
    assert document["subject"]["digest"] == SUBJECT.digest
    assert document["config"]["mediaType"] == media_types.OCI_EMPTY
    assert document["layers"][0]["annotations"] == {
        "io.edgemodel.delta.from": OLD,
        "io.edgemodel.delta.to": FILE.digest,
        "io.edgemodel.delta.codec": "ulp",
    }


def _with(change):
    document = json.loads(build_delta_manifest(SUBJECT, [layer()]))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.update(artifactType="text/plain"), "artifactType"),
        (lambda d: d.pop("subject"), "subject"),
        (lambda d: d["subject"].update(digest=str(OLD)), "subject"),
        (lambda d: d["layers"][0]["annotations"].pop(media_types.DELTA_TO), "delta.to"),
        (lambda d: d["layers"][0]["annotations"].update({media_types.DELTA_FROM: "sha256:x"}), "delta.from"),
        (
            lambda d: d["layers"][0]["annotations"].update({media_types.DELTA_FROM: str(FILE.digest)}),
            "itself",
        ),
        (lambda d: d["layers"][0]["annotations"].update({media_types.DELTA_CODEC: "../x"}), "codec"),
        (lambda d: d["layers"][0].update(size=0), "size"),
    ],
)
def test_what_is_wrong_is_named(change, named):
    with pytest.raises(Refused, match=named) as caught:
        read_delta_manifest(_with(change), SUBJECT.digest)
    assert caught.value.reason == "MalformedArtifact"


# -- finding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("referrers_api", [True, False])
async def test_deltas_are_found_smallest_first(referrers_api):
    async with RegistrySimulator(referrers=referrers_api) as simulator, client(simulator) as registry:
        simulator.add_manifest(REPOSITORY, TARGET)
        target = Reference(simulator.host, REPOSITORY, None, SUBJECT.digest)
        for layers in ([layer(size=200_000)], [layer(OLDER, 300_000), layer(OLD, 5, to=OLDER)]):
            await refer(registry, target, build_delta_manifest(SUBJECT, layers))
        found = await find_deltas(registry, target, SUBJECT.digest, [FILE.digest])
    assert plain(found) == plain([layer(size=200_000), layer(OLDER, 300_000)])


async def test_rubbish_hides_no_delta():
    said = []
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_manifest(REPOSITORY, TARGET)
        target = Reference(simulator.host, REPOSITORY, None, SUBJECT.digest)
        for number in range(MAX_MANIFESTS + 4):
            other = build_referrer(
                "text/plain", [layer().descriptor], SUBJECT, annotations={"n": str(number)}
            )
            simulator.add_manifest(REPOSITORY, other)
        broken = _with(lambda d: d["layers"][0].update(size=0))
        simulator.add_manifest(REPOSITORY, broken)
        good = build_delta_manifest(SUBJECT, [layer()])
        simulator.add_manifest(REPOSITORY, good)
        lost = build_delta_manifest(SUBJECT, [layer(OLDER)])
        simulator.add_manifest(REPOSITORY, lost)
        simulator.fault("GET", digest_of(lost), status=404)
        found = await find_deltas(registry, target, SUBJECT.digest, [FILE.digest], report=said.append)
    assert plain(found) == plain([layer()])
    assert any("size" in words for words in said)
    assert len(said) == 2


async def test_a_delta_for_another_artifact_is_not_one():
    async with RegistrySimulator(referrers=False) as simulator, client(simulator) as registry:
        simulator.add_manifest(REPOSITORY, TARGET)
        other = Descriptor(media_types.OCI_MANIFEST, OLD, 5)
        digest = simulator.add_manifest(REPOSITORY, build_delta_manifest(other, [layer()]))
        index = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [
                {
                    "mediaType": media_types.OCI_MANIFEST,
                    "digest": digest,
                    "size": 5,
                    "artifactType": media_types.DELTA_MANIFEST,
                }
            ],
        }
        simulator.add_manifest(
            REPOSITORY,
            json.dumps(index).encode(),
            tag=f"sha256-{SUBJECT.digest.hex}",
            media_type=media_types.OCI_INDEX,
        )
        target = Reference(simulator.host, REPOSITORY, None, SUBJECT.digest)
        assert await find_deltas(registry, target, SUBJECT.digest, [FILE.digest]) == ()


async def test_trouble_with_the_registry_means_no_deltas_and_a_reason():
    said = []
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.fault("GET", "/referrers/", times=None, status=403)
        target = Reference(simulator.host, REPOSITORY, None, SUBJECT.digest)
        assert await find_deltas(registry, target, SUBJECT.digest, [FILE.digest], report=said.append) == ()
    assert "could not be listed" in said[0]


# -- choosing -----------------------------------------------------------------------------------------------------------

MBIT = 1e6 / 8
APPLY = 150e6


@pytest.mark.parametrize(
    ("deltas", "here", "link", "kind", "why"),
    [
        ([], {OLD}, None, "Full", "no delta is published"),
        ([layer(to=OLDER)], {OLD}, None, "Full", "no delta is published"),
        ([layer(OLDER)], {OLD}, None, "Full", "none of the 1 files"),
        ([layer()], {OLD}, None, "Delta", r"100000 of 1000000 bytes \(10.0%\)"),
        ([layer(size=1_000_000)], {OLD}, None, "Full", "the delta has 1000000 bytes"),
        ([layer(codec="newer")], {OLD}, None, "Full", "cannot read"),
        ([layer(None, 840_000, codec="planes")], set(), None, "Delta", "84.0%"),
        ([layer()], {OLD}, 10 * MBIT, "Delta", "at 10 Mbit/s 0.1 s, the whole file 0.8 s"),
        ([layer()], {OLD}, 10_000 * MBIT, "Full", "at 10000 Mbit/s the whole file"),
        ([layer()], {OLD}, 0.0, "Delta", "ulp"),
    ],
)
def test_the_choice_and_its_words(deltas, here, link, kind, why):
    choice = choose(
        FILE,
        deltas,
        here.__contains__,
        link_bytes_per_second=link,
        apply_bytes_per_second=APPLY,
        codecs=("ulp", "planes"),
    )
    assert choice.kind == kind
    assert (choice.delta is not None) == (kind == "Delta")
    assert re.search(why, choice.why), choice.why


def test_the_smallest_delta_whose_base_is_here_wins():
    deltas = [
        layer(OLDER, 50_000),
        layer(OLD, 200_000),
        layer(OLD, 100_000),
        layer(None, 840_000, codec="planes"),
    ]
    choice = choose(
        FILE, deltas, {OLD}.__contains__, link_bytes_per_second=None, apply_bytes_per_second=APPLY
    )
    assert choice.delta == layer(OLD, 100_000)


@pytest.mark.parametrize(("link", "kind"), [(10, "Delta"), (50, "Delta"), (200, "Delta"), (1000, "Full")])
def test_a_real_fine_tune_over_real_links(link, kind):
    """91 MB, a delta of 38 %: worth it up to 740 Mbit/s at an apply rate of 150 MB/s."""
    file = Descriptor(media_types.MODEL_WEIGHT, FILE.digest, 90_868_344)
    choice = choose(
        file,
        [layer(size=34_499_124)],
        {OLD}.__contains__,
        link_bytes_per_second=link * MBIT,
        apply_bytes_per_second=APPLY,
    )
    assert choice.kind == kind
