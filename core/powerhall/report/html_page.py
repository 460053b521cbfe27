"""Renders self-contained HTML pages: Jinja2 templates over one base page, charts by Plotly, nothing from a network.

A part keeps its templates in a folder `templates` beside its code; they extend `base.html` of this package. Every text
is escaped. Jinja2 and Plotly come with the extras `dashboards` and `twin`, and are imported when a page is rendered.
"""

import html
import importlib.util
import json
from functools import cache
from typing import TYPE_CHECKING, Final

from powerhall.runtime.errors import PowerhallError

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["chart_text", "plain_figure", "render_page", "require_libraries"]

_LIBRARIES: Final = ("jinja2", "plotly")
_PACKAGE: Final = "powerhall.report"


def require_libraries(purpose: str) -> None:
    """Raise PowerhallError that names the missing libraries and their extra; `purpose` is an option or command."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise PowerhallError(f"{purpose} needs {' and '.join(missing)}: pip install 'powerhall[twin]'")


def render_page(package: str, template: str, **values: object) -> str:
    """Return the page of a template of `package`; `figures` maps element ids to Plotly's data and layout."""
    return _environment(package).get_template(template).render(values)


@cache
def _environment(package: str) -> "Environment":
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    loader = ChoiceLoader([PackageLoader(package), PackageLoader(_PACKAGE)])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals["plotly_script"] = Markup(get_plotlyjs())  # noqa: S704 - Plotly's own source
    return environment


def plain_figure(figure: object) -> dict[str, object]:
    """Return a Plotly figure as plain data and layout."""
    plain: dict[str, object] = json.loads(figure.to_json())  # type: ignore[attr-defined]
    return plain


def chart_text(text: str) -> str:
    """Return a text for a Plotly label or hover text, which would read tags in it as markup."""
    return html.escape(text, quote=False)
