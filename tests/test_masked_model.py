"""The masked backend: what it promises to those who call it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tts.backends.masked.config import MaskedConfig, MaskedSettings
from tts.backends.masked.draw import MaskedDraw, MaskedDrawConfig, draw
from tts.backends.masked.model import MaskedBackend
from tts.backends.masked.network import Given
from tts.backends.masked.rows import give, make_row
from tts.decoding.commit import FilterConfig
from tts.decoding.masked import Rescoring
from tts.errors import FitError, PromptError, SettingsError, ShapeError, TextError
from tts.frames import Frames, FrameSpec, Plan, Prompt, Tokens, Utterance
from tts.interfaces import Backend, Trainable

V, K = 7, 3
MASKGCT = MaskedConfig(
    vocabulary=9, table="t", codebooks=K, size=V, code_dim=4, dim=16, depth=1, heads=2, head_dim=8, context=60, text_dim=8,
    text_layers=1, stays=3,
)  # fmt: skip
MAGNET = replace(MASKGCT, layout="magnet", norm="layer", positions="sinusoidal", unguided="prompt", bias=True)
PREFIX = replace(MASKGCT, text="prefix", norm="time", gated=True, activation="silu", code_dim=None, text_network=True)
CROSS = replace(MAGNET, text="cross", unguided="text", voice=False)
CONFIGS = [MASKGCT, MAGNET, PREFIX, CROSS]
every = pytest.mark.parametrize("config", CONFIGS, ids=["maskgct", "magnet", "prefix", "cross"])
GREEDY = MaskedSettings(guidance=1.0, temperature=0.0, noise=0.0, steps=1)


def backend(config: MaskedConfig) -> MaskedBackend:
    """Random weights that matter: what is small at the start is not."""
    torch.manual_seed(0)
    model = MaskedBackend(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5 if p.dim() > 1 else 0.2)
    return model


def frames(rows: list[Tensor], config: MaskedConfig) -> Frames:
    lengths = torch.tensor([row.shape[1] for row in rows])
    data = torch.zeros(len(rows), K, int(lengths.max())).long()
    for b, row in enumerate(rows):
        data[b, :, : row.shape[1]] = row
    return Frames(data, lengths, config.spec)


def utterance(rows: list[int], config: MaskedConfig, prompt: bool = True) -> Utterance:
    """Some of three rows of unequal prompts and targets of 7, 11 and 6 frames; the phones of row 1's prompt are not known."""
    generator = torch.Generator().manual_seed(1)
    codes = [torch.randint(0, V, (K, T), generator=generator) for T in (5, 2, 9)]
    ids = [[1, 2, 3], [4, 5, 6, 7], [8]]
    each = [[3, 0, 4], [5, 1, 4, 1], [6]]
    prompt_ids: list[list[int]] = [[1, 2], [], [3]]
    prompt_frames = [[4, 6], [], [18]]  # of a mel, twice as many

    def column(values: list[list[int]]) -> Tensor:
        return Tokens.of([values[b] for b in rows], "t").ids

    heard = frames([codes[b] for b in rows], config)
    given = Prompt({"codes": heard}, Tokens.of([prompt_ids[b] for b in rows], "t"), heard.lengths / 25, column(prompt_frames))
    T = torch.tensor([sum(each[b]) for b in rows])
    plan = Plan(T.double() / 25, column(each).double() / 25)
    seeds = torch.tensor([7, 2**40, 3])[rows]
    return Utterance(Tokens.of([ids[b] for b in rows], "t"), seeds, given if prompt else None, plan)


def nothing_random(book: int, given: list[int], lengths: Tensor) -> MaskedDraw:
    """All frames of a book masked but for a prompt."""
    B, T = len(lengths), int(lengths.max())
    t = torch.arange(T)
    prompt, no = t < torch.tensor(given)[:, None], torch.zeros(B).bool()
    return MaskedDraw(torch.full((B,), book), (t < lengths[:, None]) & ~prompt, prompt, no, torch.ones(B), no, no)


@every
@pytest.mark.parametrize("settings", [MaskedSettings(), MaskedSettings(guidance=1.0)])
def test_passes_of_a_bucket_say_the_same_codes(config: MaskedConfig, settings: MaskedSettings, monkeypatch) -> None:
    """On a CPU nothing is captured, but all is filled up as for a graph; alone, and in a batch as on a GPU."""
    model, asked = backend(config), utterance([0, 1, 2], config)
    want = model.generate(asked, settings)
    monkeypatch.setenv("MYNAH_PATH", "graph")
    assert torch.equal(model.generate(asked, settings).data, want.data)
    rows = [make_row(config, asked, b, 0, torch.device("cpu")) for b in range(3)]
    with torch.no_grad():
        together = model._speak(rows, settings, None, None)
    assert torch.equal(together.codes, want.data)
    wide = 1 if config.reach is None else 2  # graphs of one shape: books above 0 may look near alone
    assert len(model.graphs.held) == 2 * wide
    model.double()
    assert not model.graphs.held  # their weights have moved


