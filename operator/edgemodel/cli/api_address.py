"""The options by which a program that runs in pods finds the API server when it does not run in one."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgemodel.kube_api import Address


def add(parser: argparse.ArgumentParser, namespaced: str) -> None:
    """Add them; ``namespaced`` says what of the program is in its namespace."""
    outside = parser.add_argument_group("outside a pod")
    outside.add_argument("--api-server", metavar="URL", help="address of the API server")
    outside.add_argument("--token-file", type=Path, help="holds the token to show to it")
    outside.add_argument(
        "--api-server-ca", type=Path, metavar="FILE", help="PEM of the authorities to trust for it"
    )
    outside.add_argument(
        "--namespace", default="edgemodel-system", help=f"where {namespaced} (default: %(default)s)"
    )


def read(arguments: argparse.Namespace) -> "Address":
    """Return what they say, or what the pod says where they say nothing.

    Raises:
        Stalled: ``InvalidSpec``; they say nothing, and this is no pod.
    """
    from edgemodel.kube_api import Address

    if not arguments.api_server:
        return Address.in_cluster()
    return Address(arguments.api_server, arguments.namespace, arguments.token_file, arguments.api_server_ca)
