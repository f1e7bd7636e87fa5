"""CPU, memory and open files of a server of several processes, under the names every Prometheus client library uses.

Promises sums over all of its processes, each page that several share counted in each of them; the start is the first one's.
CPU time of processes that have ended stays in the sum: the kernel keeps it with the first one, which has waited for them
(proc_pid_stat(5), `cutime` and `cstime`).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

_CPU = "process_cpu_seconds"
_START = "process_start_time_seconds"


class ProcessFamily(Collector):
    """What the processes take together.

    Args:
        pids: Who they are now, the first one first.
        registry: Where this is told.
    """

    def __init__(self, pids: Callable[[], Sequence[int]], registry: CollectorRegistry) -> None:
        self._pids = pids
        self._pid = os.getpid()
        self._one = ProcessCollector(pid=lambda: self._pid, registry=None)
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the sums (for the registry)."""
        found: dict[str, Metric] = {}
        for number, pid in enumerate(self._pids()):
            self._pid = pid
            for family in self._one.collect():
                (sample,) = family.samples
                more = _ended_seconds(pid) if number == 0 and family.name == _CPU else 0.0
                if family.name not in found:
                    found[family.name] = family
                    family.samples = [sample._replace(value=sample.value + more)]
                elif family.name != _START:
                    (sum_of,) = found[family.name].samples
                    found[family.name].samples = [sum_of._replace(value=sum_of.value + sample.value)]
        return found.values()


def _ended_seconds(pid: int) -> float:
    """Return the CPU time of the processes that this one has waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
