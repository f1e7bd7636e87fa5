"""The model repository extension on the wire: what it answers, and what it refuses."""

import json

import pytest

from inference_server.errors import InvalidRequest, NotFound
from inference_server.http.api import HttpApi
from inference_server.http.repository import answer
from inference_server.serving.repository import IndexEntry


class Shelf:
    """A repository that notes what it is asked."""

    def __init__(self):
        self.done = []

    async def index(self, *, only_ready=False):
        entries = [IndexEntry("a", "1", "READY", ""), IndexEntry("b", "2", "UNAVAILABLE", "damaged")]
        return [entry for entry in entries if entry.state == "READY" or not only_ready]

    async def load(self, name):
        if name == "absent":
            raise NotFound("model 'absent': expected the name of a folder in the model repository")
        self.done.append(("load", name))

    async def unload(self, name):
        self.done.append(("unload", name))


@pytest.mark.parametrize(
    ("body", "names"), [(b"", ["a", "b"]), (b"{}", ["a", "b"]), (b'{"ready": true}', ["a"])]
)
async def test_the_index_has_the_extensions_fields(body, names):
    document = json.loads(await answer(Shelf(), "index", "", body))
    assert [entry["name"] for entry in document] == names
    assert document[0] == {"name": "a", "version": "1", "state": "READY", "reason": ""}


async def test_load_and_unload_answer_an_empty_object_when_they_are_done():
    shelf = Shelf()
    assert await answer(shelf, "load", "a", b"") == b"{}"
    assert await answer(shelf, "unload", "a", b'{"parameters": {"unload_dependents": false}}') == b"{}"
    assert shelf.done == [("load", "a"), ("unload", "a")]


@pytest.mark.parametrize(
    ("operation", "body", "message"),
    [
        ("load", b'{"parameters": {"config": "{}"}}', r"parameters\.config: expected none"),
        ("load", b'{"parameters": {"file:1/model.onnx": "AAAA"}}', r"parameters\.file:1/model\.onnx"),
        ("load", b'{"parameters": 1}', "parameters: expected an object"),
        ("load", b"{", "body: expected JSON or nothing"),
        ("unload", b"[]", "body: expected a JSON object or nothing"),
        ("index", b'{"ready": "yes"}', "ready: expected true or false"),
        ("index", b"[" * 100_000, "body: expected JSON or nothing"),
    ],
)
async def test_what_is_not_the_extensions_is_refused_and_nothing_happens(operation, body, message):
    shelf = Shelf()
    with pytest.raises(InvalidRequest, match=message):
        await answer(shelf, operation, "a", body)
    assert shelf.done == []


async def test_over_http(loopback):
    async with loopback() as server:
        shelf = Shelf()
        server.peers.handler = HttpApi(server.dataplane, 4096, shelf)
        status, _, body = await server.ask("POST", "/v2/repository/index")
        assert (status, len(json.loads(body))) == (200, 2)
        assert (await server.ask("POST", "/v2/repository/models/a%2Fb/load"))[0] == 200
        assert shelf.done == [("load", "a/b")]  # as one name, which no folder has; the repository refuses it
        status, _, body = await server.ask("POST", "/v2/repository/models/absent/load")
        assert (status, "folder" in json.loads(body)["error"]) == (404, True)
        assert (await server.ask("GET", "/v2/repository/index"))[0] == 405


async def test_a_server_without_a_repository_says_how_to_get_one(loopback):
    async with loopback() as server:
        for path in ("index", "models/m/load", "models/m/unload"):
            status, _, body = await server.ask("POST", f"/v2/repository/{path}")
            assert (status, "--model-repository" in json.loads(body)["error"]) == (404, True)
