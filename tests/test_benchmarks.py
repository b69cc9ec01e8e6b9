"""Benchmarks take turns, refuse to conclude from a busy machine, tell one table and one JSON, and their sections run."""

import json
import sys

import pytest
import torch
import typer
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import bench
import gpu
import harness
import networks
import plots
import pocket
import samplers
import sounds
import speaking
from harness import QUICK, Goal, Pace, Row

# ------------------------------------------------------------------------------------------------------ harness


def counted(log, name, seconds):
    def run(n):
        log.append((name, n))
        return seconds

    return run


def test_contenders_take_turns_after_a_first_turn_that_does_not_count():
    log = []
    runs = {"ours": counted(log, "a", 0.01), "theirs": counted(log, "b", 0.04)}
    spent = harness.interleave(runs, Pace(rounds=3, least=0.1), 1e3)
    assert log[:4] == [("a", 1), ("a", 1), ("b", 1), ("b", 1)]
    assert log[4:] == [("a", 10), ("b", 2)] * 3
    assert spent == {"ours": [10.0] * 3, "theirs": [40.0] * 3}


def test_slow_contenders_get_three_rounds_and_no_more():
    log = []
    harness.interleave({"ours": counted(log, "a", 5.0)}, Pace(rounds=9, least=0.0, seconds=0.0))
    assert log == [("a", 1)] * 4


def test_work_is_timed_by_the_clock_and_shared_among_its_calls(monkeypatch):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    done = []
    assert harness.call(lambda: done.append(1))(3) == 2.0
    assert len(done) == 3


STEADY, JUMPY = [10.0, 10.1, 10.2], [10.0, 20.0, 30.0]


@pytest.mark.parametrize(
    ("figures", "goal", "busy", "verdict"),
    [
        ({"ours": STEADY}, None, False, "measured"),
        ({"ours": STEADY}, None, True, "no conclusion: the machine was busy"),
        ({"ours": STEADY, "theirs": JUMPY}, None, False, "no conclusion: repeats differ by 100%"),
        ({"ours": STEADY}, Goal(10.5), False, "reached"),
        ({"ours": STEADY}, Goal(10.05), False, "open"),
        ({"ours": STEADY}, Goal(9.9), False, "missed"),
        ({"ours": STEADY}, Goal(10.5), True, "no conclusion: the machine was busy"),
        ({"ours": STEADY, "theirs": [20.0, 20.2]}, Goal(1.9, "theirs"), False, "reached"),
        ({"ours": STEADY, "theirs": [20.0, 20.2]}, Goal(2.1, "theirs"), False, "missed"),
        ({"ours": STEADY}, Goal(1.9, "theirs"), False, "open"),
        (None, Goal(1.9), False, "not measured"),
        ({}, None, True, "not measured"),
    ],
)
def test_a_conclusion_needs_a_quiet_machine_and_steady_repeats(figures, goal, busy, verdict):
    told = Row("a step", "ms", figures, goal).told(busy)
    assert told["verdict"] == verdict
    assert set(told["contenders"]) == set(figures or {})


def test_a_row_tells_every_repeat_the_least_the_median_and_how_many_times_ours():
    told = Row("a step", "ms", {"ours": [3.0, 1.0, 2.0], "theirs": [4.0, 4.0, 8.0]}).told(False)
    assert told["contenders"]["ours"] == {"min": 1.0, "median": 2.0, "runs": [3.0, 1.0, 2.0]}
    assert told["times ours"] == {"theirs": {"min": 4.0, "median": 2.0}}
    assert told["spread"] == 1.0


def test_the_table_has_a_line_for_each_contender():
    rows = [
        Row("a step", "ms", {"ours": STEADY, "theirs": [20.0, 20.2], "others": [5.0]}, Goal(1.9, "theirs")).told(False),
        Row("another", "ms", note="peer not installed: theirs").told(False),
    ]
    lines = harness.table({"Steps": {"rows": rows}}).splitlines()
    assert lines[2:] == [
        "| **Steps** | | | | | | |",
        "| a step | 10, 10.1 ms | theirs | 20, 20.1 ms | 2.00, 1.99 |  |  |",
        "|  |  | others | 5 ms | 0.50, 0.50 | ≥ 1.9 × theirs | reached |",
        "| another; peer not installed: theirs | not measured |  |  |  |  |  |",
    ]


