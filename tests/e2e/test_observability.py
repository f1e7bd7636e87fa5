"""A real Prometheus scrapes the cluster, and every query of the dashboard returns data."""

import json

from testbed import magika_model
from testbed.prometheus import Prometheus
from tests.e2e.conftest import Site


def test_every_query_of_the_dashboard_returns_data(site: Site) -> None:
    site.serve("v1", sequence=1)
    with Prometheus(site.bed) as prometheus:
        queries = dashboard_queries(site)
        assert len(queries) >= 8
        for title, query in queries:

            def data(query: str = query) -> object:
                # A rate needs traffic between two scrapes, so requests go on while it is asked for.
                for content in magika_model.SAMPLES.values():
                    site.bed.infer(site.url(), "detector", magika_model.request(content))
                return prometheus.query(query)

            site.kube.until(data, f"data for {title!r}: {query}", timeout=60)


def dashboard_queries(site: Site) -> list[tuple[str, str]]:
    """Read the queries from the ConfigMap that the chart installed, with the dashboard's variables filled in."""
    (config,) = site.kube.list("configmaps", site.bed.system_namespace, "grafana_dashboard=1")
    (text,) = config["data"].values()
    found = []
    for panel in panels(json.loads(text)["panels"]):
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, value in {
                "$namespace": site.namespace,
                "$model": "detector",
                "$__rate_interval": "30s",
                "$datasource": "x",
            }.items():
                query = query.replace(name, value).replace("${" + name[1:] + "}", value)
            found.append((panel["title"], query))
    return found


def panels(listed: list[dict]) -> list[dict]:  # type: ignore[type-arg]
    return [
        inner for panel in listed for inner in (panels(panel["panels"]) if panel.get("panels") else [panel])
    ]
