"""References: what parses, in which spelling, and which part is named when one does not."""

import pytest

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.reference import Reference
from edgemodel.errors import Stalled

HEX = "sha256:" + "a1" * 32

GOOD = {
    "registry.example.com/models/detector:1.4.0": ("registry.example.com", "models/detector", "1.4.0", None),
    "Registry.Example.COM/a:b": ("registry.example.com", "a", "b", None),
    "localhost/a:b": ("localhost", "a", "b", None),
    "registry:5000/a:b": ("registry:5000", "a", "b", None),
    "10.0.0.7:5000/a/b/c:v1_2-3": ("10.0.0.7:5000", "a/b/c", "v1_2-3", None),
    "[::1]:5000/a:b": ("[::1]:5000", "a", "b", None),
    "[2001:DB8:0::1]/a:b": ("[2001:db8::1]", "a", "b", None),
    f"r.io/a@{HEX}": ("r.io", "a", None, HEX),
    f"r.io/a:b@{HEX}": ("r.io", "a", "b", HEX),
    "r.io/a__b.c-d/e--f:_x": ("r.io", "a__b.c-d/e--f", "_x", None),
    f"r.io/{'a' * 255}:{'t' * 128}": ("r.io", "a" * 255, "t" * 128, None),
}


@pytest.mark.parametrize(("text", "parts"), GOOD.items(), ids=[text[:40] for text in GOOD])
def test_parts(text, parts):
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag, found.digest) == parts
    assert Reference.parse(str(found)) == found


BAD = {
    "": "the registry (character 1)",
    "detector:1": "the registry (character 1)",
    "models/detector:1": "the registry (character 1)",
    "https://r.io/a:b": "starts with a URL scheme",
    "-r.io/a:b": "the registry (character 1)",
    "r..io/a:b": "the registry (character 1)",
    "r_x.io/a:b": "the registry (character 1)",
    # The Kelvin sign, which str.lower() makes a plain k.
    "\u212ay.io/a:b": "the registry (character 1)",
    "r.io:0/a:b": "the port (character 6)",
    "r.io:080/a:b": "the port (character 6)",
    "r.io:65536/a:b": "the port (character 6)",
    "r.io:/a:b": "the port (character 6)",
    "[::1/a:b": "the registry (character 1)",
    "[::g]/a:b": "the registry (character 2)",
    "[fe80::1%eth0]/a:b": "the registry (character 2)",
    "[::1]x:5/a:b": "the registry (character 1)",
    "r.io/:b": "the repository (character 6)",
    "r.io/A:b": "the repository (character 6)",
    "r.io/a//b:c": "the repository (character 8)",
    "r.io/a/../b:c": "the repository (character 8)",
    "r.io/a/:c": "the repository (character 8)",
    "r.io/a___b:c": "the repository (character 6)",
    f"r.io/{'a' * 256}:b": "the repository (character 6)",
    "r.io/a": "the tag (character 7)",
    "r.io/a:": "the tag (character 8)",
    "r.io/a:b:c": "the tag (character 8)",
    "r.io/a:.b": "the tag (character 8)",
    f"r.io/a:{'t' * 129}": "the tag (character 8)",
    "r.io/a:b ": "the tag (character 8)",
    "r.io/a:b\n": "the tag (character 8)",
    "r.io/a@": "the digest (character 8)",
    "r.io/a@sha256:abc": "the digest (character 8)",
    f"r.io/a@{HEX.upper()}": "the digest (character 8)",
    f"r.io/a@sha512:{'a1' * 64}": "the digest (character 8)",
    f"r.io/a@{HEX}@{HEX}": "the digest (character 8)",
    f"r.io/{'a/' * 300}b:c": "the reference (character 1)",
}


@pytest.mark.parametrize(("text", "part"), BAD.items(), ids=[repr(text)[:40] for text in BAD])
def test_the_message_names_the_part_and_its_place(text, part):
    with pytest.raises(Stalled) as caught:
        Reference.parse(text)
    assert caught.value.reason == "InvalidSpec"
    assert part in caught.value.message


def test_pinned_drops_the_tag_and_keeps_the_place():
    tagged = Reference.parse("r.io/a/b:c")
    pinned = tagged.pinned(Digest(HEX))
    assert str(pinned) == f"r.io/a/b@{HEX}"
    assert (tagged.name, pinned.name) == ("r.io/a/b", "r.io/a/b")
    assert (tagged.locator, pinned.locator) == ("c", HEX)


def test_the_digest_wins_over_the_tag():
    assert Reference.parse(f"r.io/a:b@{HEX}").locator == HEX
