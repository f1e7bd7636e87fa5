"""Where a testbed finds a model: at its Service, by the API server's proxy, or at the gateway's one entry."""

from typing import Any

import pytest

from testbed.installation import Testbed
from testbed.kube import Kube
from testbed.registries import RegistryTools

PROXY = "http://127.0.0.1:8001"
SELECTING: dict[str, Any] = {"clusterIP": "10.43.0.9", "ports": [{"port": 80}], "selector": {"app": "x"}}
LED: dict[str, Any] = {"clusterIP": "10.43.0.9", "ports": [{"port": 80}]}


class Cluster(Kube):
    """A cluster whose Services select pods, but for the models', which are led to the gateway."""

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        return {"spec": SELECTING if name in ("edgemodel-gateway", "selecting") else LED}


def bed(proxy: str | None, tmp_path: Any) -> Testbed:
    tools = RegistryTools("r.local", tmp_path)
    return Testbed(Cluster(None, "edgemodel-x"), "r.local", tools, None, {}, api_proxy=proxy)


@pytest.mark.parametrize(
    ("proxy", "name", "url"),
    [
        (None, "led", "http://10.43.0.9:80"),
        (PROXY, "selecting", f"{PROXY}/api/v1/namespaces/vision/services/selecting:http/proxy"),
        (
            PROXY,
            "led",
            f"{PROXY}/api/v1/namespaces/edgemodel-system/services/edgemodel-gateway:http/proxy/vision/led",
        ),
    ],
)
def test_a_model_is_found(proxy: str | None, name: str, url: str, tmp_path: Any) -> None:
    assert bed(proxy, tmp_path).service_url(name, "vision") == url
