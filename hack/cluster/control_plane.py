"""etcd, API server, controller manager and scheduler, and the machine's registry and DNS beside them.

All run on the machine itself, not in a node's namespace. etcd, the controller manager and the scheduler listen
on 127.0.0.1 only; the API server, the registry and DNS on the machine's address in the cluster, which nodes and
pods reach and nothing outside the machine does.
"""

import json
from typing import Any

from cluster import api, processes
from cluster.binaries import COREDNS, KUBE
from cluster.layout import API_PORT, CLUSTER_DOMAIN, DNS_PORT, ClusterError, Layout

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}

# Two server blocks, because CoreDNS asks `template` before `kubernetes` whatever their order here.
_COREFILE = """\
{domain}:{port} in-addr.arpa:{port} ip6.arpa:{port} {{
    bind {address}
    errors
    ready {address}:{ready_port}
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    loadbalance
}}
# Nothing outside the cluster can be reached from it, so no other name exists.
.:{port} {{
    bind {address}
    errors
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def start_etcd(layout: Layout) -> None:
    pki = layout.pki
    client = f"https://127.0.0.1:{layout.loopback_port(22379)}"
    peer = f"https://127.0.0.1:{layout.loopback_port(22380)}"
    command = [
        *(str(KUBE.path()), "etcd", "--name=default", f"--data-dir={layout.directory / 'etcd'}"),
        *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
        f"--initial-cluster=default={peer}",
        *("--client-cert-auth", f"--trusted-ca-file={pki / 'etcd-ca.crt'}"),
        *(f"--cert-file={pki / 'etcd.crt'}", f"--key-file={pki / 'etcd.key'}"),
        *("--peer-client-cert-auth", f"--peer-trusted-ca-file={pki / 'etcd-ca.crt'}"),
        *(f"--peer-cert-file={pki / 'etcd.crt'}", f"--peer-key-file={pki / 'etcd.key'}"),
        # The data need not outlive the machine, and fsync is most of a write's time.
        *("--unsafe-no-fsync", "--log-level=warn"),
    ]
    processes.start(layout, "etcd", command)


def start_api_server(layout: Layout, *, audit: bool) -> None:
    pki = layout.pki
    command = [
        *(str(KUBE.path()), "kube-apiserver"),
        *(f"--bind-address={layout.host_address}", f"--advertise-address={layout.host_address}"),
        f"--secure-port={API_PORT}",
        *(f"--tls-cert-file={pki / 'apiserver.crt'}", f"--tls-private-key-file={pki / 'apiserver.key'}"),
        *(f"--client-ca-file={pki / 'ca.crt'}", "--anonymous-auth=false"),
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
        f"--etcd-servers=https://127.0.0.1:{layout.loopback_port(22379)}",
        *(f"--etcd-cafile={pki / 'etcd-ca.crt'}", f"--etcd-certfile={pki / 'apiserver-etcd.crt'}"),
        f"--etcd-keyfile={pki / 'apiserver-etcd.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
        # logs and exec would otherwise look the node's name up in the machine's DNS.
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-cluster-ip-range={layout.service_range}",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        *("--allow-privileged=true", "--profiling=false"),
    ]
    if audit:
        policy = layout.directory / "audit-policy.json"
        policy.write_text(json.dumps(_AUDIT_POLICY))
        command += [f"--audit-policy-file={policy}", f"--audit-log-path={layout.audit_log}"]
    processes.start(layout, "kube-apiserver", command)


def wait_for_api(layout: Layout) -> None:
    api.wait(layout, "the API server", lambda: api.is_ready(layout), ["etcd", "kube-apiserver"])


def start_controllers(layout: Layout) -> None:
    pki = layout.pki
    for component, port in (("kube-controller-manager", 22257), ("kube-scheduler", 22259)):
        kubeconfig = pki / f"{component}.kubeconfig"
        command = [
            *(str(KUBE.path()), component, f"--kubeconfig={kubeconfig}"),
            *(f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}"),
            *("--bind-address=127.0.0.1", f"--secure-port={layout.loopback_port(port)}"),
            *(f"--tls-cert-file={pki / 'loopback.crt'}", f"--tls-private-key-file={pki / 'loopback.key'}"),
            *("--leader-elect=false", "--profiling=false"),
            # There is no aggregated API server here, so nothing to look up its authority for.
            "--authentication-skip-lookup=true",
        ]
        if component == "kube-controller-manager":
            command += [
                # Each of its 40 controllers first asks for a token; the default of 20 a second is 3 s of waiting.
                *("--kube-api-qps=200", "--kube-api-burst=400"),
                *("--use-service-account-credentials=true", f"--root-ca-file={pki / 'ca.crt'}"),
                f"--service-account-private-key-file={pki / 'service-account.key'}",
                f"--cluster-signing-cert-file={pki / 'ca.crt'}",
                f"--cluster-signing-key-file={pki / 'ca.key'}",
                *("--allocate-node-cidrs=false", f"--cluster-cidr={layout.pod_range}"),
            ]
        processes.start(layout, component, command)


def wait_for_controllers(layout: Layout) -> None:
    """A pod can be made only once the controller manager has made its namespace's service account."""
    path = "/api/v1/namespaces/default/serviceaccounts/default"
    api.wait(
        layout,
        "the default service account",
        lambda: api.get(layout, path)[0] == 200,
        ["kube-controller-manager", "kube-scheduler"],
    )


