"""Bundles: whatever the bytes of the file, a layout that can be read or a refusal; never more memory than caps allow."""

import io
import json
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from edgemodel.artifact.image_layout import BLOBS, INDEX, LAYOUT, ImageLayout
from edgemodel.artifact.manifest import build_index
from edgemodel.errors import EdgeModelError, Refused
from tests.properties.mutation import mutations
from tests.unit.artifact.signed import artifact

MANIFEST = artifact()


def archive(*entries: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as written:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            written.addfile(info, io.BytesIO(content))
    return out.getvalue()


GOOD = archive(
    (LAYOUT, b'{"imageLayoutVersion":"1.0.0"}'),
    (INDEX, build_index([MANIFEST.descriptor])),
    (BLOBS + MANIFEST.digest.hex, MANIFEST.raw),
)
SHORT = GOOD.rstrip(b"\0") + bytes(1024)  # without tarfile's padding, so that mutations hit something
ENTRIES = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([LAYOUT, INDEX, BLOBS + MANIFEST.digest.hex, BLOBS + "x"]), st.text(max_size=20)
        ),
        st.one_of(
            st.binary(max_size=64), st.sampled_from([json.dumps({"imageLayoutVersion": "2"}).encode()])
        ),
    ),
    max_size=5,
)


def read(content: bytes) -> object:
    """What opening and looking at a bundle returns or refuses; anything else that it raises fails the test."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.tar"
        path.write_bytes(content)
        try:
            layout = ImageLayout.open(path)
            return layout.models, layout.digests(), layout.damaged()
        except EdgeModelError as refusal:
            return refusal


@given(
    st.one_of(
        st.binary(max_size=2048),
        mutations(SHORT),
        mutations(
            SHORT,
        ).map(lambda it: it[:-1]),
    )
)
def test_only_refusals_come_out(content):
    read(content)


@given(ENTRIES)
def test_archives_of_anything_are_refused_or_read(entries):
    outcome = read(archive(*((name or "x", content) for name, content in entries)))
    if {LAYOUT, INDEX} - {name for name, _ in entries}:
        assert isinstance(outcome, Refused)


def test_a_good_one_is_read():
    assert read(GOOD) == ({}, [MANIFEST.digest], [])
