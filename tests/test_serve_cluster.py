"""A batch on a Ray cluster of two nodes: the same files as in one process, whoever dies."""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tts import Request
from tts.cli import main
from tts.errors import CheckpointError, MissingPackageError, MynahError
from tts.serve.batch import run_batch
from tts.serve.jobs.cluster import Cluster
from tts.serve.jobs.manifests import Job
from tts.serve.jobs.workers import Here, Outcome, Work

TEXTS = ["One.", "Two and three.", "Four, five, six and seven.", "Eight.", "Nine."]


@dataclass(frozen=True)
class Fake(Work):
    """Work that needs no system: a text is what it says. "die" ends the actor, "die once" the first one. system: a folder."""

    def open(self, number):
        if self.system == "none":
            raise CheckpointError("there is no system")
        return self.answer

    def answer(self, job):
        died = Path(self.system, job.id)
        if job.request.text == "die" or (job.request.text == "die once" and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        told = {"id": job.id, "threads": torch.get_num_threads(), "extra": dict(job.extra)}
        return Outcome(job.id, told, job.request.text.encode() + b"\0\0")


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two nodes on this machine, with two cores each (in name)."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Local

    before = os.environ.copy()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # for what is defined here
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    local = Local()
    for _ in range(2):
        local.add_node(num_cpus=2, include_dashboard=False)
    yield local.address
    local.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
def test_a_killed_actor_loses_nothing_and_one_that_always_dies_costs_its_item_alone(cluster, tmp_path):
    texts = {"a": "die once", "b": "x", "c": "die", "d": "", "e": "y"}
    jobs = [Job(name, row, Request(text), {"row": [row]}) for row, (name, text) in enumerate(texts.items())]
    outcomes = list(Cluster(cluster).run(Fake(str(tmp_path), threads=2), jobs))
    assert sorted(outcome.id for outcome in outcomes) == list(texts), "each once"
    said = {outcome.id: outcome for outcome in outcomes if outcome.sound is not None}
    assert {name: outcome.sound for name, outcome in said.items()} == {
        name: text.encode() + b"\0\0" for name, text in texts.items() if name != "c"
    }
    assert (tmp_path / "a").exists(), "an actor died over it, too"
    assert said["a"].told == {"id": "a", "threads": 2, "extra": {"row": [0]}}
    (died,) = [outcome.told for outcome in outcomes if outcome.sound is None]
    assert died["error"] == "WorkerDied" and died["row"] == 2 and "in 2 rounds" in died["reason"]
    with pytest.raises(CheckpointError, match="there is no system"):
        list(Cluster(cluster).run(Fake("none"), jobs))
    with pytest.raises(MynahError, match="a worker takes 9 CPU, and the cluster has 4"):
        list(Cluster(cluster).run(Fake("none", threads=9), jobs))


@pytest.mark.slow
def test_a_cluster_writes_the_files_of_one_process(cluster, tiny_folder, tmp_path, capsys):
    rows = [{"id": f"item {i}", "text": text} for i, text in enumerate(TEXTS)] + [{"id": "empty", "text": ""}]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    template = Request("", settings={"steps": 1}, check=False)
    run_batch(manifest, tmp_path / "here", system=str(tiny_folder), template=template, engine=Here())
    words = ["batch", manifest, "--out", tmp_path / "there", "--system", tiny_folder, "--set", "steps=1", "--no-check"]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in [*words, "--engine", "ray", "--address", cluster]])
    assert stopped.value.code == 1 and "5 spoken" in capsys.readouterr().out, "the empty one failed"
    names = sorted(path.name for path in (tmp_path / "here").glob("*.wav"))
    assert len(names) == 5 and names == sorted(path.name for path in (tmp_path / "there").glob("*.wav"))
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name
    assert '"TextError"' in (tmp_path / "there/errors.jsonl").read_text()


def test_where_no_cluster_is_a_sentence_says_so(capsys):
    pytest.importorskip("ray")
    with pytest.raises(MynahError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 .*--address"):
        list(Cluster("127.0.0.1:9").run(Work("tiny"), [Job("a", 1, Request("One."))]))
    with pytest.raises(SystemExit) as stopped:
        main(["batch", "m.csv", "--out", "out", "--address", "127.0.0.1:9"])
    assert stopped.value.code == 2 and "--engine ray" in capsys.readouterr().err


def test_where_ray_is_absent_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'mynah-tts\[ray\]'"):
        list(Cluster().run(Work("tiny"), [Job("a", 1, Request("One."))]))