# ------------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def quiet(monkeypatch):
    """A machine without load, and two sections that cost nothing; how often the first is measured is counted."""
    calls = []
    monkeypatch.setattr(bench, "load", lambda: 0.5)
    monkeypatch.setattr(bench, "SECTIONS", {"sampler": ("One", "samplers", "sampler"), "ar": ("Two", "networks", "ar")})
    monkeypatch.setattr(samplers, "sampler", lambda: calls.append(1) or [Row("a", "µs", {"ours": STEADY, "theirs": STEADY})])
    monkeypatch.setattr(networks, "ar", lambda threads_: [Row(f"by {threads_}", "ms", {"ours": STEADY})])
    return calls


def test_one_json_keeps_what_other_sections_have_found(quiet, tmp_path, capsys):
    out, plot = tmp_path / "runs/bench.json", tmp_path / "plot.png"
    bench.main(only="ar", out=out, threads=1, plot=None, read=False)
    bench.main(only="sampler", out=out, threads=1, plot=None, read=False)
    found = json.loads(out.read_text("utf-8"))["sections"]
    assert list(found) == ["sampler", "ar"]
    assert found["ar"]["rows"][0]["what"] == "by 1"
    for section in found.values():
        assert section.keys() >= {"title", "load average", "threads", "machine", "cores", "versions", "rows"}
        assert section["load average"] == 0.5
    assert found["ar"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert "| **Two (load 0.5)** | | | | | | |" in capsys.readouterr().out

    pytest.importorskip("matplotlib")
    bench.main(only=None, out=out, threads=1, plot=plot, read=True)
    assert len(quiet) == 1, "nothing is measured again"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_busy_machine_is_told_at_once_and_concludes_nothing(quiet, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "load", lambda: 7.0)
    bench.main(only="ar", out=tmp_path / "bench.json", threads=1, plot=None, read=False)
    told = capsys.readouterr()
    assert "load average 7.00, above 1.5: no conclusion will be drawn" in told.err
    assert "no conclusion: the machine was busy" in told.out


def test_a_section_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(typer.BadParameter, match="no section 'arr'"):
        bench.main(only="ar,arr", out=tmp_path / "bench.json", threads=1, plot=None, read=False)


def test_every_section_is_a_function():
    for _, file, function in bench.SECTIONS.values():
        assert callable(getattr(sys.modules[file], function))


def test_the_picture_shows_what_there_is_and_is_small():
    pytest.importorskip("matplotlib")
    pair = {"ours": STEADY, "theirs": [20.0, 20.2]}
    rows = {
        "ar": [Row("a step, small, ours int8", "ms", pair)],
        "length": [Row("flow", "ms a frame", {"ours": STEADY}, point=("flow", T)) for T in (10, 20)],
        "speech": [Row("base, flow, 6 s: real-time factor", "s/s", pair), Row("base, flow: first sound", "ms", pair)],
    }
    sections = {name: {"load average": 1.0, "rows": [row.told(False) for row in each]} for name, each in rows.items()}
    assert len(plots.draw(sections)) < plots.MOST_BYTES
    assert plots.draw({}).startswith(b"\x89PNG")


# ----------------------------------------------------------------------------------------------------- the sections


def check(rows, *peers):
    """Every row has times above zero of ours and of some of the peers; each peer is in some row."""
    assert rows
    for row in rows:
        assert next(iter(row.figures)) == "ours"
        assert all(len(each) == QUICK.rounds and min(each) > 0 for each in row.figures.values())
    assert {name for row in rows for name in row.figures} == {"ours", *peers}


def test_samplers_run():
    check(samplers.sampler(QUICK, K=2, V=300), samplers.EAGER)
    check(samplers.masked(QUICK, T=12, V=80), samplers.EAGER)


def test_the_eager_chain_draws_by_the_same_law():
    torch.manual_seed(0)
    policy = samplers.Policy(guidance=2.0, repetition_penalty=1.5, repetition_window=2, temperature=0.8, top_k=4, top_p=0.9)
    scores, said = torch.randn(2, 1, 7), torch.tensor([[[2, 5]]])
    scores[..., 6] = -torch.inf
    eager = samplers.Eager(policy, 6)
    drawn = torch.stack([eager.draw(scores, said)[0, 0] for _ in range(4000)]).bincount(minlength=7) / 4000
    uniforms = ((torch.arange(4000) + 0.5) / 4000)[:, None]
    many = scores.repeat_interleave(4000, 0)
    ours = samplers.sampler_for("cpu")(many, uniforms, policy, said.expand(4000, -1, -1)).flatten().bincount(minlength=7) / 4000
    assert (drawn - ours).abs().max() < 0.04
    assert (ours > 0).sum() > 1


@pytest.mark.parity
def test_networks_run_beside_their_peers():
    pytest.importorskip("transformers", reason="a peer: pip install transformers")
    check(networks.ar(QUICK, 1, {"64 x 1": (64, 1, 1)}), "transformers")
    rows = networks.dit(QUICK, 1, frames=24, depth=1, heads=4)
    if rows[0].figures is None:
        pytest.skip(rows[0].note)
    check(rows, "f5-tts", *(["f5-tts bf16"] if len(rows) > 1 else []))
    assert float(rows[0].note.split()[-1]) < 1e-5, "the same weights answer alike"


@pytest.mark.parity
def test_codecs_and_vocoders_run_beside_their_peers():
    for package in ("transformers", "encodec", "vocos"):
        pytest.importorskip(package, reason=f"a peer: pip install {package}")
    check(sounds.codec(QUICK, 1, seconds=0.05), "encodec", "transformers")
    check(sounds.vocoder(QUICK, 1, seconds=0.05, small=True), "vocos", "transformers")


def test_peers_that_are_absent_are_told_and_the_rest_goes_on(monkeypatch):
    for module in (networks, sounds):
        monkeypatch.setattr(module, "peer", lambda name: None)
    monkeypatch.setattr(networks, "f5", lambda *sizes: None)
    told = [*networks.ar(QUICK, 1), *networks.dit(QUICK, 1), *sounds.codec(QUICK, 1), *sounds.vocoder(QUICK, 1, small=True)]
    for row in told:
        assert row.note.startswith("peer not installed: ")
        assert row.told(False)["verdict"] == "not measured"


def test_backends_are_measured_by_length_and_batch(tiny_folder):
    rows = speaking.length(QUICK, 1, str(tiny_folder), lengths=(6, 10), batches=(1, 2))
    check(rows)
    names = {row.point[0] for row in rows if row.point}
    assert "flow" in names and "masked" in names
    assert len(rows) == 3 * len(names)


def test_speech_runs_alone_where_pocket_tts_is_not(tiny_folder, monkeypatch):
    monkeypatch.setattr(pocket, "available", lambda: False)
    rows = speaking.speech(QUICK, 1, str(tiny_folder))
    check(rows)
    assert all("peer not installed: pocket-tts" in row.note for row in rows)


@pytest.mark.slow
def test_a_cold_start_is_timed_from_outside(tiny_folder):
    (seconds, memory) = speaking.cold(Pace(rounds=1), 1, str(tiny_folder), sizes=())
    assert 0 < seconds.figures["ours"][0] < 600
    assert 50 < memory.figures["ours"][0] < 20_000


# ------------------------------------------------------------------------------------------------------ on a GPU


def test_without_a_gpu_nothing_is_made_up(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = gpu.gpu(QUICK)
    assert row.told(False)["verdict"] == "not measured"
    assert row.note == "no CUDA device"


def test_what_a_gpu_is_given_to_do_is_right_on_a_cpu(monkeypatch):
    monkeypatch.setattr(gpu, "timed", harness.call)
    monkeypatch.setattr(gpu, "graphed", lambda work: work)
    device = gpu.Device("cpu", bandwidth=1e9, rate=1e9, pace=QUICK)
    sizes = {"codebooks": 2, "size": 16, "dim": 32, "depth": 1, "heads": 2, "head_dim": 16, "code_dim": None, "voice": False}
    monkeypatch.setattr(gpu, "SEEN", 40)
    with torch.inference_mode():
        rows = gpu.model(device, sizes, batches=(1, 2))
        if networks.f5(1, 1) is not None:
            rows += gpu.transformer(device, depth=1, frames=16, heads=2)
    assert [gpu.FLOOR in row.figures for row in rows[:3]] == [True, True, False]
    for row in rows:
        assert min(row.figures["ours"]) > 0
        assert min(row.figures.get(gpu.FLOOR, [1.0])) > 0


def test_backends_are_timed_by_two_paths(monkeypatch, tiny_folder):
    monkeypatch.setattr(gpu, "timed", harness.call)
    rows = gpu.batches(gpu.Device("cpu", 1e9, 1e9, QUICK), str(tiny_folder), sizes=(2,), frames=3)
    assert {name for name, _ in (row.point for row in rows)} >= {"ar", "masked", "flow"}
    assert all(set(row.figures) == {"ours", "the plain path"} for row in rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_all_of_it_runs_on_a_gpu():
    rows = gpu.gpu(QUICK)
    assert len(rows) > 8
    assert all(min(row.figures["ours"]) > 0 for row in rows)
