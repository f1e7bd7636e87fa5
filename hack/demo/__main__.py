"""Show the main job, each step with its time.

Publish, sign, apply, answer, replace under load, refuse four forgeries, send a fine-tuned model as a delta over a
slow link, and take a version back that answers wrongly.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from testbed import magika_model
from testbed.installation import Testbed, existing, start
from testbed.load import Load
from testbed.publisher import Publisher, trust_policy

NAMESPACE = "edgemodel-demo"
"""Also the policy's name; both are the demo's own, and made anew each time."""
NAME = "detector"
LINK = 20e6
"""Bits a second between the node and the registry, as at a site; on a cluster that a person named it is what it is."""
REPOSITORY = f"{NAMESPACE}/{NAME}"
DIRECT_RATE = 50.0
"""Requests a second while versions change."""
PROXIED_RATE = 10.0
"""The same by way of kubectl's and the API server's proxies, which on two busy cores let some twenty pass."""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    print(f"\n\033[1m▸ {title}\033[0m", flush=True)
    began = time.monotonic()
    yield
    print(f"  \033[32m✓\033[0m {time.monotonic() - began:.1f} s", flush=True)


def say(text: str) -> None:
    """Print a detail of the step under way."""
    for line in text.rstrip().splitlines():
        print(f"    {line}", flush=True)


class Story:
    """The demo's steps, in order."""

    def __init__(self, bed: Testbed, folder: Path, registry: str) -> None:
        self.bed, self.kube, self.folder = bed, bed.kube, folder
        self.publisher = Publisher(folder, bed.registry)
        self.image = f"{registry}/{REPOSITORY}:stable"
        """As nodes reach it: the registry that is published to, at the far end of their link."""
        self.rate = DIRECT_RATE if bed.api_proxy is None else PROXIED_RATE

    def tell(self) -> None:
        """Run them all."""
        self.prepare()
        first = self.first_model()
        self.answer("v1")
        second = self.replace(first)
        self.refuse(second)
        third = self.fine_tune(second)
        self.take_back(third)
        with step("What kubectl shows at the end"):
            say(self.kube("get", "em", "-A", "-o", "wide"))
            say(self.kube("get", "edgenodes"))
            say(
                self.kube(
                    "get",
                    "events",
                    "-n",
                    NAMESPACE,
                    "--field-selector",
                    "involvedObject.kind=EdgeModel",
                    "--sort-by=.lastTimestamp",
                    "-o",
                    "custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message",
                )
            )

    def prepare(self) -> None:
        """Make the namespace, and a policy that says whose models may run."""
        with step("A policy: models under this repository need the site's signature"):
            self.kube("delete", "namespace", NAMESPACE, "--ignore-not-found")
            self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            self.key = self.publisher.key("site")
            images = [f"{self.image.partition('/')[0]}/{NAMESPACE}/**"]
            self.kube.apply(trust_policy(NAMESPACE, images, [self.key]))
            say(self.kube("get", "modeltrustpolicy"))

    def first_model(self) -> str:
        """Publish v1 and apply five lines."""
        with step("Publish Magika standard_v3_2 (3.2 MB, real) as v1, signed"):
            digest = self.publisher.publish(
                magika_model.release("v1"), f"{REPOSITORY}:stable", version="v1", sequence=1, key=self.key
            )
            say(digest)
        lines = (
            "apiVersion: edgemodel.io/v1alpha1\n"
            "kind: EdgeModel\n"
            f"metadata: {{name: {NAME}, namespace: {NAMESPACE}}}\n"
            "spec:\n"
            f"  image: {self.image}\n"
            "  pollInterval: 2s\n"
            "  delivery: Node\n"
        )
        with step("kubectl apply → Ready"):
            say(lines)
            self.kube("apply", "-f", "-", stdin=lines)
            self.kube.await_condition(NAME, "Ready", "True", "Serving", NAMESPACE, timeout=120)
            say(self.kube("get", "em", "-n", NAMESPACE))
        return digest

    def answer(self, version: str) -> None:
        """Ask the Service, and hold its answer against ONNX Runtime in this process."""
        with step("Ask it, and compare with ONNX Runtime in this process"):
            url = self.bed.service_url(NAME, NAMESPACE)
            for kind, content in magika_model.SAMPLES.items():
                told = self.bed.infer(url, NAME, magika_model.request(content))
                scores = magika_model.scores(told)
                np.testing.assert_allclose(
                    scores, magika_model.expected(version, content), rtol=1e-5, atol=1e-6
                )
                label = magika_model.labels()[int(scores.argmax())]
                say(f"{kind:8} → {label:8} {scores.max():.4f}  (version {told['model_version']}, equal)")

    def replace(self, old: str) -> str:
        """Publish v2 under the same tag while clients keep asking."""
        with step("Publish standard_v3_3 as v2 under the same tag, under load: no request may fail"):
            url = self.bed.service_url(NAME, NAMESPACE)
            with Load(url, NAME, magika_model.cases("v1", "v2"), rate=self.rate) as load:
                self.kube.until(lambda: load.answers["v1"] >= 200, "answers from v1")
                digest = self.publisher.publish(
                    magika_model.release("v2"), f"{REPOSITORY}:stable", version="v2", sequence=2, key=self.key
                )
                self.await_active(digest)
                selector = f"edgemodel.io/model={NAME},edgemodel.io/digest={old.removeprefix('sha256:')[:16]}"
                self.kube.until(
                    lambda: not self.kube.list("pods", NAMESPACE, selector), "the old pods to be gone"
                )
                before = load.answers["v2"]
                self.kube.until(lambda: load.answers["v2"] >= before + 200, "answers from v2 alone")
            say(load.summary())
            assert not load.trouble, load.trouble[:5]
        return digest

    def refuse(self, serving: str) -> None:
        """Push four artifacts that must not run, each under the tag that is followed."""
        tools = self.bed.registry_tools
        model = magika_model.release("v1")

        def unsigned() -> None:
            self.publisher.publish(model, f"{REPOSITORY}:stable", version="v3", sequence=3)

        def foreign() -> None:
            stranger = self.publisher.key("stranger")
            self.publisher.publish(model, f"{REPOSITORY}:stable", version="v4", sequence=4, key=stranger)

        def tampered() -> None:
            self.publisher.publish(model, f"{REPOSITORY}:honest", version="v5", sequence=5, key=self.key)
            tools.tamper_manifest(REPOSITORY, "honest", "stable")

        def older() -> None:
            self.publisher.publish(model, f"{REPOSITORY}:stable", version="v0", sequence=1, key=self.key)

        cases = [
            ("unsigned", unsigned, "SignatureMissing"),
            ("foreign-signed", foreign, "KeyUnknown"),
            ("tampered, with the honest signature copied to it", tampered, "SignatureInvalid"),
            ("older, correctly signed", older, "DowngradeRefused"),
        ]
        for title, push, reason in cases:
            with step(f"Push one that is {title}"):
                push()
                refusal = self.kube.await_condition(
                    NAME, "ArtifactVerified", "False", reason, NAMESPACE, timeout=60
                )
                say(f"{reason}: {refusal['message']}")
                ready = self.kube.condition(NAME, "Ready", NAMESPACE)
                active = self.kube.get("edgemodel", NAME, NAMESPACE)["status"]["slots"]["active"]
                assert active["digest"] == serving, active
                assert ready["status"] == "True", ready
                told = self.bed.infer(
                    self.bed.service_url(NAME, NAMESPACE),
                    NAME,
                    magika_model.request(magika_model.SAMPLES["python"]),
                )
                assert told["model_version"] == "v2", told
                say("still serving v2")

    def fine_tune(self, second: str) -> str:
        """Publish a fine-tuned v2 with its delta; what the node fetches is the delta."""
        base = f"{self.bed.registry}/{REPOSITORY}@{second}"
        model = magika_model.nudged(self.folder / "tuned" / "model.onnx", of=magika_model.release("v2"))
        with step("Publish a fine-tuned v2 as v2.1, with a delta from v2: the node fetches what changed"):
            digest = self.publisher.publish(
                model,
                f"{REPOSITORY}:stable",
                version="v2.1",
                sequence=6,
                key=self.key,
                more=("--delta-from", base),
            )
            self.await_active(digest)
            delivered = self.kube.condition(NAME, "ArtifactDelivered", NAMESPACE)
            say(f"{delivered['reason']}: {delivered['message']}")
            transfer = self.kube.get("edgemodel", NAME, NAMESPACE)["status"]["transfer"]
            whole, saved = transfer["total"], transfer["savedBytes"]
            say(
                f"{whole - saved} bytes came for a model of {whole}: {saved} bytes ({saved / whole:.0%}) were saved"
            )
        with step("Ask v2.1, and compare with ONNX Runtime in this process"):
            content = magika_model.SAMPLES["html"]
            url = self.bed.service_url(NAME, NAMESPACE)
            told = magika_model.scores(self.bed.infer(url, NAME, magika_model.request(content)))
            np.testing.assert_allclose(told, magika_model.answer(model, content), rtol=1e-5, atol=1e-6)
            say("equal to what the whole model says")
        return digest

    def take_back(self, serving: str) -> None:
        """Publish a version that loads and answers nonsense: its golden samples give it away, and nobody has to act."""
        tuned = self.folder / "tuned" / "model.onnx"
        broken = magika_model.nudged(self.folder / "broken" / "model.onnx", of=tuned, scale=3.0)
        golden = magika_model.write_golden(self.folder / "golden", tuned)
        url = self.bed.service_url(NAME, NAMESPACE)
        with step(
            "Publish v3, signed, which answers nonsense: it is taken back by itself, and v2.1 serves on"
        ):
            told = magika_model.file_cases({"v2.1": tuned})
            with Load(url, NAME, told, rate=self.rate) as load:
                self.kube.until(lambda: load.answers["v2.1"] >= 100, "answers from v2.1")
                digest = self.publisher.publish(
                    broken, f"{REPOSITORY}:stable", version="v3", sequence=7, key=self.key,
                    more=("--golden", str(golden), "--golden-unchecked"),
                )  # fmt: skip

                def taken_back() -> bool:
                    found = self.kube.get("edgemodel", NAME, NAMESPACE)["status"].get("rolledBack") or {}
                    return bool(found.get("digest") == digest)

                self.kube.until(taken_back, "v3 to be taken back", timeout=120)
                before = load.answers["v2.1"]
                self.kube.until(lambda: load.answers["v2.1"] >= before + 100, "answers after that")
            status = self.kube.get("edgemodel", NAME, NAMESPACE)["status"]
            assert status["slots"]["active"]["digest"] == serving, status["slots"]
            say(f"{status['rolledBack']['reason']}: {status['rolledBack']['message']}")
            say(load.summary())
            assert not load.trouble, load.trouble[:5]

    def clean_up(self) -> None:
        """Remove what the demo made, on a cluster that goes on."""
        self.kube("delete", "namespace", NAMESPACE)
        self.kube("delete", "modeltrustpolicy", NAMESPACE)

    def await_active(self, digest: str) -> None:
        """Wait until that version serves."""

        def active() -> bool:
            slot = self.kube.get("edgemodel", NAME, NAMESPACE)["status"]["slots"].get("active")
            return bool(slot) and slot["digest"] == digest

        self.kube.until(active, f"{digest} to serve", timeout=120)


