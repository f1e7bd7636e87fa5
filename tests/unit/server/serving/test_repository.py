"""Several models: what may be loaded, what goes when memory is short, and what a request for it is told."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from inference_server.errors import InvalidRequest, ModelLoadFailed, NotFound, NotReady
from inference_server.messages import Call, InferenceRequest
from inference_server.serving.dataplane import DataPlane
from inference_server.serving.repository import ModelRepository
from inference_server.telemetry.metrics import Metrics
from tests.unit.server.conftest import Doubler, until

MB = 1 << 20


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Site:
    """A repository whose models are doublers of a stated size in memory."""

    def __init__(self, root, most_bytes=None):
        self.root = root / "models"
        self.root.mkdir()
        self.sizes = {}
        self.broken = {}
        self.loaded = []
        self.hold = None  # name of the model that waits for `go`; None: all do
        self.go = asyncio.Event()
        self.go.set()
        self.clock = Clock()
        self.plane = DataPlane(Metrics())
        self.repository = ModelRepository(self.root, self.plane, self._load, most_bytes, self.clock)
        self.plane.unloaded = self.repository

    def folder(self, name, *, size=MB, file=b"onnx", version=None):
        folder = self.root / name
        folder.mkdir()
        (folder / "model.onnx").write_bytes(file)
        if version is not None:
            (folder / "model.json").write_text(
                f'{{"schemaVersion": 1, "file": "model.onnx", "version": "{version}"}}'
            )
        self.sizes[name] = size

    async def _load(self, files):
        if self.hold in (None, files.name):
            await self.go.wait()
        if (error := self.broken.get(files.name)) is not None:
            raise error
        self.loaded.append(files.name)
        model = Doubler()
        model.metadata = replace(Doubler.metadata, name=files.name, version=files.version)
        model.memory_bytes = self.sizes[files.name]
        self.plane.add(model)
        return {"model": files.name}

    async def ask(self, name):
        """Return what a request for a model gets, and when it was asked."""
        request = InferenceRequest({"x": np.ones(2, np.float32)}, ("y",))
        return await self.plane.infer(Call("http", name), lambda _: request, lambda response: response)

    async def states(self):
        return {entry.name: entry.state for entry in await self.repository.index()}

    async def reason(self, name):
        (entry,) = [entry for entry in await self.repository.index() if entry.name == name]
        return entry.reason


@pytest.fixture
def site(tmp_path):
    made = []

    def make(**options):
        made.append(Site(tmp_path, **options))
        return made[-1]

    return make


async def test_at_the_start_all_are_loaded_and_the_index_shows_them(site):
    made = site()
    made.folder("detector", version="3")
    made.folder("reader")
    assert not made.plane.names
    await made.repository.start()
    entries = await made.repository.index()
    assert [(entry.name, entry.version, entry.state, entry.reason) for entry in entries] == [
        ("detector", "3", "READY", ""),
        ("reader", "1", "READY", ""),
    ]
    assert made.plane.ready
    assert (await made.ask("reader")).model_name == "reader"


async def test_a_server_is_not_ready_before_each_model_had_its_turn(site):
    made = site()
    for name in ("a", "b", "broken"):
        made.folder(name)
    made.broken["broken"] = ModelLoadFailed("model.onnx: damaged")
    made.hold = "b"
    made.go.clear()
    starting = asyncio.create_task(made.repository.start())
    await until(lambda: made.loaded == ["a"])
    assert (await made.ask("a")).model_name == "a"
    with pytest.raises(NotReady, match="'b' is being loaded"):
        await made.ask("b")
    assert not made.plane.ready
    made.go.set()
    await starting
    assert made.plane.ready


async def test_one_that_is_broken_stands_in_the_index_and_harms_no_other(site):
    made = site()
    for name in ("a", "b", "c"):
        made.folder(name)
    made.broken["b"] = ModelLoadFailed("model.onnx: damaged")
    (made.root / "empty").mkdir()
    await made.repository.start()
    assert await made.states() == {"a": "READY", "b": "UNAVAILABLE", "c": "READY", "empty": "UNAVAILABLE"}
    assert "damaged" in await made.reason("b")
    assert "found none" in await made.reason("empty")


async def test_at_the_start_what_does_not_fit_is_left_for_a_request(site):
    made = site(most_bytes=2 * MB)
    for name in ("a", "b"):
        made.folder(name, file=b"x" * (MB + 1), size=MB + 1)
    await made.repository.start()
    assert await made.states() == {"a": "READY", "b": "UNAVAILABLE"}
    assert "does not fit beside" in await made.reason("b")


async def test_the_least_recently_used_goes_until_the_measured_sum_fits(site):
    made = site(most_bytes=3 * MB)
    for name in ("a", "b", "c"):
        made.folder(name)
    made.folder("large", size=2 * MB, file=b"x" * (2 * MB))
    await made.repository.load("a")
    await made.repository.load("b")
    await made.repository.load("c")
    await made.ask("a")  # b and c are older now
    await made.repository.load("large")
    assert await made.states() == {"a": "READY", "b": "UNAVAILABLE", "c": "UNAVAILABLE", "large": "READY"}
    assert "least recently used when 'large' needed memory" in await made.reason("b")


async def test_a_model_that_takes_more_than_it_weighs_pushes_others_out_afterwards(site):
    made = site(most_bytes=3 * MB)
    made.folder("a")
    made.folder("swells", size=3 * MB)
    await made.repository.load("a")
    await made.repository.load("swells")
    assert await made.states() == {"a": "UNAVAILABLE", "swells": "READY"}


async def test_a_model_measured_larger_than_the_bound_is_served_alone_each_time(site, caplog):
    made = site(most_bytes=3 * MB)
    made.folder("a")
    made.folder("swells", size=4 * MB)
    for name in ("swells", "a", "swells"):
        await made.repository.load(name)
        assert {other for other, state in (await made.states()).items() if state == "READY"} == {name}
    assert caplog.text.count("served alone") == 2


async def test_a_model_that_can_never_fit_pushes_nobody_out(site):
    made = site(most_bytes=2 * MB)
    made.folder("a")
    made.folder("huge", file=b"x" * (2 * MB + 1))
    await made.repository.load("a")
    with pytest.raises(InvalidRequest, match=r"'huge' cannot be loaded: its files have .* expected at most"):
        await made.repository.load("huge")
    assert await made.states() == {"a": "READY", "huge": "UNAVAILABLE"}


async def test_a_request_for_a_model_that_went_is_refused_and_has_it_loaded_once(site):
    made = site(most_bytes=MB)
    made.folder("a")
    made.folder("b")
    await made.repository.load("a")
    await made.repository.load("b")
    made.go.clear()
    for _ in range(5):
        with pytest.raises(NotReady, match="'a' is being loaded; try again"):
            await made.ask("a")
    assert made.plane.ready  # one model's absence is not the server's
    assert not made.plane.model_ready("a", None)
    made.go.set()
    await until(lambda: "a" in made.plane.names)
    assert (await made.ask("a")).model_name == "a"
    assert made.loaded == ["a", "b", "a"]
    assert await made.states() == {"a": "READY", "b": "UNAVAILABLE"}


async def test_what_somebody_unloaded_stays_so_until_somebody_loads_it(site):
    made = site()
    made.folder("a")
    await made.repository.load("a")
    await made.repository.unload("a")
    with pytest.raises(NotFound):
        await made.ask("a")
    assert await made.states() == {"a": "UNAVAILABLE"}
    assert await made.reason("a") == "unloaded on request"
    await made.repository.load("a")
    assert (await made.ask("a")).model_name == "a"


async def test_a_load_that_failed_is_not_tried_at_each_request(site):
    made = site()
    made.folder("a")
    made.broken["a"] = ModelLoadFailed("model.onnx: damaged")
    with pytest.raises(InvalidRequest, match="damaged"):
        await made.repository.load("a")
    with pytest.raises(NotReady, match=r"'a' cannot be loaded now: model\.onnx: damaged"):
        await made.ask("a")
    del made.broken["a"]
    made.clock.now += 61
    with pytest.raises(NotReady, match="is being loaded"):
        await made.ask("a")
    await until(lambda: "a" in made.plane.names)


async def test_a_folder_that_went_is_told_to_the_next_request(site):
    made = site()
    made.folder("a")
    await made.states()
    (made.root / "a/model.onnx").unlink()
    with pytest.raises(NotReady, match="is being loaded"):
        await made.ask("a")
    await until(lambda: not made.repository._wanted)
    with pytest.raises(NotReady, match=r"cannot be loaded now: .*found none"):
        await made.ask("a")


async def test_loading_again_takes_what_the_folder_holds_now(site):
    made = site()
    made.folder("a", version="1")
    await made.repository.load("a")
    (made.root / "a/model.json").write_text('{"schemaVersion": 1, "file": "model.onnx", "version": "2"}')
    await made.repository.load("a")
    assert (await made.ask("a")).model_version == "2"


async def test_requests_under_way_end_well_when_their_model_is_unloaded(site):
    made = site()
    made.folder("a")
    await made.repository.load("a")
    model = made.plane.slot("a", None).model
    model.go.clear()
    pending = asyncio.create_task(made.ask("a"))
    await until(model.entered.is_set)
    unloading = asyncio.create_task(made.repository.unload("a"))
    await until(lambda: "a" not in made.plane.names)
    model.go.set()
    assert (await pending).model_name == "a"
    await unloading


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../models/a", "a/../b", "/etc", "a\0", ".hidden", "x" * 200, "é", "a\n", "absent"],
)
async def test_names_that_are_no_folder_of_the_repository(site, name):
    made = site()
    made.folder("a")
    (made.root / ".hidden").mkdir()
    with pytest.raises(NotFound, match="expected the name of a folder"):
        await made.repository.load(name)
    with pytest.raises(NotFound, match="expected the name of a folder"):
        await made.repository.unload(name)


async def test_a_link_that_leads_outside_is_no_model(site, tmp_path):
    made = site()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.onnx").write_bytes(b"onnx")
    (made.root / "link").symlink_to(outside)
    with pytest.raises(InvalidRequest, match="leads outside"):
        await made.repository.load("link")


async def test_the_index_forgets_a_folder_that_is_gone_and_learns_of_a_new_one(site):
    made = site()
    made.folder("a")
    assert await made.states() == {"a": "UNAVAILABLE"}
    (made.root / "a/model.onnx").unlink()
    (made.root / "a").rmdir()
    (made.root / "file").write_text("no folder")
    made.folder("b")
    assert await made.states() == {"b": "UNAVAILABLE"}
    assert await made.repository.index(only_ready=True) == []


async def test_a_folder_that_cannot_be_read_is_an_empty_one(site):
    made = site()
    made.root.rmdir()
    await made.repository.start()
    assert await made.states() == {}


async def test_a_server_that_ends_loads_nothing_more(site):
    made = site()
    made.folder("a")
    await made.repository.load("a")
    made.go.clear()
    await made.repository.index()
    made.plane.draining = True
    await made.plane.remove("a")
    with pytest.raises(NotReady):
        await made.ask("a")
    await made.repository.close()
    assert made.loaded == ["a"]
