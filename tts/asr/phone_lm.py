"""Which phones follow which: an n-gram over phones, and a reading of unknown speech that knows it.

    posteriors   k 0.4  ɡ 0.5 │ æ 0.9 │ t 0.5  p 0.4      greedy: ɡ æ t
    n-gram       "k æ t" after "ð ə" is likelier          with the n-gram: k æ t

For reading prompts and speech without a transcript. Not for the check (tts/asr/check.py), which must hear what is there and
not what ought to be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tts.asr.align import Reading, read, viterbi, written
from tts.errors import CheckpointError, FitError
from tts.files import write_whole
from tts.text.tokens import PHONES, SymbolTable

FILE = "phone_lm.safetensors"  # in the folder of a checkpoint that brings one
EDGE = 0  # what stands before the first phone and after the last: the recognizer's blank, which no phone has for index
BASE = 1 << 8  # a gram is one number: 1, then a digit of this base for each of its phones
CANDIDATE = -6.0  # log-posterior of a frame's phones that are tried
NOTHING = -1e30  # the logarithm of no probability


class PhoneLm:
    """An interpolated n-gram (Witten and Bell 1991) as a table of its grams; from `count_grams` or `load`.

    grams: [n] int64, ascending. values: [n, 2] the log-probability of a gram's last phone after the others, and the log-weight
    of the shorter history where a gram is the history of a phone that never followed it.
    """

    def __init__(self, grams: Tensor, values: Tensor, order: int, table: str) -> None:
        self.grams, self.values, self.order, self.table = grams, values, order, table
        self._rows = dict(zip(grams.tolist(), values.float().tolist(), strict=True))

    def log_prob(self, history: tuple[int, ...], phone: int) -> float:
        """The log-probability that `phone` follows `history`, whose last order - 1 phones count."""
        history = history[max(0, len(history) - self.order + 1) :]
        row = self._rows.get(_packed((*history, phone)))
        if row is not None:
            return row[0]
        if not history:
            return NOTHING
        follows = self._rows.get(_packed(history))
        return (follows[1] if follows is not None else 0.0) + self.log_prob(history[1:], phone)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file. Raises OutputError."""
        from safetensors.torch import save

        about = {"order": str(self.order), "table": self.table}
        write_whole(Path(path), save({"grams": self.grams, "values": self.values}, about))

    @classmethod
    def load(cls, path: str | Path, table: str) -> PhoneLm:
        """Raises CheckpointError for a broken file, FitError for one of another symbol table."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                grams, values = file.get_tensor("grams"), file.get_tensor("values")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); count the phones again") from error
        if about.get("table") != table:
            raise FitError(f"{path} was counted with other symbols; count the phones again")
        return cls(grams, values, int(about["order"]), table)


def find_phone_lm(folder: Path, table: str) -> PhoneLm | None:
    """The n-gram that a checkpoint brings, if it brings one. Raises as `PhoneLm.load`."""
    return PhoneLm.load(folder / FILE, table) if (folder / FILE).is_file() else None


def count_grams(
    sentences: Iterable[Sequence[int]], size: int, order: int = 5, at_least: int = 2, table: str = PHONES.identity
) -> PhoneLm:
    """Count an n-gram.

    Args:
        sentences: recognizer indices (> 0) of the phones of each. size: how many symbols there are, blank included.
        at_least: grams of four phones or more that were seen less often are left out, which makes the file a third as large.
    """
    seen: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order)]  # by length less one
    for sentence in sentences:
        row = (EDGE,) * (order - 1) + tuple(sentence) + (EDGE,)
        for i in range(order - 1, len(row)):
            for n in range(order):
                seen[n][row[i - n : i + 1]] += 1
    total: Counter[tuple[int, ...]] = Counter()  # by history: how many phones followed it,
    fresh: Counter[tuple[int, ...]] = Counter()  # and how many were new there: what a shorter history has to tell
    for n, grams in enumerate(seen):
        for gram, times in grams.items():
            kept = n < 3 or times >= at_least
            total[gram[:-1]] += times if kept else 0
            fresh[gram[:-1]] += 1 if kept else 1 + times
        seen[n] = Counter({gram: times for gram, times in grams.items() if n < 3 or times >= at_least})

    def mass(past: tuple[int, ...]) -> int:
        return total[past] + fresh[past]

    # every phone has a chance, also one that was never seen: the shortest history of all is followed by each alike
    chance: dict[tuple[int, ...], float] = {}
    for phone in range(size):
        chance[(phone,)] = (seen[0][(phone,)] + fresh[()] / size) / mass(())
    for grams in seen[1:]:  # shorter grams first, since longer ones build on them
        for gram, times in grams.items():
            chance[gram] = (times + fresh[gram[:-1]] * chance[gram[1:]]) / mass(gram[:-1])
    histories = [past for past in sorted(total, key=len) if past and total[past]]
    for past in histories:
        if past not in chance:  # edges only, which never follow one another
            chance[past] = fresh[past[:-1]] * chance[past[1:]] / mass(past[:-1])
    rows = {gram: (math.log(p), 0.0) for gram, p in chance.items()}
    for past in histories:
        rows[past] = (rows[past][0], math.log(fresh[past] / mass(past)))
    order_of = sorted(rows, key=_packed)
    grams_packed = torch.tensor([_packed(gram) for gram in order_of], dtype=torch.int64)
    values = torch.tensor([rows[gram] for gram in order_of]).clamp(min=-60_000).half()
    return PhoneLm(grams_packed, values, order, table)


def read_with_lm(
    log_probs: Tensor,
    lm: PhoneLm,
    weight: float = 1.0,
    bonus: float = 1.5,
    width: int = 12,
    rate: float = 50.0,
    table: SymbolTable = PHONES,
) -> Reading:
    """`tts.asr.align.read`, but the likeliest phones by posteriors and n-gram together.

    Args:
        log_probs: [T, V] at `rate` Hz, blank first. weight: of the n-gram's log-probability. bonus: nats for each phone,
            without which an n-gram prefers few. width: prefixes that are kept.
    """
    phones = beam(log_probs, lm, weight, bonus, width)
    found = viterbi(log_probs, phones)
    if found is None:
        return read(log_probs, rate, table)
    spans = [(phone, start, end) for phone, (start, end) in zip(phones, found[0], strict=True)]
    return written(log_probs, spans, rate, table)


def beam(log_probs: Tensor, lm: PhoneLm, weight: float, bonus: float, width: int) -> list[int]:
    """CTC prefix beam search (Hannun et al. 2014): the best phones (indices > 0) of log-posteriors [T, V].

    Each prefix keeps the log-probability of having ended in a blank and in its last phone, since only the first may be followed
    by the same phone once more.
    """
    chance = cache(lm.log_prob)  # of this reading alone: nothing that was read before is kept
    best: dict[tuple[int, ...], tuple[float, float, float]] = {(): (0.0, NOTHING, 0.0)}  # blank, phone, n-gram and bonus
    edge = (EDGE,) * (lm.order - 1)
    for frame in log_probs.tolist():
        tried = [(phone, p) for phone, p in enumerate(frame) if phone and p > CANDIDATE]
        grown: dict[tuple[int, ...], tuple[float, float, float]] = {}
        for prefix, (blank, phone_p, known) in best.items():
            both = _add(blank, phone_p)
            # 1. nothing new: a blank, or the last phone goes on
            stays = phone_p + frame[prefix[-1]] if prefix else NOTHING
            a, b, _ = grown.get(prefix, (NOTHING, NOTHING, 0.0))
            grown[prefix] = (_add(a, both + frame[0]), _add(b, stays), known)
            # 2. one phone more
            for phone, p in tried:
                longer = (*prefix, phone)
                comes = p + (blank if prefix and prefix[-1] == phone else both)
                if longer in grown:
                    a, b, score = grown[longer]
                    grown[longer] = (a, _add(b, comes), score)
                else:
                    score = known + weight * chance((edge + prefix)[-len(edge) :] if edge else (), phone) + bonus
                    grown[longer] = (NOTHING, comes, score)
        if len(grown) > width:
            ranked = sorted(grown.items(), key=lambda row: -_add(row[1][0], row[1][1]) - row[1][2])
            grown = dict(ranked[:width])
        best = grown

    def whole(prefix: tuple[int, ...]) -> float:
        blank, phone, known = best[prefix]
        return _add(blank, phone) + known + weight * lm.log_prob(edge + prefix, EDGE)

    likeliest = max(best, key=whole)
    return list(likeliest)


def _packed(gram: tuple[int, ...]) -> int:
    number = 1
    for phone in gram:
        number = number * BASE + phone
    return number


def _add(a: float, b: float) -> float:
    """log(exp a + exp b)."""
    high, low = (a, b) if a > b else (b, a)
    return high if low <= NOTHING / 2 else high + math.log1p(math.exp(low - high))
