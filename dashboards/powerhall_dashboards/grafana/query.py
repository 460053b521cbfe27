"""A query of a Grafana panel: raw InfluxQL, which the foundation SDK has no type for.

With `by_class` each class of retention has its own bucket, and a query names its class as retention policy.
"""

import re
from collections.abc import Mapping

from powerhall.store import Query, Select, Variable
from powerhall.store.influxdb.influxql import identifier, literal, render_grafana
from powerhall.store.schema import MEASUREMENTS
from powerhall_dashboards.grafana.sdk import Builder, Dataquery, common
from powerhall_dashboards.model import Panel

__all__ = ["DATASOURCE", "AnnotationTarget", "Target", "interpolate", "policy_of", "targets", "with_policy"]

DATASOURCE = common.DataSourceRef(type_val="influxdb", uid="${datasource}")
TABLE_KINDS = ("table", "age")


class Target(Dataquery, Builder[Dataquery]):
    """One query; it is its own builder, as the SDK's panels take builders."""

    def __init__(self, ref_id: str, query: str, alias: str, result_format: str, policy: str = "") -> None:
        self.ref_id, self.query, self.alias, self.result_format = ref_id, query, alias, result_format
        self.policy = policy

    def build(self) -> Dataquery:
        """Return the query itself."""
        return self

    def to_json(self) -> dict[str, object]:
        """Return the query object of Grafana's InfluxDB data source."""
        data: dict[str, object] = {
            "refId": self.ref_id,
            "datasource": DATASOURCE,
            "query": self.query,
            "rawQuery": True,
            "resultFormat": self.result_format,
        }
        return data | ({"alias": self.alias} if self.alias else {}) | ({"policy": self.policy} if self.policy else {})


def policy_of(measurement: str, *, by_class: bool) -> str:
    """Return the retention policy to name in a query; "" for the default one."""
    retention = MEASUREMENTS[measurement].retention
    return retention if by_class and retention != "fine" else ""


def with_policy(text: str, measurement: str, *, by_class: bool) -> str:
    """Name the retention policy in the text: Grafana sends an annotation's query without the `policy` beside it."""
    policy = policy_of(measurement, by_class=by_class)
    named = f"{identifier(policy)}.{identifier(measurement)}"
    return text.replace(f"FROM {identifier(measurement)}", f"FROM {named}") if policy else text


def targets(panel: Panel, *, by_class: bool = False) -> list[Target]:
    """Return the queries of a panel with their letters and the names of their series."""
    result_format = "table" if panel.kind in TABLE_KINDS else "time_series"
    return [
        Target(
            chr(ord("A") + number),
            render_grafana(query),
            _alias(query, panel),
            result_format,
            policy_of(query.measurement, by_class=by_class),
        )
        for number, query in enumerate(panel.queries)
    ]


def _alias(query: Query, panel: Panel) -> str:
    """Name series by their group, and by their column where a panel shows several."""
    if panel.kind in TABLE_KINDS:
        return ""
    parts = [f"$tag_{tag}" for tag in query.group_by]
    columns = {entry.name for other in panel.queries for entry in other.select}
    return " ".join([*parts, "$col"] if len(columns) > 1 or not parts else parts)


class AnnotationTarget(Dataquery, Builder[Dataquery]):
    """The events of some kinds, drawn as vertical lines on every panel of a dashboard."""

    def __init__(self, kinds: tuple[str, ...], *, by_class: bool) -> None:
        self.kinds, self.by_class = kinds, by_class

    def build(self) -> Dataquery:
        """Return the query itself."""
        return self

    def to_json(self) -> dict[str, object]:
        """Return the annotation query of Grafana's InfluxDB data source."""
        query = Query("event", (Select("detail"),), {"site": Variable("site"), "kind": self.kinds}, ("kind", "node"))
        return {
            "refId": "Anno",
            "datasource": DATASOURCE,
            "fromAnnotations": True,
            "query": with_policy(render_grafana(query), "event", by_class=self.by_class),
            "rawQuery": True,
            "textEditor": True,
            "resultFormat": "table",
            "textColumn": "detail",
            "tagsColumn": "kind,node",
        }


def interpolate(text: str, chosen: Mapping[str, tuple[str, ...]]) -> str:
    """Put chosen values in the place of variables, as Grafana's page does before it sends a query; none means all."""
    for name in sorted(_NAMES.findall(text), key=len, reverse=True):
        values = chosen.get(name, ())
        pattern = "|".join(re.escape(value).replace("/", r"\/") for value in values) or ".*"
        text = text.replace(f"/^${name}$/", f"/^({pattern})$/")
    for name, values in chosen.items():
        text = text.replace(f"'${{{name}}}'", literal(values[0]) if values else "''")
    return text


_NAMES = re.compile(r"/\^\$(\w+)\$/")