def start_registry(layout: Layout) -> None:
    """Debian's docker-registry over plain HTTP, for whatever a developer or a test pushes."""
    document = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(layout.directory / "registry")},
            "delete": {"enabled": True},
            # It starts without a shared HTTP secret otherwise, and says so in every log.
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": layout.registry, "secret": layout.context},
    }
    configuration = layout.directory / "registry.json"
    configuration.write_text(json.dumps(document))
    processes.start(layout, "registry", ["docker-registry", "serve", str(configuration)])


def start_dns(layout: Layout) -> None:
    corefile = layout.directory / "Corefile"
    corefile.write_text(
        _COREFILE.format(
            port=DNS_PORT,
            address=layout.host_address,
            ready_port=DNS_PORT + 1,
            domain=CLUSTER_DOMAIN,
            kubeconfig=layout.pki / "coredns.kubeconfig",
        )
    )
    processes.start(layout, "coredns", [str(COREDNS.path()), "-conf", str(corefile)])


def cluster_objects(layout: Layout) -> list[dict[str, Any]]:
    """What has to be in the API for the parts that run outside it: their rights, and DNS as a Service."""

    def binding(name: str, role: str, user: str) -> dict[str, Any]:
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }

    read = ["list", "watch"]
    dns_role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": read},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        ],
    }
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "clusterIP": layout.dns_service_address,
            "ports": [
                {"name": name, "port": 53, "targetPort": DNS_PORT, "protocol": protocol}
                for name, protocol in ports
            ],
        },
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-machine",
            "namespace": "kube-system",
            "labels": {
                "kubernetes.io/service-name": "kube-dns",
                "endpointslice.kubernetes.io/managed-by": "edgemodel-cluster",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [layout.host_address], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": DNS_PORT, "protocol": protocol} for name, protocol in ports],
    }
    return [
        dns_role,
        binding("system:coredns", "system:coredns", "system:coredns"),
        binding("edgemodel:apiserver-kubelet", "system:kubelet-api-admin", "kube-apiserver-kubelet-client"),
        service,
        endpoints,
    ]


def require(layout: Layout, components: list[str]) -> None:
    """Fail if one of the parts without a readiness of their own has stopped."""
    for name in components:
        try:
            processes.require_alive(layout, name)
        except ClusterError as error:
            raise ClusterError(
                f"{error}\nIs its port taken by another program? `ss -ltnup` shows."
            ) from error
