"""References: any text either parses to something that writes itself the same way, or is refused with a reason."""

from hypothesis import given
from hypothesis import strategies as st

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.reference import Reference
from edgemodel.errors import Stalled

COMPONENT = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
LABEL = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,6}[a-zA-Z0-9])?", fullmatch=True)
HOST = st.one_of(
    st.lists(LABEL, min_size=2, max_size=4).map(".".join),
    st.just("localhost"),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[{address.exploded.upper()}]"),
)
PORT = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
DIGEST = st.binary(max_size=4).map(Digest.of)


@st.composite
def references(draw):
    path = "/".join(draw(st.lists(COMPONENT, min_size=1, max_size=4)))
    tag, digest = draw(
        st.one_of(st.tuples(TAG, st.none()), st.tuples(st.none(), DIGEST), st.tuples(TAG, DIGEST))
    )
    text = f"{draw(HOST)}{draw(PORT)}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    return text, path, tag, digest


@given(references())
def test_what_is_well_formed_parses_to_its_parts_and_writes_itself_back(case):
    text, path, tag, digest = case
    found = Reference.parse(text)
    assert (found.repository, found.tag, found.digest) == (path, tag, digest)
    assert Reference.parse(str(found)) == found
    assert str(Reference.parse(str(found))) == str(found)
    assert found.registry == found.registry.lower()


@given(
    st.one_of(
        st.text(),
        st.text(alphabet="aA0.:/@[]%-_ sha256\n\u212a"),
        references()
        .map(lambda case: case[0])
        .flatmap(
            lambda text: st.tuples(st.integers(0, len(text)), st.text(max_size=2)).map(
                lambda cut: text[: cut[0]] + cut[1] + text[cut[0] + 1 :]
            )
        ),
    )
)
def test_any_other_text_is_refused_or_has_one_spelling(text):
    try:
        found = Reference.parse(text)
    except Stalled as stalled:
        found = stalled
    if isinstance(found, Stalled):
        assert found.reason == "InvalidSpec"
        assert "character " in found.message
    else:
        assert Reference.parse(str(found)) == found
        assert str(found).isascii()
        assert not any(letter.isspace() for letter in str(found))
