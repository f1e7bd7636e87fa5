"""One measured run of one way to make or apply a patch.

Usage: ``python -m benchmarks.delta_rivals METHOD make|apply OLD NEW PATCH SLICE``.

``SLICE`` is how many bytes of both files count, 0 for all. Ours run as the project runs them; bsdiff4 and
hdiffpatch through their Python packages. Prints its processor seconds and its peak memory (of its own address space: what
``wait4`` says counts from what its parent had). ``apply`` writes what it rebuilt to standard output.
"""

import resource
import sys
from pathlib import Path

OURS = ("ulp", "patch-from", "hdiff", "planes")


def ours(method: str, action: str, old: Path, new: Path, patch: Path) -> None:
    from edgemodel.artifact.delta import __main__ as child
    from edgemodel.artifact.delta import codec
    from edgemodel.artifact.delta.process import ADDRESS_SPACE

    base = None if method == "planes" else old
    if action == "apply":
        base_word = str(base) if base else ""
        assert child.main(base_word, str(patch), str(new.stat().st_size), str(ADDRESS_SPACE), "600") == 0
        return
    from edgemodel.artifact.delta.tensors import tensors_of

    before, after = (tensors_of(path, beside={}) for path in (old, new))
    codec.encode(method, base, new, patch, old_tensors=before, new_tensors=after)


def theirs(method: str, action: str, old: bytes, new: bytes, patch: Path) -> None:
    if method == "bsdiff4":
        import bsdiff4  # type: ignore[import-untyped]

        make, apply = bsdiff4.diff, bsdiff4.patch
    else:
        import hdiffpatch

        def make(a: bytes, b: bytes) -> bytes:
            found: bytes = hdiffpatch.diff(a, b, hdiffpatch.COMPRESSION_ZSTD)
            return found

        apply = hdiffpatch.apply
    if action == "make":
        patch.write_bytes(make(old, new))
    else:
        sys.stdout.buffer.write(apply(old, patch.read_bytes()))


def start(path: Path, length: int) -> int:
    """Where a slice begins: at three quarters, in the layers, as half a small transformer is its embeddings."""
    return path.stat().st_size * 3 // 4 // 4096 * 4096 if length else 0


def part(path: Path, length: int) -> bytes:
    """A slice of a file, or all of it."""
    with path.open("rb") as file:
        file.seek(start(path, length))
        return file.read(length or -1)


def ours_sliced(action: str, old: Path, new: Path, patch: Path, length: int) -> None:
    """``ulp`` on the same slice that slow rivals get."""
    from edgemodel.artifact.delta import codec
    from edgemodel.artifact.delta.numbers import NUMBER_OF, WIDTHS
    from edgemodel.artifact.delta.tensors import TensorSpan, tensors_of

    before, after = patch.with_suffix(".old"), patch.with_suffix(".new")
    before.write_bytes(part(old, length))
    if action == "apply":
        codec.apply(before, patch, sys.stdout.buffer.write, size=length)
        return
    after.write_bytes(part(new, length))

    def clipped(path: Path) -> list[TensorSpan]:
        spans, low = [], start(path, length)
        for span in tensors_of(path, beside={}):
            width = WIDTHS[NUMBER_OF[span.dtype]]
            first = max(span.offset, low + (span.offset - low) % width)
            last = min(span.offset + span.size, low + length)
            last -= (last - first) % width
            if last > first:
                spans.append(TensorSpan(span.name, span.dtype, first - low, last - first))
        return spans

    codec.encode("ulp", before, after, patch, old_tensors=clipped(old), new_tensors=clipped(new))


def main(method: str, action: str, old: str, new: str, patch: str, length: str) -> None:
    if method == "ulp-slice":
        ours_sliced(action, Path(old), Path(new), Path(patch), int(length))
    elif method in OURS:
        ours(method, action, Path(old), Path(new), Path(patch))
    else:
        after = part(Path(new), int(length)) if action == "make" else b""
        theirs(method, action, part(Path(old), int(length)), after, Path(patch))
    sys.stdout.flush()
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(used.ru_utime + used.ru_stime, int(peak) * 1024 / 1e6, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
