"""The parts of Grafana's foundation SDK that we use, imported in one place.

The SDK warns at import that its classic dashboard schema gives way to a newer one. We stay with the classic one on
purpose: Grafana 10 to 13 read it, the newer one only 12 and later. The warning is silenced here and nowhere else.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Prefer using", DeprecationWarning)
    from grafana_foundation_sdk.builders import common as make_common
    from grafana_foundation_sdk.builders import dashboard as make
    from grafana_foundation_sdk.builders import heatmap, stat, statetimeline, table, timeseries
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.variants import Dataquery
    from grafana_foundation_sdk.models import common, dashboard
    from grafana_foundation_sdk.models import heatmap as heatmap_model

__all__ = [
    "Builder",
    "Dataquery",
    "JSONEncoder",
    "common",
    "dashboard",
    "heatmap",
    "heatmap_model",
    "make",
    "make_common",
    "stat",
    "statetimeline",
    "table",
    "timeseries",
]
