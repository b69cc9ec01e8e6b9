"""Shards, buckets and the plan of batches; and that a machine with torch alone can train from them."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import toy_corpus

from tts.errors import CheckpointError, OutputError
from tts.train.data import (
    KNOWN,
    UNALIGNED,
    BatchPlan,
    Corpus,
    CorpusWriter,
    Item,
    buckets,
    pad,
    padding,
    save_alignment,
)
from tts.train.merge import merge

TABLES = {"symbols": ["<pad>", " ", "a", "b"], "table": "0123", "mel": "tiny"}


def item(number: int, T: int = 3, **changes: object) -> Item:
    base = Item(f"clip{number}", "ann", "tiny", "F", "en-us", T * 0.02, "a b", T, T * 320, (1, 2, 3))
    return replace(base, **changes)  # type: ignore[arg-type]


def write(folder: Path, lengths: list[int], audio: bool = True, shard_bytes: int = 5_000) -> list[torch.Tensor]:
    """A corpus of random mels (2 bands), in many shards; returns the mels."""
    mels = [torch.randn(2, T) for T in lengths]
    with CorpusWriter(folder, TABLES, shard_bytes) as writer:
        for number, mel in enumerate(mels):
            sound = torch.linspace(-1, 1, mel.shape[1] * 320) if audio else None
            writer.add(item(number, mel.shape[1]), mel, sound)
    return mels


def test_a_corpus_reads_back_what_was_written_across_shards(tmp_path: Path) -> None:
    mels = write(tmp_path / "c", [3, 1, 7, 2, 9, 4])
    assert len(list((tmp_path / "c").glob("shard-*.safetensors"))) > 2
    corpus = Corpus(tmp_path / "c")
    assert len(corpus) == 6 and corpus.tables == TABLES
    for i, mel in enumerate(mels):
        assert corpus.item(i) == item(i, mel.shape[1])
        torch.testing.assert_close(corpus.mel(i), mel, atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(corpus.audio(i), torch.linspace(-1, 1, mel.shape[1] * 320), atol=4e-5, rtol=0)
        assert corpus.tokens(i).tolist() == [1, 2, 3]


def test_audio_is_optional_in_the_shards_and_in_memory(tmp_path: Path) -> None:
    write(tmp_path / "with", [3, 4])
    write(tmp_path / "without", [3, 4], audio=False)
    for corpus in (Corpus(tmp_path / "with", audio=False), Corpus(tmp_path / "without")):
        assert corpus.mel(1).shape == (2, 4)
        with pytest.raises(CheckpointError, match="without audio"):
            corpus.audio(0)


def test_a_corpus_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), CorpusWriter(tmp_path / "c", TABLES) as writer:
        writer.add(item(0), torch.zeros(2, 3))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_replaces_a_corpus_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "c", [3, 4])
    write(tmp_path / "c", [5])
    assert len(Corpus(tmp_path / "c")) == 1
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    for folder in ("home", "home/letter.txt/c"):
        with pytest.raises(OutputError, match="give a"):
            write(tmp_path / folder, [3])
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_a_broken_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no manifest\.jsonl"):
        Corpus(tmp_path)
    write(tmp_path / "c", [3, 4, 5])
    manifest = tmp_path / "c" / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-1]))
    with pytest.raises(CheckpointError, match=r"does not hold|found in the shards"):
        Corpus(tmp_path / "c")
    manifest.write_text("".join(lines))
    shard = min((tmp_path / "c").glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        Corpus(tmp_path / "c")


def test_an_alignment_gives_tokens_and_their_frames(tmp_path: Path) -> None:
    write(tmp_path / "c", [3, 4])
    with pytest.raises(CheckpointError, match="no alignment"):
        Corpus(tmp_path / "c").token_frames(0)
    save_alignment(tmp_path / "c", [[1, 2], []], [[2, 1], []], [-0.5, 0.0])
    corpus = Corpus(tmp_path / "c")
    assert corpus.tokens(0).tolist() == [1, 2] and corpus.token_frames(0).tolist() == [2, 1]
    assert corpus.tokens(1).tolist() == [] and corpus.score(0) == -0.5
    save_alignment(tmp_path / "c", [[1, 2]], [[2, 1]], [-0.5])
    with pytest.raises(CheckpointError, match="align again"):
        Corpus(tmp_path / "c")


def speech_lengths(n: int = 3000) -> list[tuple[int, int]]:
    """Frames and tokens distributed like sentences of fast and slow readers: 1 to 20 s, 6 to 16 tokens a second."""
    draw = random.Random(0)
    seconds = [min(20.0, max(1.0, draw.lognormvariate(1.5, 0.6))) for _ in range(n)]
    return [(round(50 * s), round(s * draw.choice([draw.gauss(7, 1), draw.gauss(14, 1.5)]))) for s in seconds]


@pytest.mark.parametrize("budget", [2_000, 4_000, 8_000])
def test_padding_is_under_ten_percent_in_frames_and_in_tokens(budget: int) -> None:
    lengths = speech_lengths()
    batches = buckets(lengths, [1.0] * len(lengths), budget, seed=0, epoch=0)
    frames, tokens = padding(lengths, batches)
    assert frames < 0.10 and tokens < 0.10, (frames, tokens)
    assert all(len(batch) * max(lengths[i][0] for i in batch) <= budget for batch in batches if len(batch) > 1)
    unsorted = [list(range(k, k + 8)) for k in range(0, 3000 - 8, 8)]
    assert min(padding(lengths, unsorted)) > 0.3  # the measure sees padding where there is some


def test_padding_is_counted_as_by_hand() -> None:
    assert padding([(2, 1), (4, 4)], [[0, 1]]) == (1 - 6 / 8, 1 - 5 / 8)
    assert padding([], []) == (0.0, 0.0)


def test_weights_are_expected_repeats() -> None:
    lengths = speech_lengths(300)
    weights = [2.0] * 100 + [1.0] * 100 + [0.5] * 90 + [0.0] * 10
    counts: Counter[int] = Counter()
    for epoch in range(20):
        seen = Counter(i for batch in buckets(lengths, weights, 2_000, 0, epoch) for i in batch)
        assert all(seen[i] == weights[i] for i in [*range(200), *range(290, 300)])
        counts.update(seen)
    assert 0.45 < sum(counts[i] for i in range(200, 290)) / (20 * 90) < 0.55


def test_buckets_are_a_pure_function_of_their_arguments() -> None:
    lengths, weights = speech_lengths(200), [1.5] * 200
    first = buckets(lengths, weights, 2_000, seed=1, epoch=2)
    random.seed(5)
    torch.manual_seed(5)
    assert buckets(lengths, weights, 2_000, seed=1, epoch=2) == first
    assert buckets(lengths, weights, 2_000, seed=1, epoch=3) != first
    assert buckets(lengths, weights, 2_000, seed=2, epoch=2) != first


def test_one_item_no_item_and_an_item_above_the_budget_make_batches() -> None:
    assert buckets([(5, 2)], [1.0], 100, 0, 0) == [[0]]
    assert buckets([], [], 100, 0, 0) == []
    assert sorted(buckets([(500, 2), (500, 2)], [1.0, 1.0], 100, 0, 0)) == [[0], [1]]


def test_a_plan_answers_any_step_in_any_order() -> None:
    lengths, weights = speech_lengths(100), [1.3] * 100
    plan = BatchPlan(lengths, weights, 2_000, seed=0)
    steps = list(range(3 * plan.batches_per_epoch))
    forwards = [plan.at(step) for step in steps]
    again = BatchPlan(lengths, weights, 2_000, seed=0)
    assert [again.at(step) for step in reversed(steps)] == forwards[::-1]
    assert forwards[plan.batches_per_epoch][0] == 1 and forwards[0][1] != forwards[plan.batches_per_epoch][1]


def test_rows_are_padded_to_the_longest() -> None:
    rows, lengths = pad([torch.ones(2, 3), torch.ones(2, 1), torch.ones(2, 0)], value=-1.0)
    assert rows.shape == (3, 2, 3) and lengths.tolist() == [3, 1, 0]
    assert rows[1].tolist() == [[1, -1, -1]] * 2 and bool((rows[2] == -1).all())


def test_torch_and_safetensors_alone_can_train_from_shards(tmp_path: Path) -> None:
    write(tmp_path / "c", [3, 4, 5])
    script = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(name, name=name)
BLOCKED = {"lhotse", "omegaconf", "soundfile", "lightning", "lightning_fabric", "typer", "rich", "librosa", "pyloudnorm",
           "torchaudio", "phonemizer", "espeakng_loader", "num2words", "tensorboard", "huggingface_hub", "scipy"}
sys.meta_path.insert(0, Blocker())
from torch import nn
from tts.train.data import BatchPlan, Corpus, pad
from tts.train.loop import LoopConfig, Task, fit
import tts.train.augment

class Mean(Task):
    def __init__(self, corpus):
        self.corpus, self.net = corpus, nn.Conv1d(2, 2, 1)
        self.plan = BatchPlan([(i.frames, len(i.tokens)) for i in corpus.items], [i.weight for i in corpus.items], 10, 0)
    def modules(self):
        return {"net": self.net}
    def batch(self, step):
        return pad([self.corpus.mel(i) for i in self.plan.at(step)[1]])[0]
    def loss(self, batch, step):
        return {"loss": (self.net(batch) - batch).square().mean()}

fit(Mean(Corpus(sys.argv[1])), LoopConfig(steps=3, threads=1), sys.argv[2])
"""
    command = [sys.executable, "-c", script, str(tmp_path / "c"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoint-000000003" / "ema.safetensors").is_file()


def test_corpora_are_merged_with_the_alignments_that_they_have(tmp_path: Path) -> None:
    one, two = toy_corpus(tmp_path / "one", 3), toy_corpus(tmp_path / "two", 5, score=KNOWN)
    (tmp_path / "two" / "alignment.safetensors").rename(tmp_path / "away")
    assert merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both", {"toy": 0.5}) == 5
    both = Corpus(tmp_path / "both", audio=False)
    assert [both.score(i) for i in range(5)] == [-1.0] * 3 + [UNALIGNED] * 2
    assert torch.equal(both.token_frames(2), one.token_frames(2)) and len(both.tokens(3)) == 0
    assert torch.equal(both.mel(4), two.mel(4)) and both.item(4).weight == 0.5
    (tmp_path / "away").rename(tmp_path / "two" / "alignment.safetensors")
    merge([tmp_path / "two", tmp_path / "one"], tmp_path / "both", {})
    assert [Corpus(tmp_path / "both", audio=False).score(i) for i in range(5)] == [KNOWN] * 5
