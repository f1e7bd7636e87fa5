"""Every request that fuzzing has found, one for each way to be refused, is refused again; what differs a little is, too.

``tests/corpus/requests`` keeps them, and ``grow.py`` there looks for more.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpus.requests.grow import seeds
from tests.corpus.requests.parsers import PARSERS, refusal
from tests.properties.mutation import mutations

CORPUS = Path(__file__).parents[1] / "corpus/requests"
FOUND = {parser: [path.read_bytes() for path in sorted((CORPUS / parser).iterdir())] for parser in PARSERS}


@pytest.mark.parametrize("parser", PARSERS)
def test_what_was_found_is_refused_each_in_its_words(parser):
    words = [refusal(parser, content) for content in FOUND[parser]]
    assert len(words) > 20
    assert "" not in words
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("parser", PARSERS)
@given(data=st.data())
@settings(max_examples=300)
def test_any_damage_is_a_request_or_a_refusal(parser, data):
    content = data.draw(st.sampled_from(FOUND[parser] + seeds(parser)))
    refusal(parser, data.draw(mutations(content)))


@pytest.mark.parametrize("parser", PARSERS)
def test_the_requests_that_it_began_with_are_right(parser):
    assert [refusal(parser, content) for content in seeds(parser)] == ["", ""]
