"""The residual quantizer: how its books start, learn, revive, and what gradients and checkpoints carry."""

import pytest
import torch
from torch import Tensor
from tts.codecs.rvq import AveragedBook, Book, FactorisedBook, ResidualVQ, RVQConfig, everywhere

from tts.errors import SettingsError

KINDS = ("factorised", "ema")


def made(codes: str, **changes) -> ResidualVQ:
    torch.manual_seed(0)
    return ResidualVQ(
        RVQConfig(**{"dim": 8, "codebooks": 3, "size": 32, "code_dim": 4, "warmup": 6, "codes": codes, **changes})
    )


def frames(step: int, B: int = 8, T: int = 25, C: int = 8) -> Tensor:
    """Vectors [B, C, T] of unequal variance around a mean that is not zero."""
    x = torch.randn(B, C, T, generator=torch.Generator().manual_seed(step))
    return x * torch.linspace(2, 0.5, C)[:, None] + 1


def train(q: ResidualVQ, steps: range, lr: float = 1e-2) -> ResidualVQ:
    """The quantizer as its own autoencoder; every step seeds torch, as the training loop does."""
    q.train()
    for step in steps:
        torch.manual_seed(step)
        x = frames(step)
        out = q(x)
        loss = (out.vectors - x).square().mean() + out.losses["commit"]
        if loss.requires_grad:
            q.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in q.parameters():
                    p -= lr * p.grad
    return q


def perplexity(codes: Tensor, V: int) -> float:
    counts = torch.bincount(codes.flatten(), minlength=V)
    return float(torch.special.entr(counts / counts.sum()).sum().exp())


def books(q: ResidualVQ) -> list[Book]:
    return [book for book in q.books if isinstance(book, Book)]


@pytest.mark.parametrize("codes", KINDS)
def test_on_training_data_each_further_book_lowers_the_error(codes):
    q = train(made(codes), range(20)).eval()
    z = torch.cat([frames(step) for step in range(20)])
    chosen = q.encode(z)
    errors = [float(z.var())] + [float((q.embed(chosen[:, :n]).detach() - z).square().mean()) for n in (1, 2, 3)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.5 * errors[1]


@pytest.mark.parametrize("codes", KINDS)
def test_after_kmeans_every_book_uses_most_of_its_codes(codes):
    q = train(made(codes, warmup=12), range(12)).eval()
    z = torch.cat([frames(100 + step) for step in range(10)])  # not what the books started from
    for chosen in q.encode(z).unbind(1):
        assert perplexity(chosen, 32) > 16


@pytest.mark.parametrize("codes", KINDS)
def test_the_books_start_one_after_another_in_the_second_half_of_the_warmup(codes):
    q = made(codes, warmup=6)
    before = [book.codes.clone() for book in books(q)]
    started = []
    for step in range(6):
        x = frames(step)
        out = train_step(q, x)
        assert torch.equal(out.vectors, x)
        assert torch.equal(out.first, x)
        assert float(out.losses["commit"]) == 0
        started.append([not torch.equal(a, book.codes) for a, book in zip(before, books(q), strict=True)])
    assert started == [[False] * 3] * 3 + [[True, False, False], [True, True, False], [True, True, True]]
    assert not torch.equal(train_step(q, frames(6)).vectors, frames(6))


def train_step(q: ResidualVQ, x: Tensor, **arguments):
    q.train()
    torch.manual_seed(0)
    return q(x, **arguments)


@pytest.mark.parametrize("codes", KINDS)
def test_a_run_that_was_killed_continues_to_the_same_bits(codes):
    whole = train(made(codes), range(12))
    for kill in (4, 5, 9):  # within the warmup, where a book starts, and after it
        first = train(made(codes), range(kill))
        second = made(codes)
        second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
        train(second, range(kill, 12))
        for name, value in whole.state_dict().items():
            assert torch.equal(value, second.state_dict()[name]), (kill, name)


@pytest.mark.parametrize("codes", KINDS)
def test_devices_that_train_together_make_the_same_books(codes, monkeypatch):
    """Two ranks have other rows and other seeds each; both see the rows of both."""
    rows = [frames(step) for step in range(2)]
    both = torch.cat([x.transpose(1, 2).flatten(0, 1) for x in rows])
    monkeypatch.setattr("tts.codecs.rvq.everywhere", lambda x: both)
    ranks = [made(codes, warmup=3) for _ in range(2)]
    for step in range(6):
        for rank, q in enumerate(ranks):
            torch.manual_seed(2 * step + rank)
            q.train()(rows[rank])
    for name, value in ranks[0].state_dict().items():
        assert torch.equal(value, ranks[1].state_dict()[name]), name


def test_the_vectors_of_all_devices_are_gathered_in_order(tmp_path):
    x = torch.randn(5, 3)
    assert everywhere(x) is x
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        assert torch.equal(everywhere(x), x)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("codes", KINDS)
def test_a_dead_code_comes_back_as_a_vector_of_the_batch(codes):
    q = train(made(codes, codebooks=1), range(8))
    book = books(q)[0]
    with torch.no_grad():
        book.codes[3] = 1e3 if codes == "ema" else -book.codes.mean(0)
        book.count[3] = 0.01 * book.count.mean()
    x = frames(9)
    train_step(q, x)
    down = book.down(x.transpose(1, 2).flatten(0, 1))
    distance = float((down - book.codes[3]).detach().norm(dim=1).min())
    assert distance < (0.1 if codes == "ema" else 1e-5)  # an averaged one moves on, by a hundredth, with the same batch
    assert float(book.count[3]) > 0.5 * float(book.count.mean())


@pytest.mark.parametrize("codes", KINDS)
def test_frames_beyond_a_row_s_end_count_in_no_loss_and_no_statistic(codes):
    junk = [train(made(codes), range(7)) for _ in range(2)]
    lengths = torch.tensor([25, 25, 25, 25, 25, 25, 25, 10])
    clean, dirty = frames(7), frames(7)
    dirty[-1, :, 10:] = 1e3
    results = [train_step(q, x, lengths=lengths) for q, x in zip(junk, (clean, dirty), strict=True)]
    assert torch.equal(results[0].losses["commit"], results[1].losses["commit"])
    for name, value in junk[0].state_dict().items():
        assert torch.equal(value, junk[1].state_dict()[name]), name


def test_a_recognition_loss_reaches_the_encoder_and_the_first_book_only():
    q = train(made("factorised"), range(7))
    q.zero_grad()
    z = frames(7).requires_grad_()
    out = train_step(q, z)
    used = out.codes[:, 0].unique()
    (out.first * torch.randn(8)[:, None]).sum().backward()
    assert z.grad is not None
    assert float(z.grad.abs().sum()) > 0
    first, *others = q.books
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in first.parameters())
    moved = first.codes.grad.abs().sum(1) > 0
    assert torch.equal(moved.nonzero()[:, 0], used)
    assert all(p.grad is None for book in others for p in book.parameters())


