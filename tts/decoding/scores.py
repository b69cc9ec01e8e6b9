"""What decoding asks of a model: autoregressive decoding the next step's scores, parallel decoding those of all masked cells.

    delay heads          step ─► Scores.logits [R, K, W]                       all books of the step at once
    hierarchical head    step ─► Scores.hidden ─► begin ─► book 0 ─► book 1 …  one book after another
    masked               hidden [R, T, D] ─► logits [R, T, V]                  all frames of one book at once

W is V, the codes of a book, or V + 1 where the model has an end of speech: then index V of book 0 is it, and no other book
can say it (their logits there are -inf).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """What a model says of the next step, for R rows (items times guidance groups, see tts/decoding/guidance.py).

    hidden: [R, D]. logits: [R, K, W] float32, or None where a DepthScorer gives them book by book.
    aux: by name, [R] each. "advance": the log-odds that the phone pointer advances after this step's frame.
    """

    hidden: Tensor
    logits: Tensor | None
    aux: Mapping[str, Tensor] = field(default_factory=dict)


class DepthScorer(Protocol):
    """The books of one frame, one after another, given what the trunk makes of all frames before."""

    def begin(self, hidden: Tensor) -> Any:
        """hidden [R, D] to the state of a new frame; nothing of the frame before is in it."""
        ...

    def book(self, k: int, previous: Tensor | None, state: Any) -> Tensor:
        """Logits [R, W] of book k, float32. previous: [R] int64, the code of book k - 1 (None for k = 0).

        Books are asked for in order, each once; the state is changed in place.
        """
        ...


class TokenScorer(Protocol):
    """A language model over steps of K codes. Everything that changes from step to step is in the cache."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """V of each book."""
        ...

    @property
    def depth(self) -> DepthScorer | None:
        """Who says the books of a frame one by one; None: Scores.logits holds all of them."""
        ...

    def step(self, codes: Tensor, text: Tensor | None, cache: Any) -> Scores:
        """Read one step, say what comes next.

        Args:
            codes: [R, K] int64 of the step before, as the pattern lays them; V where a book has no frame there.
            text: [R, C], what is to be spoken at the step that is asked for, or None where the text is in the cache.
            cache: changed in place, by one position in each row.
        """
        ...


@dataclass(frozen=True)
class Stepping:
    """The steps of a TokenScorer from one cache on, with all that changes in tensors: what tts/decoding/captured.py captures.

    step: the vectors of a step [R, D] at positions [R] int64 to what the scorer says of the next: logits [R, K, W] float32, or
        where there is a DepthScorer hidden [R, D]. It looks at no number, and past the cache's room it stays at the last place.
    where: [R] int64, the position of the step that comes next.
    table, join: of the codes, see `embed_step` of tts/sampling/steps.py.
    """

    step: Callable[[Tensor, Tensor], Tensor]
    where: Tensor
    table: Tensor
    join: Callable[[Tensor], Tensor] | None = None


@runtime_checkable
class SteppingScorer(TokenScorer, Protocol):
    """A TokenScorer whose steps can be captured."""

    def stepping(self, cache: Any) -> Stepping:
        """The steps that follow what is in the cache, which they fill; what it says of lengths stays as it was."""
        ...


class MaskPredictor(Protocol):
    """A bidirectional model over the cells (book, frame) of a target, of which some are masked.

    It keeps nothing from one call to the next. Text and prompt are no cells: they are in `given`, which the caller of the
    decoding makes for all R rows, the items and then, with guidance, the items again without their conditions.
    """

    @property
    def sizes(self) -> tuple[int, ...]:
        """V of each book."""
        ...

    def hidden(self, codes: Tensor, book: int, t: Tensor, given: Any) -> Tensor:
        """What the head of a book reads of each frame: [R, T, D].

        Two calls rather than one because MaskGCT's guidance mixes hidden states, before the head.

        Args:
            codes: [R, K, T] int64, V where masked: as a rule all later books, and the frames of `book` yet to be committed.
                Beyond an item's length (in `given`) they mean nothing and change nothing, nor does the result there.
            t: [R] float32, the time of the step, from 1 (all is masked) to 0.
        """
        ...

    def logits(self, hidden: Tensor, book: int) -> Tensor:
        """hidden [..., D] to logits [..., V] float32; any frames will do, for instance only the masked ones [M, D]."""
        ...
