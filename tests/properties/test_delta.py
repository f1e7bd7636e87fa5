"""Deltas: whatever the numbers and however they moved, the same bytes; whatever the patch, the right size or a refusal.

``tests/corpus/delta`` keeps one patch for every way to be refused that fuzzing has found (``grow.py`` there adds to it).
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel.artifact.delta import codec, numbers
from edgemodel.artifact.delta.numbers import DTYPES, Scratch
from edgemodel.artifact.delta.tensors import TensorSpan
from edgemodel.errors import Refused
from tests.properties.mutation import mutations
from tests.unit.artifact.delta.models import rebuild

CORPUS = Path(__file__).parents[1] / "corpus/delta"
BASE = CORPUS / "base"
SEEDS = {path.name: path.read_bytes() for path in sorted((CORPUS / "seeds").iterdir())}
FOUND = sorted((CORPUS / "found").iterdir())
NEW = int((CORPUS / "size").read_text())
SECONDS = 5.0
"""However a patch of a few kilobytes is made, it is done with by then, on a busy machine too."""


@st.composite
def files(draw):
    """Two files of tensors that moved, changed, came and went, and where the tensors are in them."""
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    pool = []
    for n in range(draw(st.integers(0, 5))):
        dtype = draw(st.sampled_from(list(DTYPES.values())))
        count = draw(st.sampled_from([0, 1, 31, 64, 300, 5000]))
        values = generator.integers(0, 256, count * dtype.width, np.uint8).view(dtype.word)
        if draw(st.booleans()):  # as weights are
            values = (generator.standard_normal(count) * 1e3).astype("<i8").astype(dtype.word)
        pool.append((f"t{n}", dtype, values))
    sides = []
    for side in range(2):
        content, spans = bytearray(), []
        for name, dtype, values in draw(st.permutations(pool)):
            content += generator.integers(0, 3, draw(st.sampled_from([0, 0, 1, 40])), np.uint8).tobytes()
            change = (
                draw(st.sampled_from(["same", "little", "rows", "all", "gone", "renamed"]))
                if side
                else "same"
            )
            if change == "gone":
                continue
            now = values.copy()
            if change == "little":
                now += generator.integers(0, 3, len(now)).astype(dtype.word)
            elif change == "rows":
                now[len(now) // 2 :] ^= 1
            elif change == "all":
                now = generator.integers(0, 256, now.nbytes, np.uint8).view(dtype.word)
            label = "r" + name if change == "renamed" else name
            spans.append(TensorSpan(label, dtype.name, len(content), now.nbytes))
            content += now.tobytes()
        sides.append((bytes(content), spans))
    return sides


@given(files(), st.sampled_from(codec.NAMES), st.sampled_from([None, 1, 9]))
@settings(max_examples=150)
def test_the_same_bytes_come_back(sides, name, level):
    (old, old_tensors), (new, new_tensors) = sides
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / part for part in ("old", "new", "patch")]
        paths[0].write_bytes(old)
        paths[1].write_bytes(new)
        base = None if name == "planes" else paths[0]
        codec.encode(
            name, base, paths[1], paths[2], old_tensors=old_tensors, new_tensors=new_tensors, level=level
        )
        assert rebuild(base, paths[2], len(new)) == new


@given(st.sampled_from(list(DTYPES.values())), st.integers(0, 2**32 - 1))
def test_the_arithmetic_has_exact_inverses(dtype, seed):
    words = np.random.default_rng(seed).integers(0, 256, 200 * dtype.width, np.uint8).view(dtype.word)
    scratch = Scratch(dtype, 200)
    for there, back in (
        (numbers.order_in_place, numbers.unorder_in_place),
        (lambda w, _, s: numbers.zigzag_in_place(w, s), lambda w, _, s: numbers.unzigzag_in_place(w, s)),
        (
            lambda w, _, s: numbers.rotate_in_place(w, 1, s),
            lambda w, d, s: numbers.rotate_in_place(w, d.width * 8 - 1, s),
        ),
    ):
        moved = words.copy()
        there(moved, dtype, scratch.sign)
        back(moved, dtype, scratch.sign)
        assert (moved == words).all()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=50))
def test_the_order_of_floats_is_kept(values):
    floats = np.array(values, "<f4") + np.float32(0)  # -0 and 0 are neighbours, not equal
    words = floats.view("<u4").copy()
    numbers.order_in_place(words, DTYPES[1], np.empty_like(words))
    assert (np.diff(floats[np.argsort(words, kind="stable")]) >= 0).all()


def outcome(patch: bytes) -> int | str:
    """Bytes that came out, or the refusal; anything else that is raised fails the test."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "patch"
        path.write_bytes(patch)
        began = time.process_time()
        written = 0

        def write(piece):
            nonlocal written
            written += len(piece)
            assert written <= NEW

        try:
            codec.apply(BASE, path, write, size=NEW)
        except Refused as refusal:
            return str(refusal)
        finally:
            assert time.process_time() - began < SECONDS
        assert written == NEW
        return written


@given(st.sampled_from(list(SEEDS.values())).flatmap(mutations))
@settings(max_examples=400)
def test_a_damaged_patch_gives_the_right_size_or_a_refusal(patch):
    outcome(patch)


@given(st.binary(max_size=300), st.sampled_from(list(SEEDS.values())), st.integers(0, 400))
@settings(max_examples=200)
def test_rubbish_after_a_good_beginning(rubbish, seed, length):
    outcome(seed[:length] + rubbish)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_fuzzing_found_is_still_refused(path):
    assert str(outcome(path.read_bytes())).startswith("DeltaInvalid: delta refused: ")


@pytest.mark.parametrize("name", SEEDS)
def test_what_fuzzing_starts_from_is_good(name):
    assert outcome(SEEDS[name]) == NEW
