"""A cluster's own certificate authorities, certificates and kubeconfigs, made by openssl.

Two authorities: one for the Kubernetes API (servers and clients), one for etcd, so that no client of the API,
and above all no node, can open etcd with its certificate. Keys are ECDSA P-256 and never leave the cluster's
folder, which only root can enter. What exists is kept: `up` on a running cluster makes nothing new.
"""

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster.layout import CLUSTER_DOMAIN, ClusterError, Layout, Node

_DAYS = "365"
# openssl's default configuration makes every `req -x509` a CA; this one adds nothing by itself.
_CONFIGURATION = "[req]\ndistinguished_name = name\nprompt = no\n[name]\n"
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def ensure_cluster(layout: Layout) -> None:
    """Make what the control plane needs: authorities, certificates, service-account key, kubeconfigs."""
    layout.pki.mkdir(parents=True, exist_ok=True)
    layout.pki.chmod(0o700)
    (layout.pki / "openssl.cnf").write_text(_CONFIGURATION)
    _authority(layout, "ca", f"{layout.context} API")
    _authority(layout, "etcd-ca", f"{layout.context} etcd")
    _certificate(layout, "etcd", "etcd", authority="etcd-ca", names=["DNS:localhost", "IP:127.0.0.1"])
    _certificate(layout, "apiserver-etcd", "kube-apiserver", authority="etcd-ca")
    service = f"kubernetes.default.svc.{CLUSTER_DOMAIN}"
    names = [f"DNS:{'.'.join(service.split('.')[:count])}" for count in (1, 2, 3, 5)] + ["DNS:localhost"]
    names += [f"IP:{address}" for address in (layout.host_address, layout.api_service_address, "127.0.0.1")]
    _certificate(layout, "apiserver", "kube-apiserver", names=names)
    _certificate(layout, "apiserver-kubelet", "kube-apiserver-kubelet-client")
    _certificate(layout, "loopback", "loopback", names=["DNS:localhost", "IP:127.0.0.1"])
    _service_account_key(layout)
    _certificate(layout, "admin", "edgemodel-admin", organization="system:masters")
    write_kubeconfig(layout, "admin", layout.kubeconfig)
    for component in ("kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns"):
        _certificate(layout, component, f"system:{component}")
        write_kubeconfig(layout, component, layout.pki / f"{component}.kubeconfig")


def ensure_node(node: Node) -> None:
    """Make a node's client certificate (its identity, for NodeRestriction) and its kubelet's server one."""
    name = node.process("kubelet")
    _certificate(node.cluster, name, f"system:node:{node.name}", organization="system:nodes")
    write_kubeconfig(node.cluster, name, node.cluster.pki / f"{name}.kubeconfig")
    names = [f"DNS:{node.name}", f"IP:{node.address}"]
    _certificate(node.cluster, f"{name}-server", node.name, names=names)


def write_kubeconfig(layout: Layout, certificate: str, path: Path) -> None:
    """Write a self-contained kubeconfig whose only context is the cluster's."""

    def encoded(name: str) -> str:
        return base64.b64encode((layout.pki / name).read_bytes()).decode()

    user = {
        "client-certificate-data": encoded(f"{certificate}.crt"),
        "client-key-data": encoded(f"{certificate}.key"),
    }
    cluster = {"server": layout.server, "certificate-authority-data": encoded("ca.crt")}
    context = {"cluster": layout.context, "user": certificate}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": layout.context, "cluster": cluster}],
        "users": [{"name": certificate, "user": user}],
        "contexts": [{"name": layout.context, "context": context}],
        "current-context": layout.context,
    }
    temporary = path.with_name(path.name + ".new")
    temporary.touch(mode=0o600)
    # JSON is YAML; the standard library has no YAML writer.
    temporary.write_text(json.dumps(document, indent=1))
    temporary.replace(path)


def _authority(layout: Layout, name: str, common_name: str) -> None:
    extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
    _request(layout, name, f"/CN={common_name}", [*extensions, "subjectKeyIdentifier=hash"])


def _certificate(
    layout: Layout,
    name: str,
    common_name: str,
    *,
    organization: str | None = None,
    authority: str = "ca",
    names: Sequence[str] = (),
) -> None:
    """A leaf: a server's if it has names, and always a client's (etcd's peers are both)."""
    usage = "clientAuth,serverAuth" if names else "clientAuth"
    extensions = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"]
    extensions.append(f"extendedKeyUsage={usage}")
    if names:
        extensions.append(f"subjectAltName={','.join(names)}")
    subject = (f"/O={organization}" if organization else "") + f"/CN={common_name}"
    signer = ["-CA", str(layout.pki / f"{authority}.crt"), "-CAkey", str(layout.pki / f"{authority}.key")]
    _request(layout, name, subject, extensions, signer)


def _request(
    layout: Layout, name: str, subject: str, extensions: list[str], signer: Sequence[str] = ()
) -> None:
    certificate, key = layout.pki / f"{name}.crt", layout.pki / f"{name}.key"
    if certificate.exists() and key.exists():
        return
    temporary = certificate.with_suffix(".new")
    command = ["req", "-x509", "-config", str(layout.pki / "openssl.cnf"), *_KEY, "-days", _DAYS]
    command += ["-subj", subject, "-keyout", str(key), "-out", str(temporary), *signer]
    for extension in extensions:
        command += ["-addext", extension]
    _openssl(command)
    temporary.replace(certificate)


def _service_account_key(layout: Layout) -> None:
    key, public = layout.pki / "service-account.key", layout.pki / "service-account.pub"
    if public.exists():
        return
    _openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key)])
    _openssl(["pkey", "-in", str(key), "-pubout", "-out", str(public)])


def _openssl(arguments: list[str]) -> None:
    result = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise ClusterError(f"openssl {arguments[0]} failed: {result.stderr.strip()[-500:]}")
