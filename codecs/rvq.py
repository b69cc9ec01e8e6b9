"""Residual vector quantization: each codebook codes what the ones before it have left over.

    z ──┬─► book 0 ─► q0          z is close to q0 + q1 + … : any number of the first books decodes
        └ - q0 ─┬─► book 1 ─► q1
                └ - q1 ─► …

The first batches in training pass as they are, so that there is something worth coding; then k-means over one batch starts each
book on the residuals that the books before it leave. From there the books learn with the rest of the network.
Sources: Zeghidour et al. 2021, SoundStream (arXiv:2107.03312): the residual loop, k-means, quantizer dropout; Défossez et
al. 2022, EnCodec (arXiv:2210.13438): averaged codes, dead ones revived; Kumar et al. 2023, DAC (arXiv:2306.06546): factorised
codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
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
    warmup: int = 200  # training batches that pass unquantized before k-means starts the books
    revive_after: int = 20  # batches in which a code was not used; then it becomes a random vector of the batch
    dropout: float = 0.5  # share of the rows in training that read fewer codebooks, where the caller draws no number

    def __post_init__(self) -> None:
        if self.codes not in ("factorised", "ema"):
            raise SettingsError(f"codes must be 'factorised' or 'ema', got {self.codes!r}")
        if min(self.dim, self.codebooks, self.size, self.code_dim) < 1 or self.code_dim > self.dim:
            raise SettingsError("dim, codebooks, size and code_dim must be at least 1, and code_dim at most dim")


class Book(nn.Module, ABC):
    """One codebook. Its codes live in D numbers: `down` leads there from the C of the vectors, `up` back."""

    codes: Tensor  # [V, D]
    idle: Tensor  # [V] int64: training batches since each code was used

    def __init__(self, config: RVQConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("idle", torch.zeros(config.size, dtype=torch.int64))

    @abstractmethod
    def forward(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, C] and which of its frames are real [B, T] to vectors [B, T, C], codes [B, T] and a loss.

        In training, the real frames move averaged codes and are noted as use.
        """

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

    @torch.no_grad()
    def prepare(self, x: Tensor, starting: bool) -> None:
        """Before a training batch of vectors x [N, C]: start the codes by k-means, or revive the dead ones."""
        if starting:
            self.orient(x)
            self.kmeans(self.down(x))
        elif bool((self.idle > self.config.revive_after).any()):
            self.replace(self.idle > self.config.revive_after, self.down(x))

    def kmeans(self, x: Tensor, rounds: int = 10) -> None:
        """Lloyd's algorithm over x [N, D] from V of them at random; a code that none chooses becomes another of them."""
        V = len(self.codes)
        order = torch.randperm(len(x), device=x.device)
        self.codes.copy_(x[order.repeat(-(-V // len(x)))[:V]])
        for _ in range(rounds):
            count, total = gather(x, self.nearest(x), V)
            self.codes.copy_(total / count[:, None].clamp(min=1))
            self.replace(count == 0, x)

    def replace(self, dead: Tensor, x: Tensor) -> None:
        """Codes where dead [V] become random ones of x [N, D], as if just used."""
        self.codes[dead] = x[torch.randint(len(x), (int(dead.sum()),), device=x.device)]
        self.idle[dead] = 0

    def note(self, chosen: Tensor) -> None:
        """Codes [N] have been used by a training batch."""
        used = torch.bincount(chosen, minlength=len(self.codes)) > 0
        self.idle.add_(1).masked_fill_(used, 0)


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
        if self.training:
            self.note(chosen[real])
        code = F.embedding(chosen, self.codes)  # [B, T, D]
        towards_code = distance(x, code.detach(), real)
        towards_x = distance(x.detach(), code, real)
        # DAC hands the gradient to x alone; here the codes have it too, so that a loss on the vectors can teach them.
        q = self.leave(code + (x - x.detach()))
        return q, chosen, self.config.commitment * towards_code + towards_x

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

    count: Tensor  # [V] how many choose each code in a batch, averaged

    def __init__(self, config: RVQConfig) -> None:
        super().__init__(config)
        self.register_buffer("codes", torch.randn(config.size, config.dim))
        self.register_buffer("count", torch.ones(config.size))

    def forward(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chosen = self.nearest(x)
        code = F.embedding(chosen, self.codes)  # [B, T, C]
        if self.training:
            self.note(chosen[real])
            self.average(x.detach()[real], chosen[real])
        return code, chosen, self.config.commitment * distance(x, code, real)

    def down(self, x: Tensor) -> Tensor:
        return x

    @torch.no_grad()
    def nearest(self, x: Tensor) -> Tensor:
        return (x @ self.codes.T - 0.5 * self.codes.square().sum(1)).argmax(-1)

    def vectors(self) -> Tensor:
        return self.codes

    def replace(self, dead: Tensor, x: Tensor) -> None:
        super().replace(dead, x)
        self.count[dead] = 1.0

    def average(self, x: Tensor, chosen: Tensor) -> None:
        """One step of the averages over x [N, C]. Their sums are count * codes, so that only the counts are kept beside."""
        count, total = gather(x, chosen, len(self.codes))
        share = 1 - self.config.decay
        self.count.lerp_(count, share)
        self.codes += share * (total - count[:, None] * self.codes) / self.count[:, None].clamp(min=1e-5)


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
        starting = False
        if self.training:
            self.batches += 1
            if self.batches <= self.config.warmup:
                return Quantized(z, torch.zeros(B, K, T, dtype=torch.int64, device=z.device), z, {"commit": z.new_zeros(())})
            starting = bool(self.batches == self.config.warmup + 1)
        real = z.new_ones(B, T, dtype=torch.bool) if lengths is None else frame_mask(lengths, T)
        with torch.autocast(z.device.type, enabled=False):
            left = z.float().transpose(1, 2)  # [B, T, C]
            # Averaged codes know no gradient, so it goes around them; factorised books hand it on themselves.
            total = left - left.detach() if self.config.codes == "ema" else torch.zeros_like(left)
            first, commit, codes = total, z.new_zeros((), dtype=torch.float32), []
            for k, book in enumerate(self.books):
                assert isinstance(book, Book)
                if self.training:
                    book.prepare(left.detach()[real], starting)
                q, chosen, loss = book(left, real)
                left = left - q
                total = total + (q if n_codebooks is None else q * (n_codebooks > k)[:, None, None])
                first = first + q if k == 0 else first
                commit = commit + loss / K
                codes.append(chosen)
        return Quantized(total.transpose(1, 2), torch.stack(codes, 1), first.transpose(1, 2), {"commit": commit})

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


def gather(x: Tensor, chosen: Tensor, V: int) -> tuple[Tensor, Tensor]:
    """How many of the vectors x [N, D] chose each of V codes, [V] float, and the sum of those, [V, D]."""
    count = torch.bincount(chosen, minlength=V).to(x.dtype)
    return count, x.new_zeros(V, x.shape[1]).index_add_(0, chosen, x)


def distance(x: Tensor, y: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of x and y [B, T, D] over the real frames [B, T]."""
    return ((x - y).square().mean(-1) * real).sum() / real.sum().clamp(min=1)
