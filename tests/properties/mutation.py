"""Ways to damage bytes, for properties."""

from collections.abc import Iterator

from hypothesis import strategies as st


def single_bit_flips(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every byte string that differs in one bit, with the place of the byte that differs."""
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            yield place, bytes(flipped)


def mutations(data: bytes) -> st.SearchStrategy[bytes]:
    """``data`` with one to three pieces replaced, removed, doubled or inserted."""

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        result = data
        for start, length, piece in edits:
            result = result[:start] + piece + result[start + length :]
        return result

    place = st.integers(0, len(data))
    piece = st.one_of(
        st.binary(max_size=4),
        st.sampled_from([b'"', b"{", b"}", b"[", b"]", b",", b":", b" ", b"\\", b"0", b"=", b"null"]),
        st.tuples(place, st.integers(0, 80)).map(lambda cut: data[cut[0] : cut[0] + cut[1]]),
    )
    return st.lists(st.tuples(place, st.integers(0, 40), piece), min_size=1, max_size=3).map(apply)