def main() -> None:
    """Parse the command line and tell the story."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--kube-context", help="use this existing cluster instead of starting one")
    parser.add_argument(
        "--registry",
        help="with --kube-context: host:port, plain HTTP, reached from here and from the cluster",
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster and the model running")
    options = parser.parse_args()
    began = time.monotonic()
    if options.kube_context:
        if not options.registry:
            parser.error(
                "--kube-context needs --registry (REGISTRY=host:port): images and models are pushed there"
            )
        testbed = existing(options.kube_context, options.registry, step=step)
    else:
        testbed = start("demo", keep=options.keep, step=step)
    with ExitStack() as stack:
        bed = stack.enter_context(testbed)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgemodel-demo-"))
        registry = bed.registry
        if not options.kube_context:
            link = stack.enter_context(bed.slow_registry(rate=LINK))
            registry = link.address
        story = Story(bed, Path(folder), registry)
        story.tell()
        if options.kube_context and not options.keep:
            with step("Remove the demo's namespace and policy; the operator stays"):
                story.clean_up()
                say(
                    "helm uninstall edgemodel --namespace edgemodel-system removes the operator; its CRDs stay"
                )
        print(f"\nAll of it took {time.monotonic() - began:.0f} s.")
        if options.keep:
            print("Left running. Look around with:")
            print(
                f"  export KUBECONFIG={bed.kube.kubeconfig}\n  kubectl get em -A -o wide\n  make cluster-down CLUSTER=demo"
            )


if __name__ == "__main__":
    main()
