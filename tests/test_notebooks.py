"""Notebooks of the documentation run to their ends, and find again what they found."""

import os
import re
import sysconfig
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra notebooks")
nbclient = pytest.importorskip("nbclient", reason="the extra notebooks")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def text_of(notebook) -> str:
    """Join what a notebook's cells have printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def percentages_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+) % of", text)]


def test_there_are_three_notebooks_with_outputs_and_no_places_of_a_machine():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
        assert "image/png" in path.read_text()
        assert not re.search(r"[ '\"(](/tmp|/home|/root|/Users)/", text_of(notebook))
        assert path.stat().st_size < 300_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end_and_finds_what_it_found(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"])
    notebook = nbformat.read(path, 4)
    found = percentages_in(text_of(notebook))
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()  # raises what a cell raises
    again = percentages_in(text_of(notebook))
    assert len(again) == len(found)
    for now, before in zip(again, found, strict=True):
        assert (
            abs(now - before) < 4
        )  # another machine rounds differently, and few images are tested
