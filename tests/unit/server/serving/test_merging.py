"""Arrays of several requests as those of one run, and back."""

import numpy as np
import pytest

from inference_server.serving.merging import join, key_of, merge, rows_of, split


def rows(first, count):
    return np.arange(first * 2, (first + count) * 2, dtype=np.float32).reshape(count, 2)


@pytest.mark.parametrize(
    ("shapes", "found"),
    [([(3, 2), (3,)], 3), ([(3, 2), (2, 2)], None), ([()], None), ([(0, 2)], None), ([], None)],
)
def test_rows_are_counted_where_inputs_agree(shapes, found):
    assert rows_of({str(number): np.zeros(shape) for number, shape in enumerate(shapes)}) == found


def test_requests_share_a_run_only_with_equal_sizes_and_outputs():
    one, other = {"x": np.zeros((1, 4))}, {"x": np.zeros((7, 4))}
    assert key_of(one, ("y",)) == key_of(other, ("y",))
    assert key_of(one, ("y",)) != key_of(one, ("z",))
    assert key_of(one, ("y",)) != key_of({"x": np.zeros((1, 5))}, ("y",))


def test_each_gets_its_own_rows_back():
    merged = merge([({"x": rows(0, 1)}, 0, 1), ({"x": rows(1, 3)}, 0, 3), ({"x": rows(0, 9)}, 4, 2)])
    np.testing.assert_array_equal(merged["x"], np.concatenate([rows(0, 4), rows(4, 2)]))
    parts = split([merged["x"] * 2], [1, 3, 2])
    assert [part[0].tolist() for part in parts] == [
        (rows(*at) * 2).tolist() for at in ((0, 1), (1, 3), (4, 2))
    ]


def test_texts_are_merged_too():
    one, other = np.array([["ü"]], object), np.array([["a"], ["b"]], object)
    assert merge([({"x": one}, 0, 1), ({"x": other}, 0, 2)])["x"].tolist() == [["ü"], ["a"], ["b"]]


def test_outputs_with_other_rows_are_no_rows():
    assert split([np.zeros((3, 2)), np.zeros(2)], [1, 2]) is None
    assert split([np.zeros(())], [1]) is None


def test_pieces_are_joined_in_their_order_whenever_they_came():
    whole = join({2: [rows(2, 1)], 0: [rows(0, 2)]})
    np.testing.assert_array_equal(whole[0], rows(0, 3))
