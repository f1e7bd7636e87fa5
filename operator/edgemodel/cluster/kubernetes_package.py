"""Makes ``kubernetes.aio`` importable without the rest of the ``kubernetes`` package.

``kubernetes/__init__.py`` imports its synchronous half and with it requests, oauthlib and websocket;
``kubernetes/aio/__init__.py`` imports watches, streams and a dynamic client. None of it is used here, and
together it is 9 MiB of the operator's memory (``docs/adr/0002-kubernetes-client.md`` has the figures). So
both packages are entered into ``sys.modules`` with their place on disk, but without running their
``__init__``: submodules are then found and loaded as usual, each when it is first asked for.

Must run before anything imports ``kubernetes``; kopf does, for two type names. Harmless when it comes too
late.
"""

import importlib.util
import sys


def load_lazily() -> None:
    """Enter the two packages; leave alone what is loaded already."""
    for name in ("kubernetes", "kubernetes.aio"):
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"{name} is not installed; install edgemodel[operator]", name=name)
        package = importlib.util.module_from_spec(spec)
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)
