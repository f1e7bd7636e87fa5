"""CSI's Identity service: who this driver is. It has no controller: volumes exist with their pods only."""

from google.protobuf.wrappers_pb2 import BoolValue

from edgemodel import __version__
from edgemodel.api.meta import CSI_DRIVER
from edgemodel.node.csi.calls import Service, unary
from edgemodel.node.csi.proto import csi_pb2 as csi


async def _info(_: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
    return csi.GetPluginInfoResponse(name=CSI_DRIVER, vendor_version=__version__)


async def _capabilities(_: csi.GetPluginCapabilitiesRequest) -> csi.GetPluginCapabilitiesResponse:
    return csi.GetPluginCapabilitiesResponse()


async def _probe(_: csi.ProbeRequest) -> csi.ProbeResponse:
    return csi.ProbeResponse(ready=BoolValue(value=True))


def service() -> Service:
    """Return the service."""
    return Service(
        {
            "/csi.v1.Identity/GetPluginInfo": unary(
                _info, csi.GetPluginInfoRequest, csi.GetPluginInfoResponse
            ),
            "/csi.v1.Identity/GetPluginCapabilities": unary(
                _capabilities, csi.GetPluginCapabilitiesRequest, csi.GetPluginCapabilitiesResponse
            ),
            "/csi.v1.Identity/Probe": unary(_probe, csi.ProbeRequest, csi.ProbeResponse),
        }
    )
