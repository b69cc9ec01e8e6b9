"""Residual vector quantization: each codebook codes what the ones before it have left over.

    z ──┬─► book 0 ─► q0          z is close to q0 + q1 + … : any number of the first books decodes
        └ - q0 ─┬─► book 1 ─► q1
                └ - q1 ─► …

The first batches in training pass as they are, so that there is something worth coding. In the second half of them one book
after another is started, by k-means on what the books before it leave of vectors that these have not seen, and then
follows by moving averages. From there on the books learn with the rest of the network.
Sources: Zeghidour et al. 2021, SoundStream (arXiv:2107.03312): the residual loop, k-means, quantizer dropout; Défossez et
al. 2022, EnCodec (arXiv:2210.13438): averaged codes, dead ones revived; Kumar et al. 2023, DAC (arXiv:2306.06546): factorised
codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, distributed, nn
from tts.codecs.quantizers import Quantized, Quantizer, draw_codebooks

from tts.errors import SettingsError
from tts.frames import frame_mask


@dataclass(frozen=True)
class RVQConfig:
    """The books. Factorised codes are looked up by angle in code_dim numbers, averaged ones ("ema") by distance in all."""

    dim: int = 256
    codebooks: int = 8
    size: int = 1024  # codes of each
    codes: str = "factorised"  # or "ema"
    code_dim: int = 8  # of factorised codes
    commitment: float = 0.25  # weight of the distance from the encoder's vectors to their codes; the codes' own is 1
    decay: float = 0.99  # of averaged codes, a batch
    warmup: int = 200  # training batches that pass unquantized, one or more for each book
    revive_below: float = 0.1  # of the mean use: a code used less becomes a random vector of the batch
    dropout: float = 0.5  # share of the rows in training that read fewer codebooks, where the caller draws no number

    def __post_init__(self) -> None:
        if self.codes not in ("factorised", "ema"):
            raise SettingsError(f"codes must be 'factorised' or 'ema', got {self.codes!r}")
        if min(self.dim, self.codebooks, self.size, self.code_dim) < 1 or self.code_dim > self.dim:
            raise SettingsError("dim, codebooks, size and code_dim must be at least 1, and code_dim at most dim")
        if self.warmup < self.codebooks:
            raise SettingsError(f"warmup must be a batch or more for each of {self.codebooks} codebooks, got {self.warmup}")


class Book(nn.Module, ABC):
    """One codebook. Its codes live in D numbers: `down` leads there from the C of the vectors, `vectors` back."""

    codes: Tensor  # [V, D]
    count: Tensor  # [V] how many vectors of a training batch choose each code, averaged

    def __init__(self, config: RVQConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("count", torch.ones(config.size))

    @abstractmethod
    def forward(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, C], its real frames [B, T] -> vectors [B, T, C], codes [B, T], and a loss over the real frames."""

    @abstractmethod
    def down(self, x: Tensor) -> Tensor:
        """[..., C] to [..., D]."""

    @abstractmethod
    def nearest(self, x: Tensor) -> Tensor:
        """The codes [...] int64 closest to x [..., D]."""

    @abstractmethod
    def vectors(self) -> Tensor:
        """The codes as they are summed, [V, C]."""

    def orient(self, x: Tensor) -> None:
        """Choose the D numbers to suit vectors x [N, C], before k-means; here they are given."""
        return None

    def learn(self, x: Tensor, age: int, average: bool, draw: Generator) -> Tensor:
        """Take in the vectors x [N, C] of the book's age-th training batch and give what is left of them [N, C].

        The first starts the codes; later ones revive the dead and, where `average` says so, move the codes towards the means
        of the vectors that chose them. Not for gradients.
        """
        if age == 1:
            self.orient(x)
        y = self.down(x)  # [N, D]
        if age == 1:
            self.kmeans(y, draw)
        else:
            self.replace(self.count < self.config.revive_below * self.count.mean(), y, draw)
        chosen = self.nearest(y)
        count, total = gather(y, chosen, len(self.codes))
        share = max(1 / age, 1 - self.config.decay)  # at first the mean of all batches so far
        self.count.lerp_(count, share)
        if average:  # sums are count * codes, so that only the counts are kept beside the codes
            self.codes += share * (total - count[:, None] * self.codes) / self.count[:, None].clamp(min=1e-5)
        return x - self.vectors()[chosen]

    def kmeans(self, x: Tensor, draw: Generator, rounds: int = 10) -> None:
        """Lloyd's algorithm over x [N, D] from V of them at random; a code that none chooses becomes another of them."""
        V = len(self.codes)
        order = torch.randperm(len(x), generator=draw, device=x.device)
        self.codes.copy_(x[order.repeat(-(-V // len(x)))[:V]])
        for _ in range(rounds):
            count, total = gather(x, self.nearest(x), V)
            self.codes.copy_(total / count[:, None].clamp(min=1))
            self.replace(count == 0, x, draw)

    def replace(self, dead: Tensor, x: Tensor, draw: Generator) -> None:
        """Codes where dead [V] become random ones of x [N, D], and count as used like any other."""
        self.codes[dead] = x[torch.randint(len(x), (int(dead.sum()),), generator=draw, device=x.device)]
        self.count[dead] = self.count.mean()


class FactorisedBook(Book):
    """Codes of a few numbers, looked up by angle and learnt by gradient: more of them stay in use (DAC, section 3.2)."""

    def __init__(self, config: RVQConfig) -> None:
        super().__init__(config)
        self.enter = nn.Linear(config.dim, config.code_dim)
        self.leave = nn.Linear(config.code_dim, config.dim)
        self.codes = nn.Parameter(torch.randn(config.size, config.code_dim))

    def forward(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.down(x)  # [B, T, D]
        chosen = self.nearest(x)
        code = F.embedding(chosen, self.codes)  # [B, T, D]
        loss = self.config.commitment * distance(x, code.detach(), real) + distance(x.detach(), code, real)
        # DAC hands the gradient to x alone; here the codes have it too, so that a loss on the vectors can teach them.
        return self.leave(code + (x - x.detach())), chosen, loss

    def down(self, x: Tensor) -> Tensor:
        y: Tensor = self.enter(x)
        return y

    @torch.no_grad()
    def nearest(self, x: Tensor) -> Tensor:
        return (x @ F.normalize(self.codes).T).argmax(-1)  # the length of x changes no order

    def vectors(self) -> Tensor:
        table: Tensor = self.leave(self.codes)
        return table

    def orient(self, x: Tensor) -> None:
        """Along the principal directions of x: with those, D numbers say most."""
        mean = x.mean(0)
        _, directions = torch.linalg.eigh((x - mean).T @ (x - mean))  # [C, C], the least first
        basis = directions[:, -self.config.code_dim :]  # [C, D]
        self.enter.weight.copy_(basis.T)
        self.enter.bias.copy_(-mean @ basis)
        self.leave.weight.copy_(basis)
        self.leave.bias.copy_(mean)


class AveragedBook(Book):
    """Codes that are moving averages of the vectors that chose them, looked up by distance (EnCodec)."""

    def __init__(self, config: RVQConfig) -> None:
        super().__init__(config)
        self.register_buffer("codes", torch.randn(config.size, config.dim))

    def forward(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chosen = self.nearest(x)
        code = F.embedding(chosen, self.codes)  # [B, T, C]
        return code, chosen, self.config.commitment * distance(x, code, real)

    def down(self, x: Tensor) -> Tensor:
        return x

    @torch.no_grad()
    def nearest(self, x: Tensor) -> Tensor:
        return (x @ self.codes.T - 0.5 * self.codes.square().sum(1)).argmax(-1)

    def vectors(self) -> Tensor:
        return self.codes


class ResidualVQ(Quantizer):
    """A Quantizer of `codebooks` books in a row."""

    batches: Tensor  # [] int64: training batches seen

    def __init__(self, config: RVQConfig = RVQConfig()) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.sizes = (config.size,) * config.codebooks
        kind = FactorisedBook if config.codes == "factorised" else AveragedBook
        self.books = nn.ModuleList(kind(config) for _ in range(config.codebooks))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor, lengths: Tensor | None = None, n_codebooks: Tensor | None = None) -> Quantized:
        """As Quantizer.forward; losses: "commit", the commitment and, of factorised codes, the codes' own distance."""
        B, _, T = z.shape
        K = len(self.books)
        if n_codebooks is None and self.training and self.config.dropout > 0:
            n_codebooks = draw_codebooks(B, K, self.config.dropout, z.device)
        real = z.new_ones(B, T, dtype=torch.bool) if lengths is None else frame_mask(lengths, T)
        with torch.autocast(z.device.type, enabled=False):
            left = z.float().transpose(1, 2)  # [B, T, C]
            if self.training:
                self._learn(left.detach()[real])
                if self.batches <= self.config.warmup:
                    codes = torch.zeros(B, K, T, dtype=torch.int64, device=z.device)
                    return Quantized(z, codes, z, {"commit": z.new_zeros(())})
            # Averaged codes know no gradient, so it goes around them; factorised books hand it on themselves.
            total = left - left.detach() if self.config.codes == "ema" else torch.zeros_like(left)
            first, commit, chosen = total, left.new_zeros(()), []
            for k, book in enumerate(self.books):
                q, codes, loss = book(left, real)
                left = left - q
                total = total + (q if n_codebooks is None else q * (n_codebooks > k)[:, None, None])
                first = first + q if k == 0 else first
                commit = commit + loss / K
                chosen.append(codes)
        return Quantized(total.transpose(1, 2), torch.stack(chosen, 1), first.transpose(1, 2), {"commit": commit})

    @torch.no_grad()
    def _learn(self, x: Tensor) -> None:
        """Hand a batch of vectors x [N, C] from book to book; each gets its first one in the second half of the warmup."""
        self.batches += 1
        x = everywhere(x)
        draw = Generator(x.device).manual_seed(int(self.batches))  # the same on every device that trains
        K, warmup, now = len(self.books), self.config.warmup, int(self.batches)
        lesson = max(1, warmup // (2 * K))  # batches that a book has before the next one is started
        for k, book in enumerate(self.books):
            age = now - (warmup - (K - k) * lesson)
            if age < 1:
                return
            assert isinstance(book, Book)
            x = book.learn(x, age, self.config.codes == "ema" or now <= warmup, draw)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        codes = []
        with torch.autocast(z.device.type, enabled=False):
            left = z.float().transpose(1, 2)  # [B, T, C]
            for book in self.books:
                assert isinstance(book, Book)
                chosen = book.nearest(book.down(left))
                left = left - F.embedding(chosen, book.vectors())
                codes.append(chosen)
        return torch.stack(codes, 1)

    def vectors(self, k: int) -> Tensor:
        book = self.books[k]
        assert isinstance(book, Book)
        return book.vectors()


def everywhere(x: Tensor) -> Tensor:
    """The vectors [N, C] of all devices that train together, so that each makes the same books of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    counts = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor([len(x)], device=x.device))
    most = max(int(count) for count in counts)
    parts = [x.new_empty(most, x.shape[1]) for _ in counts]
    distributed.all_gather(parts, F.pad(x, (0, 0, 0, most - len(x))))
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def gather(x: Tensor, chosen: Tensor, V: int) -> tuple[Tensor, Tensor]:
    """How many of the vectors x [N, D] chose each of V codes, [V] float, and the sum of those, [V, D]."""
    count = torch.bincount(chosen, minlength=V).to(x.dtype)
    return count, x.new_zeros(V, x.shape[1]).index_add_(0, chosen, x)


def distance(x: Tensor, y: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of x and y [B, T, D] over the real frames [B, T]."""
    return ((x - y).square().mean(-1) * real).sum() / real.sum().clamp(min=1)
