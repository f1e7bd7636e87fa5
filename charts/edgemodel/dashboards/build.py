"""The Grafana dashboard, in code: ``hack/generate`` writes what this makes to ``edgemodel.json`` beside it.

Every query returns data as soon as one model has answered a request, also where nothing ever went wrong: a count of
things that have not happened is 0, not a gap. The end-to-end tests run each query against a real Prometheus.
Prometheus must honour the labels it scrapes (``honor_labels: true``): the operator's metrics carry the model's own
namespace. Metric names: docs/reference/metrics.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

MODEL = 'namespace=~"$namespace", name=~"$model"'
"""Selects the operator's series of the chosen models."""
SERVED = 'namespace=~"$namespace", model=~"$model"'
"""Selects the servers' series of the chosen models."""
ROUTED = 'proxy=~"${namespace}[.]${model}[.](active|candidate)([.]grpc)?"'
"""Selects HAProxy's series of the chosen models."""
BY_VERSION = "{{model}} {{version}}"


@dataclass(frozen=True)
class Query:
    """One PromQL expression and how its series are named."""

    expr: str
    legend: str = ""


def one(expr: str, legend: str = "") -> tuple[Query]:
    """Return a panel's only query."""
    return (Query(expr, legend),)


@dataclass(frozen=True)
class Panel:
    """One panel; ``shape`` is stat, lines or table."""

    title: str
    description: str
    queries: tuple[Query, ...]
    shape: str = "lines"
    unit: str = "short"
    width: int = 8


def rate(metric: str, selector: str) -> str:
    """Return the rate of a counter over Grafana's own interval."""
    return f"rate({metric}{{{selector}}}[$__rate_interval])"


def quantile(part: float, metric: str, selector: str, by: str) -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({part}, sum by ({by}) ({rate(f'{metric}_bucket', selector)}))"


def condition(kind: str, status: str) -> tuple[Query]:
    """Return the number of chosen models whose condition has this status."""
    return (Query(f'sum(edgemodel_condition{{{MODEL}, type="{kind}", status=~"{status}"}})'),)


REQUESTS = rate("inference_requests_total", SERVED)
FAILED = rate("inference_requests_total", f'{SERVED}, code=~"5.."')

