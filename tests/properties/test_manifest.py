"""Manifests: whatever the bytes, a manifest with one meaning or a refusal, and no path that leaves its directory."""

import json
import posixpath

from hypothesis import given
from hypothesis import strategies as st

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Index, Manifest, Paths, build_index, model_files, release
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.signature import read_bundle, read_legacy
from edgemodel.artifact.trust import judge
from edgemodel.errors import Refused
from tests.properties.mutation import mutations, single_bit_flips
from tests.unit.artifact.signed import NOW, VECTORS, artifact, file, policy, reference, signed

GOOD = (VECTORS / "edgemodel-0.1/ecdsa-p256/manifest.json").read_bytes()
INDEX = build_index([artifact().descriptor])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "schemaVersion",
                    "mediaType",
                    "config",
                    "layers",
                    "manifests",
                    "digest",
                    "size",
                    "annotations",
                    "subject",
                    "x",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
ANY = st.one_of(
    st.binary(), JSON.map(lambda value: json.dumps(value).encode()), mutations(GOOD), mutations(INDEX)
)


def outcome(read, subject):
    """What ``read`` returns or refuses; anything else that it raises is a failure of the test."""
    try:
        return read(subject)
    except Refused as refusal:
        return refusal


@given(ANY)
def test_only_refusals_come_out(data):
    for parse in (Manifest.parse, Index.parse):
        found = outcome(parse, data)
        said = [found]
        if isinstance(found, Manifest):
            said = [outcome(model_files, found), outcome(release, found)]
        assert {each.reason for each in said if isinstance(each, Refused)} <= {"MalformedArtifact"}
        assert isinstance(found, Refused) or found.digest == Digest.of(data)


def test_every_flipped_bit_of_a_manifest_is_noticed():
    original = artifact()
    evidence = [signed(original)]
    at = reference(original)
    rules = [policy()]
    assert judge(at, original.raw, evidence, rules, now=NOW).refusal is None
    for place, data in single_bit_flips(original.raw):
        refusal = judge(at, data, evidence, rules, now=NOW).refusal
        assert refusal is not None, place
        assert refusal.reason == "DigestMismatch", place


@given(ANY, st.binary(max_size=200), st.text(max_size=80), st.integers(0, 1 << 53) | st.none())
def test_no_input_makes_the_judgement_raise(data, attached, annotation, mark):
    at = Reference("registry.example.com", "models/detector", digest=Digest.of(data))
    evidence = [read_bundle(attached), read_bundle(data, "OpenSSF"), read_legacy(attached, annotation)]
    verdict = judge(at, data, evidence, [policy()], mark=mark, now=NOW)
    assert verdict.refusal is not None
    assert verdict.files == ()


@given(st.lists(st.text(alphabet="aAbB./\\\0:é\u0301", max_size=6), max_size=6))
def test_paths_stay_inside_and_apart(paths):
    taken = Paths()
    kept = []
    for path in paths:
        try:
            kept.append(taken.add(path))
        except Refused:
            continue
    for path in kept:
        assert posixpath.normpath(posixpath.join("/model", path)) == f"/model/{path}"
    lowered = [path.lower() for path in kept]
    assert len(set(lowered)) == len(lowered)
    assert not any(other.startswith(f"{path}/") for path in lowered for other in lowered)


@given(
    st.lists(
        st.tuples(st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,2}", fullmatch=True), st.binary(max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_a_manifest_that_is_written_is_read_back(entries):
    files = tuple(file(path, content) for path, content in entries)
    try:
        manifest = artifact(files=files)
    except Refused:
        paths = [path for path, _ in entries]
        assert any(
            one == other or other.startswith(f"{one}/")
            for i, one in enumerate(paths)
            for j, other in enumerate(paths)
            if i != j
        )
        return
    found = model_files(manifest)
    assert [(each.path, each.descriptor.digest, each.descriptor.size) for each in found] == [
        (each.path, each.descriptor.digest, each.descriptor.size) for each in files
    ]
