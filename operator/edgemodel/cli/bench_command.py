"""``edgemodel bench``: how much a running server answers, and how soon."""

import argparse
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgemodel.cli import command, exit_codes, options, output
from edgemodel.cli.command import Commands
from edgemodel.errors import Stalled

if TYPE_CHECKING:
    from edgemodel.loadtest.plan import Wanted
    from edgemodel.loadtest.result import Closed, Open, Outcome

TOKEN_VARIABLE = "EDGEMODEL_TOKEN"  # noqa: S105 - the name of a variable


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "bench",
        run,
        summary="measure a server of the Open Inference Protocol",
        about=f"""
Any server that speaks version 2 over HTTP or gRPC: ours, behind a gateway or not, or another. Inputs are made from the
model's metadata; integers among them are 0 or 1. --concurrency is a closed loop: so many clients, each of which sends when
it has its answer; it says how much the server can do. --rate is an open loop: requests are due at their times whatever the
server does, and latency counts from when a request was due, so that a stall is charged for everybody whom it kept waiting.
Latencies are of good answers (HTTP's status 200, gRPC's OK) and of timeouts; other statuses and broken connections are
counted as errors. gRPC needs edgemodel[grpc]; its tensors are always binary, and each connection has one call at a time. A
bearer token comes from --token-file or {TOKEN_VARIABLE}. Proxies are not used. Errors that some requests met are part of
the result; the exit code is 0 unless not one was answered.""",
        examples="""
edgemodel bench http://localhost:8080 --model detector
edgemodel bench http://localhost:8080 --model detector --rate 100,200 --duration 30 --plot latency.png
edgemodel bench http://localhost:8080 --model minilm --shape input_ids:1,128 --shape attention_mask:1,128 --binary
edgemodel bench grpc://localhost:8080 --model detector --concurrency 1,16
edgemodel bench https://models.site.local/vision/detector --model detector --ca-file ca.pem --data request.json""",
    )
    parser.add_argument(
        "url",
        metavar="URL",
        help="http://host:port, with a path if a gateway asks for one, or grpc://host:port; https and grpcs by TLS",
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="the model's name")
    parser.add_argument("--model-version", metavar="V", help="a version of it (default: the server's choice)")
    _add_load(parser)
    _add_inputs(parser)
    reach = parser.add_argument_group("connection")
    reach.add_argument(
        "--authority",
        metavar="HOST",
        help="whom to ask for there; by gRPC a gateway's common entry takes NAME.NAMESPACE (default: the URL's host)",
    )
    reach.add_argument("--token-file", type=Path, metavar="FILE", help="holds the bearer token to show")
    reach.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM of the authorities to trust, not the system's"
    )
    options.add_output(parser)
    parser.add_argument(
        "--chart",
        action=argparse.BooleanOptionalAction,
        help="draw how latencies are spread (default: on a terminal)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw latency by percentile as PNG or SVG; needs edgemodel[plots]",
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument(
        "--concurrency",
        type=_counts,
        metavar="N,…",
        help="closed loops with so many clients, one after the other (default: 1,4,16 without --rate)",
    )
    group.add_argument(
        "--rate", type=_rates, default=[], metavar="R,…", help="open loops with so many requests a second"
    )
    group.add_argument(
        "--arrivals",
        choices=("even", "random"),
        default="even",
        help="with --rate: at even distances, or at random moments as independent callers do (default: even)",
    )
    group.add_argument(
        "--connections",
        type=_count,
        default=256,
        metavar="N",
        help="with --rate: most at a time (default: 256)",
    )
    group.add_argument(
        "--duration", type=_seconds, default=10.0, metavar="SECONDS", help="of each loop (default: 10)"
    )
    group.add_argument(
        "--requests", type=_count, metavar="N", help="end each loop after so many requests, if that is sooner"
    )
    group.add_argument(
        "--warm-up",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="before each, not counted (default: 1)",
    )
    group.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for an answer (default: 10)"
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("inputs")
    group.add_argument(
        "--shape",
        type=_shape,
        action="append",
        default=[],
        metavar="INPUT:SIZE,…",
        help="shape of an input whose sizes the model leaves open; may be repeated (default: a batch of 1)",
    )
    group.add_argument(
        "--data",
        default="random",
        metavar="random|zeros|FILE",
        help="values, or a JSON file with one inference request or a list of them (default: random)",
    )
    group.add_argument(
        "--distinct", type=_count, default=16, metavar="N", help="different random requests (default: 16)"
    )
    group.add_argument(
        "--binary", action="store_true", help="by HTTP: send and ask for binary tensor data, not JSON"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.cli import bench_figures, bench_plot
    from edgemodel.loadtest import loop, plan
    from edgemodel.loadtest.result import Extent
    from edgemodel.loadtest.target import Target

    if arguments.plot is not None:
        bench_plot.need_extra(arguments.plot)
    target = Target.parse(
        arguments.url,
        token=_token(arguments.token_file),
        ca_file=arguments.ca_file,
        authority=arguments.authority,
    )
    requests = plan.prepared(target, _wanted(arguments), arguments.timeout)
    extent = Extent(arguments.warm_up, arguments.duration, arguments.requests, arguments.timeout)
    outcomes: list[Outcome] = []
    for load in _loads(arguments):
        if sys.stderr.isatty():
            output.note(f"{bench_figures.named(load)}: {extent.warm_up + extent.seconds:g} s …")
        outcomes.append(loop.measured(target, requests, load, extent))
    if arguments.output == "json":
        size = max(map(len, requests))
        output.document(
            bench_figures.document(
                arguments.model, size, outcomes, grpc=target.grpc, binary=arguments.binary or target.grpc
            )
        )
    else:
        chart = sys.stdout.isatty() if arguments.chart is None else arguments.chart
        bench_figures.show(outcomes, chart=chart)
    if arguments.plot is not None:
        bench_plot.draw(arguments.plot, f"{arguments.model} at {target.authority}", outcomes)
    if not any(outcome.answered for outcome in outcomes):
        output.note("edgemodel: not one request was answered well")
        return exit_codes.TRANSIENT
    return exit_codes.OK


def _loads(arguments: argparse.Namespace) -> "Iterator[Closed | Open]":
    from edgemodel.loadtest.result import Closed, Open

    for concurrency in arguments.concurrency or ([] if arguments.rate else [1, 4, 16]):
        yield Closed(concurrency)
    for rate in arguments.rate:
        yield Open(rate, arguments.connections, arguments.arrivals == "random")


def _wanted(arguments: argparse.Namespace) -> "Wanted":
    from edgemodel.loadtest.body import read
    from edgemodel.loadtest.plan import Wanted

    wanted = Wanted(
        arguments.model,
        arguments.model_version,
        dict(arguments.shape),
        binary=arguments.binary,
        distinct=arguments.distinct,
        values="zeros" if arguments.data == "zeros" else "random",
    )
    if arguments.data in ("random", "zeros"):
        return wanted
    if arguments.shape:
        raise Stalled("InvalidSpec", "--shape is for values that are made up; the file of --data has shapes")
    from dataclasses import replace

    given = read(options.read_bytes(Path(arguments.data)), arguments.data)
    return replace(wanted, values="given", given=given)


def _token(path: Path | None) -> str:
    return (os.environ.get(TOKEN_VARIABLE, "") if path is None else options.read_text(path)).strip()


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:19]) <= 10**9:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 10^9, found {text!r}")
    return int(text)


def _counts(text: str) -> list[int]:
    from edgemodel.loadtest.loop import MOST_CONNECTIONS

    counts = [_count(part) for part in text.split(",")]
    if max(counts) > MOST_CONNECTIONS:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_CONNECTIONS} clients, found {max(counts)}")
    return counts


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to 86400, found {text!r}")
    return seconds


def _rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = [math.nan]
    if not all(0.01 <= rate <= 1e6 for rate in rates):
        raise argparse.ArgumentTypeError(f"expected requests a second, from 0.01 to 10^6, found {text!r}")
    return rates


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(",")) if sizes else ()
    except ValueError:
        shape = (-1,)
    if not name or any(not 0 <= size < 2**31 for size in shape):
        raise argparse.ArgumentTypeError(f"expected INPUT:SIZE,SIZE as in pixels:1,3,224,224, found {text!r}")
    return name, shape