ROWS: dict[str, tuple[Panel, ...]] = {
    "Models": (
        Panel("Ready", "Models of which some version answers.", condition("Ready", "True"), "stat", width=4),
        Panel(
            "Not ready", "Models that do not answer.", condition("Ready", "False|Unknown"), "stat", width=4
        ),
        Panel(
            "Refused",
            "Models whose newest artifact does not pass the trust policies; what served before goes on serving.",
            condition("ArtifactVerified", "False"),
            "stat",
            width=4,
        ),
        Panel(
            "Rolled back",
            "Models whose newest version was taken back.",
            condition("RolledBack", "True"),
            "stat",
            width=4,
        ),
        Panel(
            "Degraded", "Models with less than was asked for.", condition("Degraded", "True"), "stat", width=4
        ),
        Panel("Stalled", "Models that wait for a person.", condition("Stalled", "True"), "stat", width=4),
        Panel(
            "Versions",
            "What each model serves.",
            one(f"edgemodel_info{{{MODEL}}}"),
            "table",
            width=24,
        ),
    ),
    "Requests": (
        Panel(
            "Requests",
            "Answered inference requests.",
            one(f"sum by (model, version) ({REQUESTS})", BY_VERSION),
            unit="reqps",
        ),
        Panel(
            "Errors",
            "Share of requests that the server failed (5xx); the client's own mistakes are not counted.",
            one(
                f"sum by (model, version) ({FAILED} or 0 * {REQUESTS}) / sum by (model, version) ({REQUESTS})",
                BY_VERSION,
            ),
            unit="percentunit",
        ),
        Panel(
            "In flight",
            "Requests received and not yet answered.",
            one(f"sum by (model, version) (inference_inflight_requests{{{SERVED}}})", BY_VERSION),
        ),
        Panel(
            "Latency",
            "From a complete request to its complete answer.",
            tuple(
                Query(
                    quantile(part, "inference_request_duration_seconds", SERVED, "le, model, version"),
                    f"p{part * 100:g} {BY_VERSION}",
                )
                for part in (0.5, 0.95, 0.99)
            ),
            unit="s",
        ),
        Panel(
            "Time in ONNX Runtime",
            "The part of the latency that the model itself takes.",
            one(
                quantile(0.95, "inference_compute_duration_seconds", SERVED, "le, model, version"),
                f"p95 {BY_VERSION}",
            ),
            unit="s",
        ),
        Panel(
            "Server memory",
            "Resident memory of each inference pod.",
            one(
                "process_resident_memory_bytes * on (namespace, pod) group_left (model, version) "
                f"inference_model_info{{{SERVED}}}",
                "{{pod}}",
            ),
            unit="bytes",
        ),
    ),
    "Rollouts and trust": (
        Panel(
            "Candidate's part",
            "Share of requests that a candidate gets; 0 where there is none.",
            one(
                f"sum by (namespace, name) (edgemodel_rollout_weight_ratio{{{MODEL}}}) or sum by (namespace, name) "
                f'(0 * edgemodel_condition{{{MODEL}, type="Ready", status="True"}})',
                "{{namespace}}/{{name}}",
            ),
            unit="percentunit",
            width=6,
        ),
        Panel(
            "Gate",
            "Results of the gate's tests, each counted when a step has its first and when it changes.",
            one(
                "sum by (gate, result) (increase(edgemodel_gate_results_total[$__rate_interval])) or vector(0)",
                "{{gate}} {{result}}",
            ),
            width=6,
        ),
        Panel(
            "Rollbacks",
            "Versions that were tried and taken back.",
            one(
                "sum by (reason) (increase(edgemodel_rollbacks_total[$__rate_interval])) or vector(0)",
                "{{reason}}",
            ),
            width=6,
        ),
        Panel(
            "Verifications",
            "Judgements of artifacts under the trust policies, by result.",
            one(
                "sum by (result) (increase(edgemodel_signature_verifications_total[$__rate_interval]))",
                "{{result}}",
            ),
            width=6,
        ),
    ),
    "Gateway": (
        Panel(
            "Answers",
            "Answers that clients got by the gateway, by model, role of the version, and class of status code.",
            one(
                f"sum by (proxy, code) ({rate('haproxy_backend_http_responses_total', ROUTED)})",
                "{{proxy}} {{code}}",
            ),
            unit="reqps",
        ),
        Panel(
            "Waiting",
            "Requests that wait for a pod.",
            one(f"sum by (proxy) (haproxy_backend_current_queue{{{ROUTED}}})", "{{proxy}}"),
        ),
        Panel(
            "Asked again",
            "Requests that were sent to a pod once more because it refused them or broke off.",
            one(f"sum by (proxy) ({rate('haproxy_backend_retry_warnings_total', ROUTED)})", "{{proxy}}"),
            unit="reqps",
        ),
        Panel(
            "Pods",
            "Pods that requests can go to, by model and role of the version.",
            one(f"max by (proxy) (haproxy_backend_active_servers{{{ROUTED}}})", "{{proxy}}"),
        ),
        Panel(
            "Changes",
            "Changes of HAProxy's configuration, by how they were made.",
            one("sum by (way) (increase(edgemodel_gateway_changes_total[$__rate_interval]))", "{{way}}"),
        ),
        Panel(
            "Left out",
            "Models that the gateway does not lead to, because their part of the configuration is not taken.",
            one("max(edgemodel_gateway_routes_left_out)", "models"),
        ),
    ),
    "Nodes": (
        Panel(
            "Nodes",
            "Nodes by whether their agent is heard of.",
            one("sum by (state) (edgemodel_nodes)", "{{state}}"),
            width=6,
        ),
        Panel(
            "Models on nodes",
            "Versions that nodes are to hold, by how far they are.",
            one("sum by (state) (edgemodel_node_models)", "{{state}}"),
            width=6,
        ),
        Panel(
            "Transfers",
            "Bytes that came for models, by how, and those that deltas spared.",
            (
                Query(
                    "sum by (kind) (rate(edgemodel_node_transfer_bytes_total[$__rate_interval])) or vector(0)",
                    "{{kind}}",
                ),
                Query("sum(rate(edgemodel_node_transfer_saved_bytes_total[$__rate_interval]))", "saved"),
            ),
            unit="Bps",
            width=6,
        ),
        Panel(
            "Store",
            "Bytes that models take on each node.",
            one("edgemodel_node_store_bytes", "{{pod}}"),
            unit="bytes",
            width=6,
        ),
    ),
    "Operator": (
        Panel(
            "Passes",
            "Passes over an EdgeModel or a policy, by how they ended.",
            one("sum by (result) (rate(edgemodel_reconcile_total[$__rate_interval]))", "{{result}}"),
            unit="ops",
            width=6,
        ),
        Panel(
            "Duration of a pass",
            "99 of 100 passes since the operator started were shorter; waiting for the registry is included.",
            one(
                "histogram_quantile(0.99, sum by (le) (edgemodel_reconcile_duration_seconds_bucket))",
                "p99",
            ),
            unit="s",
            width=6,
        ),
        Panel(
            "Queue",
            "Keys that wait for a worker.",
            one("sum(edgemodel_workqueue_depth)", "waiting"),
            width=6,
        ),
        Panel(
            "Memory",
            "Resident memory of each operator pod.",
            one("process_resident_memory_bytes and on (namespace, pod) edgemodel_leader", "{{pod}}"),
            unit="bytes",
            width=6,
        ),
    ),
}


