"""Bring up a cluster, put the images into it and install the chart, as a person would: cluster, load-image, helm.

``start`` makes one of our own; ``existing`` uses a cluster that a person named. Both yield a ``Testbed``.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from testbed.kube import Kube
from testbed.paths import BIN, ROOT
from testbed.registries import PrivateRegistry, RegistryTools, private_registry, scratch, troubled
from testbed.shell import CommandFailed, run
from testbed.slow_link import SlowLink, slow_link
from testbed.waiting import until

CLUSTER = ROOT / "hack" / "cluster" / "cluster"
SYSTEM_NAMESPACE = "edgemodel-system"
RELEASE = "edgemodel"
AGENT_PODS = "app.kubernetes.io/name=edgemodel,app.kubernetes.io/component=node"
OPERATOR_PODS = "app.kubernetes.io/name=edgemodel,app.kubernetes.io/component notin (node, gateway)"
GATEWAY_PODS = "app.kubernetes.io/name=edgemodel,app.kubernetes.io/component=gateway"
BUILD_ANNOTATION = "edgemodel.io/build"
"""On the operator's pods: which build of the images a testbed put there."""
PRIVATE_PORT = 5443
SLOW_PORT = 5994
TROUBLE_PORTS = {"closed": 5991, "silent": 5992, "wrong-certificate": 5993}

Values = Mapping[str, Mapping[str, Any]]
Step = Callable[[str], AbstractContextManager[None]]


def quiet(title: str) -> AbstractContextManager[None]:
    """Say nothing about a step."""
    del title
    return nullcontext()