@every
def test_it_is_a_backend_that_can_be_trained(config: MaskedConfig) -> None:
    model = backend(config)
    assert isinstance(model, Backend) and isinstance(model, Trainable)


@every
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_row_alone_and_in_company_has_the_same_codes(config: MaskedConfig, guidance: float) -> None:
    model, settings = backend(config), {"guidance": guidance, "rescale": 0.75, "steps": (2, 1)}
    together = model.generate(utterance([0, 1, 2], config), settings)
    assert together.lengths.tolist() == [7, 11, 6]  # exactly the plan, never the prompt
    for b in range(3):
        alone = model.generate(utterance([b], config), settings)
        assert torch.equal(alone.data[0], together.data[b, :, : int(alone.lengths[0])])


@every
@torch.no_grad()
def test_rows_side_by_side_are_told_what_each_is_told_alone(config: MaskedConfig) -> None:
    model = backend(config)
    rows = [make_row(config, utterance([0, 1, 2], config), b, 0, torch.device("cpu")) for b in range(3)]
    cells, lengths, given = give(model.network, rows, guided=True)
    for book in (0, 1):
        together = model.network.hidden(torch.cat((cells, cells)), book, torch.ones(6), given)
        for b, row in enumerate(rows):
            own, _, alone = give(model.network, [row], guided=True)
            hidden = model.network.hidden(torch.cat((own, own)), book, torch.ones(2), alone)
            for group in range(2):
                assert torch.allclose(hidden[group], together[3 * group + b, : int(lengths[b])], rtol=1e-3, atol=1e-4)


@every
@pytest.mark.parametrize("prompt", [True, False])
def test_it_says_what_the_loss_finds_least_surprising(config: MaskedConfig, prompt: bool) -> None:
    """Prompt, text and voice stand where training has them: the greedy codes of one pass are the maxima of the whole row."""
    model, asked = backend(config), utterance([0], config, prompt)
    made = model.generate(asked, GREEDY)
    P = 5 if prompt else 0
    row = made.data if asked.prompt is None else torch.cat((asked.prompt.frames["codes"].data, made.data), 2)
    ids = [1, 2, 1, 2, 3] if prompt else [1, 2, 3]
    each = [2, 3, 3, 0, 4] if prompt else [3, 0, 4]
    T = row.shape[2]
    whole = Utterance(Tokens.of([ids], "t"), torch.zeros(1), plan=Plan(torch.tensor([T / 25]), torch.tensor([each]) / 25))
    heard: list[Tensor] = []
    model.network.head.register_forward_hook(lambda _module, _given, logits: heard.append(logits))
    for book in range(K):
        model.loss(whole, Frames(row, torch.tensor([T]), config.spec), nothing_random(book, [P], torch.tensor([T])))
    assert torch.equal(torch.stack([logits.argmax(-1) for logits in heard])[None], made.data)


@every
def test_what_is_to_be_kept_is_kept(config: MaskedConfig) -> None:
    model, asked = backend(config), utterance([1], config)
    context = Frames(torch.randint(0, V, (1, K, 11)), torch.tensor([11]), config.spec)
    keep = torch.arange(11)[None] % 4 != 0
    made = model.generate(replace(asked, context=context, keep=keep), {"steps": 2})
    assert torch.equal(made.data[:, :, keep[0]], context.data[:, :, keep[0]])
    other = replace(context, data=(context.data + 1) % V)
    assert not torch.equal(model.generate(replace(asked, context=other, keep=keep), {"steps": 2}).data, made.data)
    # Pheme: book 0 is said by another model, the others here
    later = model.generate(replace(asked, context=context), {"given_books": 1})
    assert torch.equal(later.data[:, 0], context.data[:, 0]) and not torch.equal(later.data[:, 1:], context.data[:, 1:])


@every
def test_what_lies_beyond_a_row_does_not_matter(config: MaskedConfig) -> None:
    model, asked = backend(config), replace(utterance([0, 1], config), prompt=None)
    codes, lengths = torch.randint(0, V, (2, K, 11)), torch.tensor([7, 11])
    noise = draw(lengths, K, generator=torch.Generator().manual_seed(0))
    other = codes.clone()
    other[0, :, 7:] = 0
    first, second = (model.loss(asked, Frames(x, lengths, config.spec), noise) for x in (codes, other))
    assert {name: value.item() for name, value in first.items()} == {name: value.item() for name, value in second.items()}


