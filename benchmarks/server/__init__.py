"""The inference server beside MLServer, KServe, LitServe, BentoML, a hand-written Starlette and raw ONNX Runtime.

- Peers come from PyPI into environments of their own (``peers/versions.json``) and are configured for speed; how, says each
  one's program in ``peers/``. Every server must answer rightly before it is measured.
- "One core": the server on CPU 0, the client on CPU 1. "Two cores": both on both; the small model is served by two processes
  there, ours and those of the peers that take workers. Ours and the peers take turns in rounds; a ratio is the median of the
  rounds' ratios, and CPU time for each request stands in the notes of the result.
- ``SERVER_ONLY=json,grpc`` runs some sections and keeps what is recorded of the others; ``SERVER_SECONDS=1`` measures so
  long, in two rounds, with 10 s of overload.
- A section that did not come to its end is a figure, ``…_ended`` 0, and hides no other.
"""

import os
import shutil
import subprocess
import traceback

from benchmarks.figures import Report
from benchmarks.server import compute, large, overload, rpc, small, start
from benchmarks.server.load import WrongAnswers
from benchmarks.server.rounds import chosen, pace

SECTIONS = {
    "json": small.json,
    "binary": small.binary,
    "latency": small.latency,
    "grpc": rpc.grpc,
    "compute": compute.compute,
    "encoder": compute.encoder,
    "tail": compute.tail,
    "large": large.large,
    "start": start.start,
    "memory": start.memory,
    "overload": overload.overload,
}


def run() -> bool:
    """Run the sections; True when every goal is met."""
    for program in ("wrk", "h2load", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is needed: hack/install-tools installs it")
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("expected two cores, one for the server and one for the client; found one")
    report = Report("server")
    sections = chosen(SECTIONS)
    report.keep(SECTIONS, sections)
    report.notes["load_before"] = os.getloadavg()
    for name in sections:
        try:
            SECTIONS[name](report, pace())
        except (AssertionError, TimeoutError, WrongAnswers, subprocess.SubprocessError) as error:
            print(f"  {name} did not end: {error}"[:600], flush=True)
            report.add(f"{name}_ended", 0, "", ">=", 1)
            report.notes[f"{name}_did_not_end"] = "".join(traceback.format_exception_only(error))[-1000:]
        report.ran(name)
    return report.finish()