def test_the_gradient_goes_around_averaged_codes_unchanged():
    q = train(made("ema"), range(7))
    for part in ("first", "vectors"):
        z = frames(7).requires_grad_()
        getattr(train_step(q, z), part).sum().backward()
        assert torch.equal(z.grad, torch.ones_like(z))


def test_vectors_are_what_the_gradient_of_a_backend_can_train():
    q = made("factorised")
    q.vectors(1).sum().backward()
    assert float(q.books[1].codes.grad.abs().sum()) > 0
    assert q.books[0].codes.grad is None


@pytest.mark.parametrize("codes", KINDS)
def test_a_lookup_is_the_nearest_code_by_its_own_measure(codes):
    q = made(codes, codebooks=1)
    book = books(q)[0]
    codebook = book.codes.detach()
    x = torch.randn(50, codebook.shape[1])
    for n, chosen in enumerate(book.nearest(x).tolist()):
        if codes == "ema":
            best = min(range(32), key=lambda v: float((x[n] - codebook[v]).norm()))
        else:
            best = max(range(32), key=lambda v: float(torch.cosine_similarity(x[n], codebook[v], dim=0)))
        assert chosen == best


def test_averaged_codes_are_the_mean_of_what_chose_them_with_old_batches_decayed():
    q = train(made("ema", codebooks=1, decay=0.7, size=4), range(8))
    book = books(q)[0]
    assert isinstance(book, AveragedBook)
    sums = book.count[:, None] * book.codes
    expected_count, expected_sum = 0.7 * book.count, 0.7 * sums
    x = frames(8).transpose(1, 2).flatten(0, 1)
    for vector, code in zip(x, book.nearest(x).tolist(), strict=True):
        expected_count[code] += 0.3
        expected_sum[code] += 0.3 * vector
    train_step(q, frames(8))
    torch.testing.assert_close(book.count, expected_count)
    torch.testing.assert_close(book.codes, expected_sum / expected_count[:, None])


def test_factorised_books_start_along_the_principal_directions():
    """With as many numbers as vectors have, and a code for each, nothing is lost."""
    q = made("factorised", codebooks=1, size=200, code_dim=8, warmup=1)
    x = frames(0)
    train_step(q, x)
    book = books(q)[0]
    assert isinstance(book, FactorisedBook)
    torch.testing.assert_close(book.leave(book.down(x.transpose(1, 2))).transpose(1, 2), x)
    narrow = made("factorised", codebooks=1, code_dim=1, warmup=1)
    train_step(narrow, x)
    assert int(narrow.books[0].enter.weight.abs().argmax()) == 0  # the channel of the greatest variance


def test_dropout_lets_some_rows_read_fewer_books_in_training_only():
    q = train(made("factorised", dropout=0.5), range(7))
    x = frames(7, B=200, T=1)
    out = train_step(q, x)
    whole = q.embed(out.codes)
    full = (out.vectors - whole).abs().amax((1, 2)) < 1e-5
    assert 100 < int(full.sum()) < 180  # a half, and a third of the other half
    q.eval()
    torch.testing.assert_close(q(x).vectors, q.embed(q(x).codes))


def test_codes_are_found_in_full_precision_under_autocast():
    q = train(made("factorised"), range(7)).eval()
    x = frames(7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(q.encode(x), q(x).codes)
        assert q(x).vectors.dtype == torch.float32
        inside = q.encode(x)
    assert torch.equal(inside, q.encode(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": "kmeans"}, "'factorised' or 'ema', got 'kmeans'"),
        ({"code_dim": 9, "dim": 8}, "code_dim at most dim"),
        ({"codebooks": 0}, "at least 1"),
        ({"warmup": 7}, "a batch or more for each of 8 codebooks, got 7"),
    ],
)
def test_an_impossible_config_is_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        RVQConfig(**changes)
