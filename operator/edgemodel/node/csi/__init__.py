"""The CSI driver ``models.edgemodel.io``: gives pods their model as a read-only mount, inside the agent's process.

``holdings`` is what it asks of the agent, ``server`` what the agent calls. ``node_service`` holds the calls that mount,
``mounts`` the system calls, ``target`` the path rules, ``identity`` and ``registration`` how the kubelet finds the driver,
``calls`` turns errors into gRPC statuses, ``socket`` puts a server on a unix socket.
Background: https://github.com/container-storage-interface/spec/blob/master/spec.md
"""