def processes_of(pods: Iterable[dict[str, Any]], command: bytes) -> list[int]:
    """Return the ids, on this machine, of processes in pods whose command line holds some text (words end in NUL)."""
    found = []
    for pod in pods:
        for path in Path("/proc").glob("[0-9]*/cgroup"):
            try:
                inside = pod["metadata"]["uid"] in path.read_text()
                words = path.with_name("cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if inside and command in words:
                found.append(int(path.parent.name))
    return found


@dataclass(frozen=True)
class Testbed:
    """A cluster with the operator on it.

    Attributes:
        kube: the cluster.
        registry: ``host:port`` of an open registry, plain HTTP, the same address from here, nodes and pods.
        registry_tools: what someone who can write to that registry can do.
        system_namespace: where the operator is.
        audit_log: the API server's audit log, if it was asked for.
        api_proxy: URL of a ``kubectl proxy``, where this machine has no route to the cluster's Services.
    """

    __test__ = False  # not a test class, whatever its name begins with

    kube: Kube
    registry: str
    registry_tools: RegistryTools
    private_registry: PrivateRegistry | None
    troubles: dict[str, str]
    system_namespace: str = SYSTEM_NAMESPACE
    audit_log: Path | None = None
    api_proxy: str | None = None

    def service_url(self, name: str, namespace: str) -> str:
        """Return a base URL of a Service that this machine reaches: directly, or through the API server's proxy."""
        spec = self.kube.get("service", name, namespace)["spec"]
        if self.api_proxy is None:
            return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"
        if not spec.get("selector"):
            # It leads to the gateway by EndpointSlices alone; the API server's proxy follows none but a selector's.
            return self.gateway_url(namespace, name)
        return f"{self.api_proxy}/api/v1/namespaces/{namespace}/services/{name}:http/proxy"

    def infer(self, url: str, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one inference request and return the answer's body; anything but 200 is an AssertionError.

        Only connecting is tried again. A node's proxy may be a moment behind a new Service, and a connection whose first
        packet came too early never gets through: the kernel goes on sending what follows of it the wrong way.
        """
        with httpx.Client(
            transport=httpx.HTTPTransport(retries=3), timeout=httpx.Timeout(30, connect=5)
        ) as client:
            response = client.post(f"{url}/v2/models/{model}/infer", json=body)
        assert response.status_code == 200, f"{response.status_code}: {response.text[:500]}"
        answer: dict[str, Any] = response.json()
        return answer

    def await_alone(self, name: str, namespace: str, digest: str, timeout: float = 90) -> None:
        """Wait until a version of a model serves and no pod of another is left that could still answer."""
        label = digest.removeprefix("sha256:")[:16]

        def alone() -> bool:
            slots = self.kube.get("edgemodel", name, namespace).get("status", {}).get("slots", {})
            pods = self.kube.list("pods", namespace, f"edgemodel.io/model={name}")
            found = {pod["metadata"]["labels"]["edgemodel.io/digest"] for pod in pods}
            return (slots.get("active") or {}).get("digest") == digest and found == {label}

        self.kube.until(alone, f"{name} to be served by {digest} alone", timeout)

    def troubled_registry(self, kind: str) -> str:
        """Return ``address:port`` of a registry that misbehaves, or of the private one for which no password is given."""
        if kind == "wrong-password":
            assert self.private_registry is not None
            return self.private_registry.host
        return self.troubles[kind]

    def operator_pods(self) -> list[dict[str, Any]]:
        """Return the operator's pods."""
        return self.kube.list("pods", self.system_namespace, OPERATOR_PODS)

    def agent_pods(self) -> list[dict[str, Any]]:
        """Return the node agents' pods."""
        return self.kube.list("pods", self.system_namespace, AGENT_PODS)

    def gateway_pods(self) -> list[dict[str, Any]]:
        """Return the gateway's pods."""
        return self.kube.list("pods", self.system_namespace, GATEWAY_PODS)

    def gateway_url(self, namespace: str, name: str) -> str:
        """Return a model's base URL at the one entry for all models."""
        return f"{self.service_url('edgemodel-gateway', self.system_namespace)}/{namespace}/{name}"

    def agent_log(self) -> str:
        """Return everything the node agents have logged since they were started last."""
        return "".join(
            self.kube("logs", pod["metadata"]["name"], "-n", self.system_namespace, check=False)
            for pod in self.agent_pods()
        )

    @contextmanager
    def agents_stopped(self) -> Iterator[None]:
        """Hold the node agents still for a while, as if their nodes were busy with something else."""
        pids = processes_of(self.agent_pods(), b"node\0agent")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def agents_may(self, verb: str, resource: str, namespace: str) -> bool:
        """Tell whether the node agents' account has a right."""
        (account,) = {pod["spec"]["serviceAccountName"] for pod in self.agent_pods()}
        who = f"--as=system:serviceaccount:{self.system_namespace}:{account}"
        return self.kube("auth", "can-i", verb, resource, "-n", namespace, who, check=False).strip() == "yes"

    @contextmanager
    def slow_registry(self, rate: float) -> Iterator[SlowLink]:
        """Put a link of ``rate`` bits a second in front of the open registry; yield it, its address is a registry's."""
        address = self.registry.rpartition(":")[0]
        with slow_link(self.registry, rate=rate, listen=address, port=SLOW_PORT) as link:
            yield link

    def operator_log(self) -> str:
        """Return everything the operator has logged."""
        return "".join(
            self.kube("logs", pod["metadata"]["name"], "-n", self.system_namespace)
            for pod in self.operator_pods()
        )

    def operator_pids(self) -> list[int]:
        """Return the process ids, on this machine, of the operators of this cluster."""
        return processes_of(self.operator_pods(), b"edgemodel")

    def kill_operator(self) -> None:
        """Kill the operator as a power cut would: no signal it could handle."""
        before = {pod["metadata"]["uid"] for pod in self.operator_pods()}
        self.kube(
            "delete", "pod", "-n", self.system_namespace, "-l", OPERATOR_PODS,
            "--grace-period=0", "--force",
        )  # fmt: skip
        self.until_operator_is_ready(besides=before)

    def until_operator_is_ready(self, besides: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """Wait until an operator pod is ready that is not one of ``besides`` (uids)."""

        def ready() -> bool:
            return any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for pod in self.operator_pods()
                if pod["metadata"]["uid"] not in besides
                for condition in pod["status"].get("conditions", [])
            )

        until(ready, "the operator to be ready", timeout=90)

    def upgrade(self, *settings: str) -> None:
        """Upgrade the release with values as ``helm --set`` takes them, the others as they were, and wait for it."""
        run(
            _helm(), "upgrade", RELEASE, ROOT / "charts" / "edgemodel", *_context(self.kube),
            "--namespace", self.system_namespace, "--reuse-values", "--wait", "--timeout", "3m",
            *(word for setting in settings for word in ("--set", setting)),
            timeout=240,
        )  # fmt: skip

    def describe(self, namespace: str) -> str:
        """Return what a person would look at when something in a namespace is wrong."""
        told = [
            self.kube("get", "em", "-n", namespace, "-o", "yaml", check=False),
            self.kube("get", "all,events", "-n", namespace, "-o", "wide", check=False),
        ]
        for pod in self.kube.list("pods", namespace):
            name = pod["metadata"]["name"]
            told.append(
                f"--- {name}\n" + self.kube("logs", name, "-n", namespace, "--all-containers", check=False)
            )
        told.append("--- operator\n" + "\n".join(self.operator_log().splitlines()[-60:]))
        return "\n".join(told)


def _images() -> dict[str, Path]:
    """Build the images; return each name and its archive."""
    built = run(ROOT / "hack" / "images" / "build", timeout=1500).stdout
    return {line.split()[0]: Path(line.split()[1]) for line in built.splitlines() if line.strip()}


def _install(
    kube: Kube,
    image_registry: str,
    registries: dict[str, Any],
    build: str,
    more: Values | None = None,
) -> None:
    """Install or upgrade the chart and wait for it; another ``build`` of the same tag restarts the operator."""
    values: dict[str, Any] = {
        "images": {"registry": image_registry, "tag": "dev"},
        "registries": registries,
        "dashboards": {"enabled": True},
        "podAnnotations": {BUILD_ANNOTATION: build},
        "node": {"podAnnotations": {BUILD_ANNOTATION: build}},
        "gateway": {"podAnnotations": {BUILD_ANNOTATION: build}},
    }
    for part, settings in (more or {}).items():
        values[part] = {**values.get(part, {}), **settings}
    try:
        run(
            _helm(), "upgrade", "--install", RELEASE, ROOT / "charts" / "edgemodel", *_context(kube),
            "--namespace", SYSTEM_NAMESPACE, "--create-namespace", "--wait", "--timeout", "2m", "--values", "-",
            stdin=json.dumps(values), timeout=240,
        )  # fmt: skip
    except CommandFailed as failure:
        pods = kube("describe", "pods", "-n", SYSTEM_NAMESPACE, check=False)
        log = kube(
            "logs", "-n", SYSTEM_NAMESPACE, "-l", "app.kubernetes.io/name=edgemodel", "--tail=40", check=False
        )
        raise CommandFailed(f"{failure}\n{pods[-3000:]}\n{log}") from None


def _helm() -> Path:
    return BIN / "helm" if (BIN / "helm").exists() else Path("helm")


def _context(kube: Kube) -> list[str]:
    flags = ["--kubeconfig", str(kube.kubeconfig)] if kube.kubeconfig else []
    return [*flags, "--kube-context", kube.context]


@contextmanager
def start(
    name: str,
    *,
    nodes: int = 1,
    store_size: str | None = None,
    more: Values | None = None,
    keep: bool = False,
    audit: bool = False,
    step: Step = quiet,
) -> Iterator[Testbed]:
    """Start our own cluster with the operator, and an agent on each node; it is gone afterwards unless ``keep`` is set.

    Args:
        name: the cluster's.
        nodes: how many it has.
        store_size: size of the disk that each node's store is on (``200M``); None for the machine's own disk.
        more: values of the chart besides ours.
        keep: leave it running, and take up one that was left.
        audit: write the API server's audit log.
        step: what is told of each step.
    """
    with ExitStack() as stack:
        if not keep:
            run(CLUSTER, "down", "--name", name)  # one left by a run that was killed
            stack.callback(run, CLUSTER, "down", "--name", name, check=False)
        with step("Start Kubernetes on this machine (the first time its binary is built, some 6 minutes)"):
            up = [str(CLUSTER), "up", "--name", name, "--nodes", str(nodes), *(["--audit"] if audit else [])]
            up += ["--store-size", store_size] if store_size else []
            subprocess.run(up, check=True, stdout=None if step is not quiet else subprocess.DEVNULL)
            status = json.loads(run(CLUSTER, "status", "--name", name, "--output", "json").stdout)
        with step("Build the images and load them into the node"):
            images = _images()
            for archive in images.values():
                run(CLUSTER, "load-image", "--name", name, archive, timeout=300)
        kube = Kube(Path(status["kubeconfig"]), f"edgemodel-{name}")
        address = status["registry"].split(":")[0]
        private = stack.enter_context(private_registry(address, PRIVATE_PORT, scratch(stack, "private")))
        troubles = stack.enter_context(troubled(address, scratch(stack, "troubled"), TROUBLE_PORTS))
        with step("Install the operator with Helm"):
            registries = {
                status["registry"]: {"plainHTTP": True},
                private.host: {"ca": private.ca.read_text()},
                troubles["silent"]: {"plainHTTP": True},
                troubles["closed"]: {"plainHTTP": True},
                f"{address}:{SLOW_PORT}": {"plainHTTP": True},
            }
            build = ",".join(archive.stem for archive in images.values())
            _install(kube, "localhost", registries, build, more)
        storage = Path(status["kubeconfig"]).parent / "registry"
        tools = RegistryTools(status["registry"], storage)
        audit_log = Path(status["auditLog"]) if status.get("auditLog") else None
        yield Testbed(kube, status["registry"], tools, private, troubles, audit_log=audit_log)


@contextmanager
def existing(context: str, registry: str, *, step: Step = quiet) -> Iterator[Testbed]:
    """Install the operator on a cluster that a person named, with images pushed to their registry."""
    kube = Kube(None, context, foreign=True)
    _refuse_to_replace(kube)
    with step(f"Build the images and push them to {registry}"):
        images = _images()
        for image in images:
            pushed = f"docker://{registry}/{image.removeprefix('localhost/')}"
            run("buildah", "push", "--tls-verify=false", image, pushed, timeout=300)
    with step("Install the operator with Helm"):
        build = ",".join(archive.stem for archive in images.values())
        _install(kube, registry, {registry: {"plainHTTP": True}}, build)
    with _api_proxy(kube) as url:
        yield Testbed(kube, registry, RegistryTools(registry, Path("/nonexistent")), None, {}, api_proxy=url)


def _refuse_to_replace(kube: Kube) -> None:
    """Stop before an operator that a person installed would be upgraded with our settings."""
    try:
        template = kube.get("deployment", RELEASE, SYSTEM_NAMESPACE)["spec"]["template"]
    except LookupError:
        return
    if BUILD_ANNOTATION not in template["metadata"].get("annotations", {}):
        raise SystemExit(
            f"{kube.context} has an EdgeModel operator in {SYSTEM_NAMESPACE} that is not the demo's; it is left alone. "
            "Use another cluster, or leave out KUBE_CONTEXT to start one on this machine."
        )


@contextmanager
def _api_proxy(kube: Kube) -> Iterator[str]:
    """Run ``kubectl proxy`` on a free port of loopback; yield its URL."""
    kubectl = BIN / "kubectl" if (BIN / "kubectl").exists() else Path("kubectl")
    process = subprocess.Popen(
        [str(kubectl), *kube.flags, "proxy", "--port=0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # Starting to serve on 127.0.0.1:41234
        yield f"http://{line.strip().rsplit(' ', 1)[1]}"
    finally:
        process.terminate()
        process.wait(timeout=10)


if __name__ == "__main__":
    sys.exit("import this module; `make demo` is the command")
