"""Pages from the base template: every text is escaped, nothing is fetched, and missing libraries are named."""

import importlib.util
import subprocess
import sys
import tomllib

import pytest

from powerhall.report import html_page
from powerhall.report.html_page import chart_text, render_page, require_libraries
from powerhall.report.page_parts import LegendEntry, Table, Tile
from powerhall.runtime.errors import PowerhallError

EVIL = "<script>alert('&')</script>"
TEMPLATE = """\
{% extends "base.html" %}
{% from "macros.html" import chart, legend, table, tiles %}
{% block content %}
<h1>{{ title }}</h1>{{ tiles(shown) }}{{ legend(key) }}{{ table(rows) }}{{ chart("c") }}
{% endblock %}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a template of its own."""
    folder = tmp_path / "planted_pages"
    (folder / "templates").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "templates" / "page.html").write_text(TEMPLATE)
    monkeypatch.syspath_prepend(tmp_path)
    return "planted_pages"


def test_every_text_of_a_page_is_escaped(package):
    page = render_page(
        package,
        "page.html",
        title=EVIL,
        shown=[Tile(EVIL, EVIL, EVIL, "--power")],
        key=[LegendEntry(EVIL, "--power", "dash")],
        rows=Table((EVIL, "n"), ((EVIL, "1"), ((EVIL, EVIL), "2")), frozenset({1}), EVIL),
        figures={"c": {"data": [{"text": [EVIL]}], "layout": {}}},
    )
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;") == 12
    assert '"\\u003cscript\\u003ealert(\\u0027\\u0026\\u0027)\\u003c/script\\u003e"' in page
    assert '<td class="n">1</td>' in page
    assert "default-src 'none'" in page


def test_a_value_that_a_template_lacks_is_an_error(package):
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="shown"):
        render_page(package, "page.html", title="t", figures={})


def test_tags_in_chart_texts_are_text():
    assert chart_text("<b>a</b> & 'b'") == "&lt;b&gt;a&lt;/b&gt; &amp; 'b'"


def test_missing_libraries_are_named_in_one_line(monkeypatch):
    require_libraries("--report")
    find = importlib.util.find_spec
    monkeypatch.setattr(html_page.importlib.util, "find_spec", lambda name: None if name == "jinja2" else find(name))
    with pytest.raises(PowerhallError) as error:
        require_libraries("--report")
    assert str(error.value) == "--report needs jinja2: pip install 'powerhall[twin]'"


def test_the_module_imports_no_library_before_a_page_is_rendered():
    program = "import sys, powerhall.report.html_page; print({'jinja2', 'markupsafe', 'plotly'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_only_the_extras_that_write_pages_bring_jinja2(root):
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for name, needs in extras.items() if any(n.startswith("jinja2") for n in needs)} == {
        "dashboards",
        "twin",
    }
    assert "jinja2" not in (root / "deploy/locks/agent.lock").read_text()
