"""Aligning a corpus: where each phone lies, what was said where no text is known, and how long phones typically last."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tts.asr.align import align, phones_of, read, with_commas
from tts.asr.model import CTCRecognizer
from tts.asr.phone_lm import PhoneLm, count_grams, read_with_lm
from tts.duration.rules import RuleConfig
from tts.text.tokens import PHONES, SymbolTable
from tts.train.data import KNOWN, UNALIGNED, Corpus, pad, save_alignment

CLOSING_SECONDS = 0.1  # what a sentence ends with, as clips do that were trimmed to their speech


def posteriors(
    recognizer: CTCRecognizer, corpus: Corpus, rows: int = 16, items: Sequence[int] | None = None
) -> Iterator[tuple[int, Tensor]]:
    """(item, log-posteriors [T, V]) of every item, or of some, clips of like length together."""
    order = sorted(range(len(corpus)) if items is None else items, key=lambda i: corpus.item(i).frames)
    for k in range(0, len(order), rows):
        batch = order[k : k + rows]
        mel, lengths = pad([corpus.mel(i) for i in batch])
        with torch.inference_mode():
            log_probs = recognizer(mel, lengths)
        for b, i in enumerate(batch):
            yield i, log_probs[b, : int(lengths[b])]


def clips_to_see(recognizer: CTCRecognizer, folder: str | Path, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of an aligned corpus the `count` clips with the worst scores, and as many others by chance.

    Yields the name of a picture ("worst-00.png" is the very worst) and the arguments of `tts.eval.alignments.plot_alignment`.
    """
    corpus = Corpus(folder, audio=False)
    order = sorted((i for i in range(len(corpus)) if corpus.score(i) != UNALIGNED), key=corpus.score)
    others = order[count:]
    chosen = {i: f"worst-{k:02d}.png" for k, i in enumerate(order[:count])}
    chosen |= {i: f"other-{k:02d}.png" for k, i in enumerate(random.Random(0).sample(others, min(count, len(others))))}
    for i, log_probs in posteriors(recognizer.eval(), corpus, items=list(chosen)):
        item = corpus.item(i)
        yield (
            chosen[i],
            {
                "mel": corpus.mel(i),
                "log_probs": log_probs,
                "tokens": corpus.tokens(i).tolist(),
                "frames": corpus.token_frames(i).tolist(),
                "rate": float(recognizer.accepts.rate),
                "title": f"{item.id}, score {corpus.score(i):.2f}: {item.text or 'what was heard'}",
            },
        )


def count_phones(folder: str | Path, table: SymbolTable = PHONES) -> PhoneLm:
    """Which phones follow which in the texts of a prepared corpus; a text counts once, however many say it."""
    texts = {item.text: phones_of(item.tokens, table) for item in Corpus(folder, audio=False).items if item.tokens}
    return count_grams(texts.values(), len(table.recognizer_symbols), table=table.identity)


def align_corpus(
    recognizer: CTCRecognizer, folder: str | Path, table: SymbolTable = PHONES, phone_lm: PhoneLm | None = None
) -> dict[str, float]:
    """Write folder/alignment.safetensors by the recognizer; items without a text get the phones that are heard.

    What a teacher said stays as it is: its alignment is certain.

    phone_lm: what those are read by, beside the recognizer.

    Scores are mean log-posteriors along the path (at most 0); of what was only heard, the logarithm of the confidence.
    Returns: counts and the mean score, to be looked at.
    """
    from rich.progress import track

    recognizer.eval()
    corpus = Corpus(folder, audio=False)
    rate = float(recognizer.accepts.rate)
    tokens: list[list[int]] = [[] for _ in corpus.items]
    frames: list[list[int]] = [[] for _ in corpus.items]
    scores = [UNALIGNED] * len(corpus)
    for i, log_probs in track(posteriors(recognizer, corpus), "aligning", len(corpus)):
        item = corpus.item(i)
        if corpus.alignment is not None and corpus.score(i) == KNOWN:
            tokens[i], frames[i], scores[i] = corpus.tokens(i).tolist(), corpus.token_frames(i).tolist(), KNOWN
            continue
        if not item.tokens:
            if phone_lm is None:
                heard = read(log_probs, rate, table)
            else:
                heard = read_with_lm(log_probs, phone_lm, rate=rate, table=table)
            tokens[i], frames[i] = heard.tokens, heard.frames
            scores[i] = float(torch.tensor(max(heard.confidence, 1e-9)).log())
            continue
        found = align(log_probs, item.tokens, rate, table)
        if found is not None:
            tokens[i] = with_commas(list(item.tokens), found.frames, rate, table)
            frames[i], scores[i] = found.frames, found.score
    save_alignment(folder, tokens, frames, scores)
    aligned = [score for score in scores if score != UNALIGNED]
    return {"items": len(corpus), "aligned": len(aligned), "mean score": sum(aligned) / max(1, len(aligned))}


def typical_durations(folder: str | Path, min_score: float, table: SymbolTable = PHONES) -> RuleConfig:
    """What the duration rules need to know, counted from an aligned corpus: each symbol's mean seconds.

    Items without a text, and those aligned worse than min_score, do not count; weights of the manifest do. Opening and
    closing boundaries are left out: their silence is the recording's, not the sentence's; what ends one takes CLOSING_SECONDS.
    A phone that counts fewer than ten times takes the mean of all phones, such a boundary no time; the boundaries between
    space and full stop take the comma's.
    """
    corpus = Corpus(folder, audio=False)
    total, count = torch.zeros(len(table), dtype=torch.float64), torch.zeros(len(table), dtype=torch.float64)
    for i, item in enumerate(corpus.items):
        if not item.tokens or corpus.score(i) < min_score:
            continue
        ids, frames = corpus.tokens(i)[1:-1], corpus.token_frames(i)[1:-1]
        total.index_add_(0, ids, frames.double() * item.weight)
        count.index_add_(0, ids, torch.full(ids.shape, item.weight, dtype=torch.float64))
    rate = sum(item.frames for item in corpus.items) / max(1e-9, sum(item.seconds for item in corpus.items))  # Hz
    boundary = torch.tensor([table.is_boundary(i) for i in range(len(table))])
    usual = total[~boundary].sum() / count[~boundary].sum().clamp(min=1)
    mean = torch.where(count >= 10, total / count.clamp(min=1), torch.where(boundary, torch.zeros(()).double(), usual)) / rate
    mean[0] = 0.0
    # punctuation is rare in transcripts: what was counted for the comma holds for its siblings
    comma, space = table.id(","), table.id(" ")
    for i in boundary.nonzero()[:, 0].tolist():
        if table.symbols[i] in ".!?":
            mean[i] = CLOSING_SECONDS
        elif i not in (comma, space):
            mean[i] = mean[comma]
    return RuleConfig(
        table=table.identity,
        seconds=tuple(round(float(x), 4) for x in mean),
        boundaries=tuple(int(i) for i in boundary.nonzero()[:, 0]),
        pauses=tuple(int(i) for i in boundary.nonzero()[:, 0] if int(i) != space),
    )
