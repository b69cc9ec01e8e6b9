"""The notebooks run, cell after cell, on a tiny system; and they are kept without outputs."""

import json
import re

import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path, kind):
    held = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in held if cell["cell_type"] == kind]


def test_they_are_numbered_from_one():
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(1, len(NOTEBOOKS) + 1)] != []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_words_and_its_settings_and_holds_no_outputs(path):
    first, second, *others = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert first["cell_type"] == "markdown" and first["source"][0].startswith("# ")
    assert second["metadata"] == {"tags": ["parameters"]}, "papermill puts other settings after this cell"
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in [second, *others] if "outputs" in cell)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tiny_folder, monkeypatch, capsys):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.setenv("MYNAH_SYSTEM", str(tiny_folder))
    monkeypatch.setenv("MYNAH_SENTENCES", "2" if "backends" in path.stem else "4")
    monkeypatch.setenv("MYNAH_STEPS", "4")
    names: dict[str, object] = {"__name__": "notebook"}
    for number, cell in enumerate(cells(path, "code")):
        exec(compile(cell, f"{path.name}, cell {number}", "exec"), names)
    assert plt.get_fignums(), "it draws something"
    plt.close("all")
    told = capsys.readouterr().out
    assert told.strip() and not re.search(r"Traceback", told)


def test_a_sound_is_a_player_where_a_notebook_shows_it(tiny):
    audio = tiny.synthesize("One.", settings={"steps": 1}, check=False)
    assert re.fullmatch(r'<audio controls src="data:audio/wav;base64,[A-Za-z0-9+/=]+"></audio>', audio._repr_html_())
