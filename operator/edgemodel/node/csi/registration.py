"""Makes the driver known to the kubelet, in the place of the usual registrar sidecar.

The kubelet watches ``<kubelet>/plugins_registry``, asks each socket there who it is, writes the driver into the node's
CSINode and says how that went. It does so anew after its own restart and whenever the socket is made anew.
Source: k8s.io/kubernetes/pkg/kubelet/pluginmanager.
"""

import logging
from pathlib import Path

from edgemodel.api.meta import CSI_DRIVER
from edgemodel.node.csi.calls import Service, unary
from edgemodel.node.csi.proto import pluginregistration_pb2 as messages

log = logging.getLogger(__name__)

_CSI_VERSIONS = ("1.0.0",)
"""What the kubelet compares with is the major version (csi_plugin.go, validateVersions)."""


class Registration:
    """Answers the kubelet's plugin watcher."""

    def __init__(self, endpoint: Path) -> None:
        self._endpoint = endpoint
        self.registered = False
        """Whether the kubelet said so, last."""
        self.problem = ""
        """Why the kubelet did not register the driver, as it said last; empty when it did, or has not spoken yet."""

    async def _info(self, _: messages.InfoRequest) -> messages.PluginInfo:
        return messages.PluginInfo(
            type="CSIPlugin",
            name=CSI_DRIVER,
            endpoint=str(self._endpoint),
            supported_versions=_CSI_VERSIONS,
        )

    async def _notified(self, status: messages.RegistrationStatus) -> messages.RegistrationStatusResponse:
        self.registered = status.plugin_registered
        self.problem = "" if status.plugin_registered else (status.error or "it did not say why")[:512]
        if status.plugin_registered:
            log.info("the kubelet registered %s", CSI_DRIVER)
        else:
            log.error(
                "the kubelet did not register %s, so pods get no models: %s", CSI_DRIVER, status.error[:1024]
            )
        return messages.RegistrationStatusResponse()

    def service(self) -> Service:
        """Return the service."""
        return Service(
            {
                "/pluginregistration.Registration/GetInfo": unary(
                    self._info, messages.InfoRequest, messages.PluginInfo
                ),
                "/pluginregistration.Registration/NotifyRegistrationStatus": unary(
                    self._notified, messages.RegistrationStatus, messages.RegistrationStatusResponse
                ),
            }
        )
