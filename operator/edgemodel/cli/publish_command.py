"""``edgemodel publish``: files to a signed artifact in a registry."""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemodel.cli import command, deltas, golden, options, output, progress, rounding
from edgemodel.cli.command import Commands

if TYPE_CHECKING:
    from edgemodel.artifact.attach import Attached
    from edgemodel.artifact.delta.quant import TensorSteps
    from edgemodel.artifact.delta_publish import Version
    from edgemodel.artifact.digest import Digest
    from edgemodel.artifact.golden_samples import Golden
    from edgemodel.artifact.keys import PrivateKey
    from edgemodel.artifact.manifest import Release
    from edgemodel.artifact.old_versions import Published
    from edgemodel.artifact.publish import Prepared
    from edgemodel.artifact.reference import Reference


@dataclass(frozen=True, slots=True)
class _Published:
    """What came of it."""

    prepared: "Prepared"
    signature: str | None
    made: list[deltas.Made]
    attached: "list[Attached]"
    rounded: rounding.Result | None
    unrounded: int | None
    """Bytes of the deltas from the first old version had nothing been rounded."""
    samples: golden.Result | None


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "publish",
        run,
        summary="push model files to a registry as an artifact, and sign it",
        about="""
Writes a CNCF ModelPack artifact: one file a layer, readable by oras and modctl. Weights of an ONNX model of 1 MiB
and more go into a file of their own, aligned so that servers can map it. Input files are never changed.
Name, version, sequence and expiry become part of what is signed. The sequence is a whole number that grows with
every release: clusters refuse to go back to a lower one.
With --key the tag moves only when the signature is in place, so nobody ever sees the tag unsigned.
The same files, facts and --created give the same digest.
With --golden, samples are signed with the model: each server runs them before the version gets traffic. The model must
pass them here first. A version rounded by --delta-quantize takes the old one's samples on when none are given.
With --delta-from, deltas from older versions are attached before the tag moves, so that nodes find them at their first
look and fetch what changed instead of the model.""",
        examples="""
edgemodel publish model.onnx labels.txt --to registry.example.com/models/detector:1.4.0 \\
    --version 1.4.0 --sequence 7 --key edgemodel.key
edgemodel publish model.onnx --to registry.example.com/models/detector:1.5.0 --sequence 8 --key edgemodel.key \\
    --delta-from registry.example.com/models/detector:1.4.0
edgemodel publish model.onnx --to registry.example.com/models/detector:1.5.0 --sequence 8 --key edgemodel.key \\
    --delta-from registry.example.com/models/detector:1.4.0 --delta-quantize 4 --samples ./samples/
edgemodel publish model.onnx --to registry.example.com/models/detector:1.6.0 --sequence 9 --key edgemodel.key \\
    --golden ./golden/
edgemodel publish ./detector/ --to localhost:5000/models/detector:dev --version dev --plain-http""",
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="files, or folders that are taken whole"
    )
    parser.add_argument(
        "--to", required=True, metavar="REFERENCE", help="registry/repository:tag to publish to"
    )
    facts = parser.add_argument_group("release facts")
    facts.add_argument("--version", metavar="TEXT", help="version for people")
    facts.add_argument(
        "--sequence", type=int, metavar="N", help="grows with every release; what prevents going back"
    )
    facts.add_argument(
        "--name",
        metavar="NAME",
        help="the model this is, the end of the repository's path (default: its last component)",
    )
    facts.add_argument(
        "--expires", metavar="TIME", help="from when on it must not be taken into use, RFC 3339"
    )
    options.add_created(facts)  # type: ignore[arg-type]  # a group takes arguments as a parser does
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="private key to sign with: PKCS#8 PEM, or cosign's own file; "
        "password from $EDGEMODEL_PASSWORD, $COSIGN_PASSWORD or the terminal",
    )
    parser.add_argument("--keep-weights-inside", action="store_true", help="leave ONNX files as they are")
    checks = parser.add_argument_group("what the model answers")
    golden.add(checks)
    checks.add_argument(
        "--model-file", metavar="PATH", help="the ONNX file to run on samples (default: the only one)"
    )
    group = parser.add_argument_group("deltas")
    group.add_argument(
        "--delta-from",
        action="append",
        default=[],
        metavar="REFERENCE",
        help="an older version that nodes have, to make deltas from; may be repeated",
    )
    deltas.add_from_dir(group)
    rounding.add(group)
    options.add_registry(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.artifact.manifest import Release
    from edgemodel.artifact.publish import collect, prepare
    from edgemodel.artifact.reference import Reference
    from edgemodel.errors import Stalled

    reference = Reference.parse(arguments.to)
    if reference.tag is None or reference.digest is not None:
        raise Stalled("InvalidSpec", f"--to {reference}: expected registry/repository:tag, without a digest")
    rounding.check_options(arguments)
    old = deltas.references(arguments.delta_from)
    if old:
        deltas.need_extras()
    key = options.private_key(arguments.key) if arguments.key else None
    moment = options.created(arguments.created)
    release = Release(
        name=arguments.name or reference.repository.rpartition("/")[2],
        version=arguments.version,
        sequence=arguments.sequence,
        expires=options.moment(arguments.expires, "--expires") if arguments.expires else None,
        created=moment,
    )
    with tempfile.TemporaryDirectory(prefix="edgemodel-") as name:
        folder = Path(name)
        samples = golden.collect(arguments, folder / "given-samples")
        prepared = prepare(
            collect(arguments.files), release, folder, external=not arguments.keep_weights_inside
        )
        published = asyncio.run(_publish(arguments, reference, prepared, samples, old, key, moment, folder))
    if not f"/{reference.repository}".endswith(f"/{release.name}"):
        output.note(
            f"Clusters will refuse it: it is named {release.name}, and {reference.repository} does not end so (WrongModel)."
        )
    _print(arguments, reference, published)
    return 0


async def _publish(
    arguments: argparse.Namespace,
    reference: "Reference",
    prepared: "Prepared",
    samples: "Golden | None",
    old: "Sequence[Reference]",
    key: "PrivateKey | None",
    moment: datetime,
    folder: Path,
) -> _Published:
    """Round, add samples and make deltas if that was asked for, upload, sign, and only then move the tag."""
    from edgemodel.artifact.attach import attach
    from edgemodel.artifact.old_versions import samples_of
    from edgemodel.artifact.publish import move_tag, upload
    from edgemodel.artifact.signature import sign_bundle

    result, unrounded, carried_from = None, None, ""
    before = await deltas.bring(arguments, old, folder / "old") if old else []
    steps: Mapping[Digest, Sequence[TensorSteps]] = {}
    if before and arguments.delta_quantize:
        if samples is None and (carried := samples_of(before[0], folder / "old-samples")) is not None:
            samples, carried_from = carried.unanswered(), str(before[0].reference)
        unrounded = await asyncio.to_thread(_unrounded, prepared, before[0], folder / "unrounded")
        new = _version(reference, prepared)
        result = await rounding.apply(arguments, new, before[0], samples, folder)
        prepared, steps = _prepare_rounded(result, prepared.release, folder / "prepared")
    beside: golden.Result | None = None
    if samples is not None:
        files = _version(reference, prepared).beside()
        prepared, beside = await asyncio.to_thread(
            golden.put_beside, arguments, prepared, samples, files, folder / "golden", carried_from
        )
    made: list[deltas.Made] = []
    if before:
        made = await _deltas(_version(reference, prepared), before, steps, folder / "patches")
    async with options.registry(arguments, reference) as registry:
        with progress.bar("pushing") as advance:
            pinned = await upload(registry, reference, prepared, advance)
        attached = await deltas.attach(registry, pinned, prepared.manifest, made)
        signature = None
        if key is not None:
            signature = (await attach(registry, pinned, sign_bundle(key, prepared.digest), moment)).digest
        await move_tag(registry, reference, prepared)
    return _Published(prepared, signature, made, attached, result, unrounded, beside)


def _version(reference: "Reference", prepared: "Prepared") -> "Version":
    from edgemodel.artifact.delta_publish import LocalFile, Version

    places = {descriptor.digest: place for descriptor, place in prepared.blobs.items()}
    files = [LocalFile(one.path, one.descriptor, places[one.descriptor.digest]) for one in prepared.files]
    return Version(str(reference), tuple(files))


async def _deltas(
    new: "Version",
    before: "Sequence[Published]",
    steps: "Mapping[Digest, Sequence[TensorSteps]]",
    patches: Path,
) -> list[deltas.Made]:
    from edgemodel.artifact.delta_publish import Maker

    return await deltas.make(Maker(patches, steps), new, before)


def _prepare_rounded(
    result: rounding.Result, release: "Release", folder: Path
) -> "tuple[Prepared, Mapping[Digest, Sequence[TensorSteps]]]":
    from edgemodel.artifact.publish import prepare

    folder.mkdir()
    prepared = prepare(result.files, release, folder, external=False)
    digests = {file.path: file.descriptor.digest for file in prepared.files}
    return prepared, {digests[one.path]: one.steps for one in result.rounded}


def _unrounded(prepared: "Prepared", old: "Published", patches: Path) -> int:
    """Return how large the deltas would be without rounding; only the codec for weights is asked."""
    from edgemodel.artifact.delta_publish import Maker

    groups = Maker(patches, only=("ulp",)).make(_version(old.reference, prepared), [old.version])
    return sum(o.new.descriptor.size - o.saved for o in groups[0] if any(a.size for a in o.attempts))


def _print(arguments: argparse.Namespace, reference: "Reference", published: _Published) -> None:
    prepared = published.prepared
    if arguments.output == "json":
        document: dict[str, Any] = {
            "reference": str(reference.pinned(prepared.digest)),
            "tag": reference.tag,
            "digest": prepared.digest,
            "size": prepared.size,
            "files": [
                {"path": file.path, "digest": file.descriptor.digest, "size": file.descriptor.size}
                for file in prepared.files
            ],
            "signature": published.signature,
        }
        if published.made:
            document["deltas"] = deltas.document(published.made, published.attached)
        if published.rounded is not None:
            document["rounded"] = rounding.document(published.rounded, published.unrounded)
        if published.samples is not None:
            document["golden"] = golden.document(published.samples)
        output.document(document)
        return
    output.table(
        ("FILE", "SIZE", "DIGEST"),
        [(f.path, output.size(f.descriptor.size), f.descriptor.digest) for f in prepared.files],
    )
    if published.rounded is not None:
        paths = {one.path for one in published.rounded.rounded}
        size = sum(o.new.descriptor.size - o.saved for o in published.made[0].outcomes if o.new.path in paths)
        rounding.show(published.rounded, published.unrounded, size)
    deltas.show(published.made)
    if published.samples is not None:
        golden.show(published.samples)
    print()
    output.fields([("published", reference), ("digest", prepared.digest), ("signature", published.signature)])
    if published.signature is None:
        output.note("It is not signed yet: clusters refuse it until edgemodel sign has signed it.")
