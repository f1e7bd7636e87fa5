"""gRPC messages of inference requests: whatever comes is a request, whole, or a refusal of a few words.

``tests/corpus/grpc`` keeps one message for every way to be refused that fuzzing has found (``grow.py`` there adds to it).
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpus.grpc.grow import FOUND, refusal, seeds
from tests.properties.mutation import mutations

CASES = [path.read_bytes() for path in sorted(FOUND.iterdir())]


def test_the_seeds_are_requests():
    assert [refusal(seed) for seed in seeds()] == ["", ""]


def test_the_corpus_has_a_message_for_every_refusal():
    words = [refusal(case) for case in CASES]
    assert "" not in words
    assert len(set(words)) == len(words) > 30


@given(st.sampled_from(seeds() + CASES).flatmap(mutations))
@settings(max_examples=500)
def test_any_message_is_whole_or_refused(message):
    refusal(message)
