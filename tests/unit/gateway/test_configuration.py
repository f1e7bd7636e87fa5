"""The configuration's text, held against a golden file; HAProxy itself reads it in tests/gateway."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edgemodel.gateway.configuration import Place, files
from edgemodel.gateway.routes import Access, Route, Server
from tests.gateway.certificates import identity

GOLDEN = Path(__file__).parents[2] / "golden/gateway"
A, B = Server("pod-a", "10.42.0.1", 8080), Server("pod-b", "fd00::2", 8080, taking=False)
ROUTES = (
    Route(
        "audio", "words", 20002, active=(B,), sticky=True, max_inflight=4, queue_limit=10, queue_seconds=0.5
    ),
    Route("vision", "closed", 20003, active=(A,), access=Access()),
    Route("vision", "detector", 20001, active=(A,), candidate=(B,), weight=10),
    Route(
        "vision", "guarded", 20004, active=(A,), access=Access(tokens=("a" * 64,), client_ca="authorities\n")
    ),
    Route("vision", "nobody", 20005, active=(A,), access=Access(tokens=())),
)


def test_the_text_is_what_it_was() -> None:
    found = files(ROUTES, Place("/state"), "certificate and key\n")
    golden = {path.name: path.read_text() for path in GOLDEN.iterdir()}
    assert found == golden


def test_the_order_of_routes_is_the_only_thing_that_tells_two_texts_apart() -> None:
    assert files(ROUTES, Place("/state")) == files(tuple(ROUTES), Place("/state"))


def test_without_a_certificate_there_is_no_tls() -> None:
    found = files(ROUTES, Place("/state"))
    assert " ssl " not in found["haproxy.cfg"].replace("ssl-default", "")
    assert not {"tls.pem", "certificates.list"} & found.keys()


def test_no_name_of_a_model_or_pod_can_say_anything_else_than_itself() -> None:
    text = files(ROUTES, Place("/state"))["haproxy.cfg"]
    assert all(line == line.rstrip() and "\t" not in line for line in text.splitlines())


@pytest.mark.process
@pytest.mark.timeout(20)
def test_haproxy_takes_it_without_a_warning(tmp_path: Path) -> None:
    binary = shutil.which("haproxy")
    assert binary is not None, "HAProxy is needed: hack/install-tools installs it"
    one, authority = identity("gateway"), identity("authority")
    guarded = Access(tokens=("a" * 64,), client_ca=authority.pem)
    routes = (*ROUTES[:3], Route("vision", "guarded", 20004, active=(A,), access=guarded), ROUTES[4])
    for name, text in files(routes, Place(str(tmp_path)), one.pem + one.key_pem).items():
        (tmp_path / name).write_text(text)
    ran = subprocess.run(
        [binary, "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, timeout=15
    )
    assert ran.returncode == 0, ran.stderr
    assert "WARNING" not in ran.stderr
