"""The documentation site: it builds strictly, and its pages load nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs_jupyter", reason="the extra docs")
pytest.importorskip("mkdocstrings", reason="the extra docs")

PROJECT = Path(__file__).parents[1]
LOADED = r"""(?x)
    <(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>
    | <link\b[^>]*\bhref=["']?(?:https?:)?//[^>]*>
    | (?:import\s*\(?|from|@import|url\()\s*["']?(?:https?:)?//[^"')\s]*
"""


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=PROJECT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len([page for page in pages if page.parent.parent.name == "notebooks"]) >= 3
    for page in pages:
        assert re.search(LOADED, page.read_text()) is None, page.relative_to(site)