@torch.no_grad()
def test_later_books_look_no_farther_than_their_band() -> None:
    network = backend(replace(MAGNET, depth=2)).network
    N = 30
    cells = torch.randint(0, V, (2, K, N))
    cells[1, :, : N - 1] = cells[0, :, : N - 1]
    cells[1, :, N - 1] = (cells[0, :, N - 1] + 1) % V
    given = Given(torch.zeros(2, K, 0).long(), torch.ones(2, N).bool(), torch.zeros(2, N, 8))
    for book in range(K):
        one, other = network.hidden(cells, book, torch.ones(2), given)
        changed = (one != other).any(-1).nonzero()[:, 0].tolist()
        assert changed == (list(range(N)) if book == 0 else list(range(N - 1 - 2 * 5, N)))


@every
def test_it_speaks_in_half_precision(config: MaskedConfig) -> None:
    model, asked = backend(config).bfloat16(), utterance([0], config)
    assert model.generate(asked, {"guidance": 2.0, "rescale": 0.75}).lengths.tolist() == [7]


def test_an_untrained_model_knows_nothing() -> None:
    for config in CONFIGS:
        torch.manual_seed(0)
        config = replace(config, size=512, dim=64, heads=1, head_dim=64)
        lengths = torch.tensor([40])
        asked = Utterance(Tokens.of([[1]], "t"), torch.zeros(1), plan=Plan(torch.tensor([1.6]), torch.tensor([[1.6]])))
        target = Frames(torch.randint(0, 512, (1, K, 40)), lengths, config.spec)
        losses = MaskedBackend(config).loss(asked, target, draw(lengths, K))
        assert abs(losses["loss"].item() - torch.tensor(512.0).log().item()) < 1.0


@pytest.mark.parametrize("config", [MASKGCT, MAGNET], ids=["maskgct", "magnet"])
def test_a_sentence_that_was_learnt_is_said(config: MaskedConfig) -> None:
    torch.manual_seed(0)
    model, asked = MaskedBackend(config), utterance([1] * K, config, prompt=False)
    codes, lengths = torch.randint(0, V, (1, K, 11)), torch.full((K,), 11)
    target = Frames(codes.expand(K, -1, -1), lengths, config.spec)
    noise = replace(nothing_random(0, [0] * K, lengths), book=torch.arange(K))  # a row for each book
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(asked, target, noise)["loss"].backward()
        optimizer.step()
    model.eval()
    assert torch.equal(model.generate(utterance([1], config, prompt=False), GREEDY).data, codes)


def test_short_texts_take_fewer_passes_unless_a_person_sets_them() -> None:
    model, asked = backend(MASKGCT), utterance([2], MASKGCT)
    assert K <= int(model.decode(asked)[2]) <= 6 + 4 + 1  # of 16 + 4 + 1
    with pytest.raises(SettingsError, match="20 steps for 6 frames"):
        model.generate(asked, {"steps": 20})


def test_a_filter_commits_early_and_another_model_rescores() -> None:
    model, asked = backend(replace(MASKGCT, filter=FilterConfig(block=4, hidden=4))), utterance([1], MASKGCT)
    assert model.filter is not None
    usual = model.decode(asked, {"commit": "confidence"})
    torch.nn.init.constant_(model.filter.layers[-1].bias, 1e4)  # every cell is believed
    assert model.decode(asked, {"commit": "learned"})[2].tolist() == [K]
    torch.nn.init.constant_(model.filter.layers[-1].bias, -1e4)
    assert torch.equal(model.decode(asked, {"commit": "learned"})[0], usual[0])
    books: list[int] = []
    model.rescored(asked, None, Rescoring(lambda book, _codes, own: [books.append(book), own][1], 0.5))  # type: ignore[list-item]
    assert set(books) == set(range(K))
    with pytest.raises(SettingsError, match="no filter"):
        backend(MASKGCT).generate(asked, {"commit": "learned"})


def test_a_draw_is_what_its_generator_says() -> None:
    lengths, joins = torch.randint(20, 51, (600,)), torch.full((600,), 10)
    for config in (MaskedDrawConfig(), MaskedDrawConfig(rate="cosine", books="uniform", span=3)):
        one, two = (draw(lengths, 4, config, torch.Generator().manual_seed(3), joins) for _ in range(2))
        assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in MaskedDraw.__dataclass_fields__)
        real = torch.arange(50) < lengths[:, None]
        assert not (one.masked & ~real).any() and not (one.masked & one.given).any() and one.masked.any(1).all()
        assert not one.given[one.drop_text].any()
        share = torch.bincount(one.book, minlength=4) / 600
        expected = torch.tensor([0.4, 0.3, 0.2, 0.1] if config.books == "linear" else [0.25] * 4)
        assert (share - expected).abs().max() < 0.07
        open_ = real & ~one.given
        rate = ((one.masked.sum(1) / open_.sum(1)) * (open_.sum(1) > 10)).sum() / (open_.sum(1) > 10).sum()
        assert abs(rate - 2 / torch.pi) < 0.06  # the mean of a quarter of a sine
    again = draw(lengths, 4, MaskedDrawConfig(given_books=1, first_book=0.9), torch.Generator().manual_seed(0))
    assert again.book.min() == 1
    half = draw(lengths, 4, MaskedDrawConfig(first_book=0.5), torch.Generator().manual_seed(0))
    assert abs((half.book == 0).float().mean() - 0.5) < 0.06