def queries() -> Iterator[tuple[str, str]]:
    """Yield every panel's title with each of its PromQL expressions, Grafana's variables still in them."""
    for panels in ROWS.values():
        for panel in panels:
            for query in panel.queries:
                yield panel.title, query.expr


_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def _panel(panel: Panel) -> Any:
    if panel.shape == "table":
        built = table.Panel().with_transformation(
            DataTransformerConfig(
                id_val="filterFieldsByName",
                options={"include": {"names": ["namespace", "name", "version", "digest"]}},
            )
        )
    elif panel.shape == "stat":
        built = stat.Panel()
    else:
        legend = (
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        built = timeseries.Panel().legend(legend).min(0)
    built = built.title(panel.title).description(panel.description).unit(panel.unit).datasource(_SOURCE)
    built = built.span(panel.width).height(4 if panel.shape == "stat" else 8)
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(query.expr).datasource(_SOURCE)
        if query.legend:
            target = target.legend_format(query.legend)
        if panel.shape != "lines":
            target = target.instant().format(
                PromQueryFormat.TABLE if panel.shape == "table" else PromQueryFormat.TIME_SERIES
            )
        built = built.with_target(target)
    return built


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def build() -> dashboard.Dashboard:
    """Return the dashboard's builder."""
    built = (
        dashboard.Dashboard("EdgeModel")
        .uid("edgemodel")
        .description(
            "Models, versions, requests, rollouts, gateway, nodes and the operator itself. Generated by hack/generate."
        )
        .tags(["edgemodel", "generated"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_choice("namespace", "Namespace", "label_values(edgemodel_condition, namespace)"))
        .with_variable(
            _choice("model", "Model", 'label_values(edgemodel_condition{namespace=~"$namespace"}, name)')
        )
    )
    for title, panels in ROWS.items():
        built = built.with_row(dashboard.Row(title))
        for panel in panels:
            built = built.with_panel(_panel(panel))
    return built


def files() -> dict[str, str]:
    """Return the JSON text of each dashboard by the stem of its file's name."""
    return {"edgemodel": JSONEncoder(sort_keys=True, indent=2).encode(build().build()) + "\n"}
