"""The doctor looks at everything, speaks, and says in a sentence what is missing."""

import pytest

from tts.cli import main
from tts.serve import doctor
from tts.serve.doctor import cpu_features, examine


def test_a_system_that_speaks_is_found_well(tiny_folder):
    found = list(examine(str(tiny_folder)))
    about = [finding.about for finding in found]
    assert [name for name in dict.fromkeys(about) if name != "optional"] == [
        "python",
        "cpu",
        "gpu",
        "system",
        "paths",
        "speech",
    ]
    assert not any(finding.wrong for finding in found)
    paths = next(finding.says for finding in found if finding.about == "paths")
    assert paths.startswith("plain (chosen by the device); sampling: lean") and "ar: fp32 (8 bits with precision auto)" in paths


def test_the_path_that_is_set_is_said_and_one_that_is_none_is_wrong(tiny_folder, monkeypatch):
    monkeypatch.setenv("MYNAH_PATH", "graph")
    found = list(examine(str(tiny_folder)))
    assert not any(finding.wrong for finding in found)
    assert any(finding.says.startswith("graph (set by MYNAH_PATH)") for finding in found)
    monkeypatch.setenv("MYNAH_PATH", "grahp")
    (wrong,) = [finding.says for finding in examine(str(tiny_folder)) if finding.wrong]
    assert wrong == "MYNAH_PATH must be one of plain, fused, graph, or unset; got 'grahp' (did you mean 'graph'?)"


def test_a_system_that_is_not_there_is_said_and_the_command_fails(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--system", str(tmp_path / "nothing")])
    out = capsys.readouterr().out
    assert stopped.value.code == 1
    assert "system    WRONG:" in out and "torch" in out


def test_what_is_not_installed_is_said_with_the_way_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    told = [finding.says for finding in examine(str(tmp_path)) if finding.about == "optional"]
    assert "`mynah train` needs lightning_fabric: pip install 'mynah-tts[train]'" in told


def test_the_features_of_a_cpu_are_those_that_matter(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags : fpu avx2 amx_int8 sse\n", encoding="utf-8")
    assert cpu_features(info) == "avx2 amx_int8"
    assert "not told" in cpu_features(tmp_path / "none")