def test_spans_are_whole_but_where_they_meet_what_is_given() -> None:
    lengths = torch.full((50,), 60)
    config = MaskedDrawConfig(span=3, drop_prompt=1.0, infill=0.0)
    for row in draw(lengths, 4, config, torch.Generator().manual_seed(0)).masked:
        edges = torch.diff(row.int(), prepend=torch.tensor([0]), append=torch.tensor([0]))
        runs = (edges == -1).nonzero()[:, 0] - (edges == 1).nonzero()[:, 0]
        whole = runs if not row[-1] else runs[:-1]
        assert (whole >= 3).all()


@torch.no_grad()
def test_frames_masked_in_a_tube_tell_nothing_in_any_book() -> None:
    model, asked = backend(MASKGCT), replace(utterance([1], MASKGCT), prompt=None)
    codes, lengths = torch.randint(0, V, (1, K, 11)), torch.tensor([11])
    noise = replace(nothing_random(1, [0], lengths), masked=(torch.arange(11) % 2 == 0)[None])
    other = codes.clone()
    other[:, 0, ::2] = (codes[:, 0, ::2] + 1) % V  # of book 0, where book 1 is masked
    for tube in (False, True):
        given = replace(noise, tube=torch.tensor([tube]))
        one, two = (model.loss(asked, Frames(x, lengths, MASKGCT.spec), given)["loss"] for x in (codes, other))
        assert (one == two).item() == tube


def test_what_cannot_be_spoken_is_told() -> None:
    model, asked = backend(MASKGCT), utterance([0], MASKGCT)
    assert asked.prompt is not None and asked.plan is not None
    with pytest.raises(FitError, match="needs a plan"):
        model.generate(replace(asked, plan=None))
    with pytest.raises(FitError, match="seconds of each token"):
        model.generate(replace(asked, plan=Plan(asked.plan.seconds)))
    with pytest.raises(FitError, match="symbol table 'other'"):
        model.generate(replace(asked, tokens=Tokens.of([[1]], "other")))
    with pytest.raises(FitError, match="needs the prompt's codes"):
        model.generate(replace(asked, prompt=replace(asked.prompt, frames={})))
    with pytest.raises(FitError, match="given none"):
        model.generate(asked, {"given_books": 1})
    codes = asked.prompt.frames["codes"]
    other = Frames(codes.data, codes.lengths, replace(MASKGCT, flavour="another").spec)
    with pytest.raises(FitError, match="does not fit"):
        model.generate(replace(asked, prompt=replace(asked.prompt, frames={"codes": other})))
    with pytest.raises(FitError, match="does not fit"):
        model.generate(replace(asked, context=other))
    with pytest.raises(ShapeError, match="as long as planned"):
        model.generate(replace(asked, context=codes), {"given_books": 1})
    with pytest.raises(TextError, match="shorter sentences"):
        model.generate(replace(asked, plan=Plan(torch.tensor([4.0]), torch.tensor([[1.0, 1.0, 2.0]]))))
    told = Frames(torch.zeros(1, 8, 2), torch.tensor([2]), FrameSpec("latents", 8, MASKGCT.rate))
    elsewhere = backend(replace(CROSS, vocabulary=0))
    with pytest.raises(TextError, match="shorter sentences"):
        elsewhere.generate(replace(asked, prompt=None, plan=Plan(torch.tensor([4.0])), content=told))
    long = Frames(torch.zeros(1, K, 59).long(), torch.tensor([59]), MASKGCT.spec)
    with pytest.raises(PromptError, match="give a shorter one"):
        model.generate(replace(asked, prompt=replace(asked.prompt, frames={"codes": long})))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": (2, 0)},
        {"schedule": "sin"},
        {"commit": "all"},
        {"repetition_penalty": 1.5},
        {"noise": -1.0},
        {"step": 3},
        {"rescale": 2.0},
        {"span": 0},
        {"given_books": -1},
        {"anneal": "yes"},
        {"last_guidance": -1.0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        MaskedSettings.of(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": "both"},
        {"text": "none"},
        {"code_dim": 0},
        {"norm": "batch"},
        {"head_dim": 7},
        {"vocabulary": 0},
        {"depth": 0},
        {"band": -1},
        {"text": "prefix", "band": 5},
        {"unguided": "all"},
        {"stays": -1},
    ],
)
def test_impossible_models_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        replace(MASKGCT, **wrong)  # type: ignore[arg-type]
