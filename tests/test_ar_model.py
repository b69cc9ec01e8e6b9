"""The autoregressive backend: what it promises to those who call it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tts.backends.ar.config import ARConfig, ARSettings
from tts.backends.ar.draw import ARDraw, ARDrawConfig, draw
from tts.backends.ar.heads import DepthHead
from tts.backends.ar.model import ARBackend
from tts.backends.ar.rows import begin, make_row
from tts.decoding import autoregressive, captured
from tts.decoding.autoregressive import decode, gather
from tts.errors import FitError, PromptError, SettingsError, TextError
from tts.frames import Frames, Plan, Prompt, Tokens, Utterance
from tts.interfaces import Backend, Streaming, Trainable

DELAY = ARConfig(
    vocabulary=9, table="t", codebooks=3, size=7, dim=16, depth=1, heads=2, head_dim=8, dropout=0.0, context=60,
    text_dim=8, text_layers=1, stays=3, code_dim=4, depth_dim=8, depth_layers=1, depth_heads=2,
)  # fmt: skip
DEPTH = replace(DELAY, head="hierarchical")
PREFIX = replace(DELAY, text="prefix", end=True, positions="sinusoidal", norm="rms")
CROSS = replace(DELAY, text="cross", code_dim=None, delays=(0, 0, 2), bias=True)
LEFT = replace(DEPTH, left=3)
ENCODER = replace(LEFT, encoder_layers=1)
BARE = replace(PREFIX, head="hierarchical", code_dim=None, voice=False)
CONFIGS = [DELAY, DEPTH, LEFT, ENCODER, replace(DELAY, encoder_layers=2), PREFIX, CROSS, BARE]
NAMES = ["delay", "depth", "left", "encoder", "delay-encoder", "prefix", "cross", "depth-prefix"]
every = pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
GREEDY = ARSettings(temperature=0.0, guidance=1.0)
V = 7


def backend(config: ARConfig) -> ARBackend:
    """Random weights that matter: what is small at the start is not."""
    torch.manual_seed(0)
    model = ARBackend(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5 if p.dim() > 1 else 0.2)
    return model


def utterance(rows: list[int], config: ARConfig, prompt: bool = True) -> Utterance:
    """Some of three rows of unequal prompts and targets; the phones of row 1's prompt are not known."""
    generator = torch.Generator().manual_seed(1)
    codes = [torch.randint(0, V, (3, T), generator=generator) for T in (5, 2, 9)]
    ids = [[1, 2, 3], [4, 5, 6, 7], [8]]
    frames = [[3, 0, 4], [5, 1, 4, 1], [6]]
    prompt_ids: list[list[int]] = [[1, 2], [], [3]]
    prompt_frames = [[4, 6], [], [18]]  # of a mel, twice as many

    def column(values: list[list[int]]) -> Tensor:
        return Tokens.of([values[b] for b in rows], "t").ids

    lengths = torch.tensor([codes[b].shape[1] for b in rows])
    data = torch.zeros(len(rows), 3, int(lengths.max())).long()
    for k, b in enumerate(rows):
        data[k, :, : codes[b].shape[1]] = codes[b]
    given = Prompt(
        {"codes": Frames(data, lengths, config.spec)},
        Tokens.of([prompt_ids[b] for b in rows], "t"),
        lengths / 25,
        column(prompt_frames),
    )
    T = torch.tensor([sum(frames[b]) for b in rows])
    plan = Plan(T.double() / 25, column(frames).double() / 25)
    seeds = torch.tensor([7, 2**40, 3])[rows]
    return Utterance(Tokens.of([ids[b] for b in rows], "t"), seeds, given if prompt else None, plan)


def nothing_random(prompt: list[int], T: int) -> ARDraw:
    no = torch.zeros(len(prompt)).bool()
    return ARDraw(torch.tensor(prompt), no, no, no[:, None].expand(-1, T))


@every
def test_it_is_a_backend_that_streams_and_can_be_trained(config: ARConfig) -> None:
    model = backend(config)
    assert isinstance(model, Backend) and isinstance(model, Trainable) and isinstance(model, Streaming)


@every
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_row_alone_and_in_company_has_the_same_codes(config: ARConfig, guidance: float) -> None:
    model, settings = backend(config), ARSettings(guidance=guidance, repetition_penalty=1.5)
    together = model.generate(utterance([0, 1, 2], config), settings)
    if config.text == "aligned":
        assert together.lengths.tolist() == [7, 11, 6]  # exactly the plan, never the prompt
    rows = [make_row(config, utterance([0, 1, 2], config), b, torch.device("cpu")) for b in range(3)]
    with torch.no_grad():
        stacked, lengths = gather(decode(*begin(model.network, rows, settings, model.noise)), 3, 3, V)
    assert torch.equal(stacked, together.data) and torch.equal(lengths, together.lengths)
    for b in range(3):
        alone = model.generate(utterance([b], config), settings)
        assert torch.equal(alone.data[0], together.data[b, :, : int(alone.lengths[0])])


@every
def test_what_does_not_fit_the_context_is_refused_in_words(config: ARConfig) -> None:
    model = backend(replace(config, context=20))
    seconds = torch.tensor([[1.0, 0.0, 1.0]])
    long = replace(utterance([0], config), plan=Plan(seconds.sum(1), seconds if config.text == "aligned" else None))
    with pytest.raises(TextError, match="shorter sentences"):
        model.generate(long)
    with pytest.raises(TextError, match="shorter sentences"):
        model.log_probs(long, Frames(torch.zeros(1, 3, 40).long(), torch.tensor([40]), config.spec))


@torch.no_grad()
def test_an_encoder_knows_all_of_the_plan_and_the_order_of_its_frames() -> None:
    model, asked = backend(ENCODER), utterance([0], ENCODER)
    codes = model.generate(asked, GREEDY)
    some = replace(codes, data=codes.data[..., :4], lengths=torch.tensor([4]))
    assert torch.allclose(model.log_probs(asked, some), model.log_probs(asked, codes)[..., :4], atol=1e-5)
    network = backend(replace(ENCODER, positions="sinusoidal")).network
    told, nothing, order = torch.randn(1, 5, 16), torch.full((1, 3, 5), V), torch.tensor([2, 0, 4, 1, 3])
    real = torch.ones(1, 5).bool()
    turned = network.encode(nothing, told[:, order], real)
    assert not torch.allclose(turned, network.encode(nothing, told, real)[:, order], atol=1e-3)


@every
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_captured_steps_say_what_the_decoder_says(config: ARConfig, guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU nothing is captured, but the steps are those of the graph: positions, text and clock in tensors."""
    model, settings = backend(config), ARSettings(guidance=guidance)
    asked = utterance([0, 1, 2], config)
    want = model.generate(asked, settings)
    rows = [make_row(config, asked, b, torch.device("cpu")) for b in range(3)]
    network, scores, cache, task = begin(model.network, rows, settings, model.noise)
    assert captured.can(network, task)
    codes, lengths = gather(captured.run(network, scores, cache, task), 3, 3, V)  # rows of unequal prompts
    assert torch.equal(codes, want.data) and torch.equal(lengths, want.lengths)
    monkeypatch.setenv("MYNAH_PATH", "graph")
    monkeypatch.setattr(autoregressive, "decode", None)
    got = model.generate(asked, settings)
    assert torch.equal(got.data, want.data) and torch.equal(got.lengths, want.lengths)
    streamed = list(model.stream(asked, settings))
    assert torch.equal(torch.cat([frame.data for frame in streamed], 2), want.data)


@every
@pytest.mark.parametrize("prompt", [True, False])
def test_it_says_what_the_loss_finds_least_surprising(config: ARConfig, prompt: bool) -> None:
    """Prompt, text, voice and delays stand where training has them: the greedy codes are the maxima of the whole row."""
    config = replace(config, end=False)
    model, asked = backend(config), utterance([0], config, prompt)
    made = model.generate(asked, GREEDY)
    P = 5 if prompt else 0
    row = made.data if asked.prompt is None else torch.cat((asked.prompt.frames["codes"].data, made.data), 2)
    ids = [1, 2, 1, 2, 3] if prompt else [1, 2, 3]
    frames = [2, 3, 3, 0, 4] if prompt else [3, 0, 4]
    T = row.shape[2]
    whole = Utterance(Tokens.of([ids], "t"), torch.zeros(1), plan=Plan(torch.tensor([T / 25]), torch.tensor([frames]) / 25))
    heard: list[Tensor] = []
    model.network.head.register_forward_hook(lambda _module, _given, logits: heard.append(logits))
    model.loss(whole, Frames(row, torch.tensor([T]), config.spec), nothing_random([P], T))
    likeliest = heard[0].argmax(-1).T[None]  # [1, K, S]
    assert torch.equal(model.pattern.revert(likeliest)[:, :, -made.data.shape[2] :], made.data)


@every
@torch.no_grad()
def test_step_by_step_equals_the_whole(config: ARConfig) -> None:
    network = backend(config).network
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, V + 1, (2, 3, 9), generator=generator)
    told = torch.randn(2, 9, 16, generator=generator)
    known = torch.tensor([[True, True, True], [True, False, False]])
    text = network.read(torch.tensor([[1, 2, 3], [4, 0, 0]]), known)
    whole = network(codes, told, text)
    lengths = torch.tensor([2, 4])
    scores, cache = network.start(codes[..., :4], lengths, told[:, :4], text, 3 + 9)
    rows = torch.arange(2)
    for n in range(5):
        assert torch.allclose(scores.hidden, whole[rows, lengths + n - 1], atol=1e-4)
        scores = network.step(codes[rows, :, lengths + n], told[rows, lengths + n], cache)


@every
def test_a_stream_is_the_whole_frame_by_frame(config: ARConfig) -> None:
    model, asked = backend(config), utterance([0, 1, 2], config)
    whole = model.generate(asked)
    frames = list(model.stream(asked))
    assert torch.equal(torch.cat([f.data for f in frames], 2), whole.data)
    assert torch.equal(torch.stack([f.lengths for f in frames]).sum(0), whole.lengths)


def test_a_stream_may_be_left_early() -> None:
    stream = backend(DELAY).stream(utterance([0], DELAY))
    assert next(stream).data.shape == (1, 3, 1)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


def test_where_the_model_leads_it_stays_within_the_plans_bounds() -> None:
    model = backend(DELAY)
    made = model.generate(utterance([0, 1, 2], DELAY), {"pointer": "model"})
    planned = torch.tensor([7, 11, 6])
    assert (made.lengths >= planned // 2 - 2).all() and (made.lengths <= 2 * planned + 4).all()
    tight = model.generate(utterance([0, 1, 2], DELAY), {"pointer": "model", "slack": (1.0, 1.0)})
    phones = torch.tensor([2, 4, 1])  # that are planned, each for one frame more at most
    assert (tight.lengths >= planned).all() and (tight.lengths <= planned + phones).all()


def test_a_model_that_ends_by_itself_is_cut_off_when_it_does_not() -> None:
    model = backend(PREFIX)
    assert model.network.head.end is not None
    torch.nn.init.constant_(model.network.head.end.bias, -1e4)
    assert model.generate(utterance([0, 1, 2], PREFIX)).lengths.tolist() == [10, 16, 9]
    torch.nn.init.constant_(model.network.head.end.bias, 1e4)
    assert model.generate(utterance([0, 1, 2], PREFIX)).lengths.tolist() == [0, 0, 0]


@torch.no_grad()
def test_books_one_by_one_equal_all_at_once_and_know_only_those_before() -> None:
    head = backend(DEPTH).network.head
    assert isinstance(head, DepthHead)
    hidden, codes = torch.randn(4, 16), torch.randint(0, V, (4, 3))
    whole, state = head(hidden, codes), head.begin(hidden)
    for k in range(3):
        assert torch.allclose(head.book(k, codes[:, k - 1] if k else None, state), whole[:, k], atol=1e-5)
    for j in range(3):
        other = codes.clone()
        other[:, j] = (other[:, j] + 1) % V
        changed = [not torch.equal(a, b) for a, b in zip(whole.unbind(1), head(hidden, other).unbind(1), strict=True)]
        assert changed == [k > j for k in range(3)]


@every
def test_what_lies_beyond_a_row_does_not_matter(config: ARConfig) -> None:
    model, asked = backend(config), replace(utterance([0, 1], config), prompt=None)
    codes, lengths = torch.randint(0, V, (2, 3, 11)), torch.tensor([7, 11])
    noise = draw(lengths, generator=torch.Generator().manual_seed(0))
    other = codes.clone()
    other[0, :, 7:] = 0
    first, second = (model.loss(asked, Frames(x, lengths, config.spec), noise) for x in (codes, other))
    assert {name: value.item() for name, value in first.items()} == {name: value.item() for name, value in second.items()}
    assert ("advance" in first) == (config.text == "aligned")


def test_an_untrained_model_knows_nothing() -> None:
    for config in CONFIGS:
        torch.manual_seed(0)
        config = replace(config, size=512, dim=64, heads=1, head_dim=64)
        lengths = torch.tensor([40])
        codes = torch.randint(0, 512, (1, 3, 40))
        asked = Utterance(Tokens.of([[1]], "t"), torch.zeros(1), plan=Plan(torch.tensor([1.6]), torch.tensor([[1.6]])))
        losses = ARBackend(config).loss(asked, Frames(codes, lengths, config.spec), draw(lengths))
        assert abs(losses["codes"].item() - torch.tensor(512.0).log().item()) < 1.0


@pytest.mark.parametrize("config", [DELAY, DEPTH], ids=["delay", "depth"])
def test_a_sentence_that_was_learnt_is_said(config: ARConfig) -> None:
    torch.manual_seed(0)
    model, asked = ARBackend(config), utterance([1], config, prompt=False)
    target = Frames(torch.randint(0, V, (1, 3, 11)), torch.tensor([11]), config.spec)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(asked, target, nothing_random([0], 11))["loss"].backward()
        optimizer.step()
    model.eval()
    assert torch.equal(model.generate(asked, GREEDY).data, target.data)
    assert torch.equal(model.generate(asked, replace(GREEDY, pointer="model")).data, target.data)


def test_a_draw_is_what_its_generator_says() -> None:
    lengths, joins = torch.full((400,), 50), torch.full((400,), 20)
    one, two = (draw(lengths, generator=torch.Generator().manual_seed(3), joins=joins) for _ in range(2))
    assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in one.__dataclass_fields__)
    assert (one.prompt[one.drop_text] == 0).all() and 0.4 < (one.prompt == 20).float().mean() < 0.8
    assert one.prompt.max() <= 30 and abs(one.masked.float().mean() - 0.15) < 0.02
    varied = draw(lengths, ARDrawConfig(mask=0.4, mask_varies=True), torch.Generator().manual_seed(3)).masked.float().mean(1)
    assert abs(varied.mean() - 0.4) < 0.03 and varied.min() < 0.1 and varied.max() > 0.7


@torch.no_grad()
@pytest.mark.parametrize("config", [DELAY, DEPTH])
def test_codes_that_the_codec_finds_alike_begin_alike(config: ARConfig) -> None:
    network = ARBackend(replace(config, size=40, code_dim=8)).network
    vectors = [torch.randn(40, 3) @ torch.randn(3, 12) for _ in range(3)]
    network.adopt(vectors)
    ours = network.codes.table.weight.view(3, 41, 8)[:, :40]
    for book, own in zip(vectors, ours, strict=True):
        alike = torch.corrcoef(torch.stack((torch.pdist(book), torch.pdist(own))))[0, 1]
        assert alike > 0.9
        assert abs(own.square().mean() - 1) < 0.2
    head = network.head
    out = head.out.transpose(1, 2) if isinstance(head, DepthHead) else head.table.transpose(1, 2)
    assert torch.allclose(out, ours * 8**-0.5)
    if isinstance(head, DepthHead):
        assert torch.equal(head.table.weight.view(2, 40, 8), ours[:2])


def test_what_cannot_be_spoken_is_told() -> None:
    model, asked = backend(DELAY), utterance([0], DELAY)
    assert asked.prompt is not None and asked.plan is not None
    with pytest.raises(FitError, match="needs a plan"):
        model.generate(replace(asked, plan=None))
    with pytest.raises(FitError, match="symbol table 'other'"):
        model.generate(replace(asked, tokens=Tokens.of([[1]], "other")))
    with pytest.raises(FitError, match="needs the prompt's codes"):
        model.generate(replace(asked, prompt=replace(asked.prompt, frames={})))
    codes = asked.prompt.frames["codes"]
    for other in (replace(DELAY, size=8), replace(DELAY, flavour="another")):
        prompt = replace(asked.prompt, frames={"codes": Frames(codes.data, codes.lengths, other.spec)})
        with pytest.raises(FitError, match="does not fit"):
            model.stream(replace(asked, prompt=prompt))
    with pytest.raises(TextError, match="shorter sentences"):
        model.generate(replace(asked, plan=Plan(torch.tensor([4.0]), torch.tensor([[1.0, 1.0, 2.0]]))))
    long = Frames(torch.zeros(1, 3, 59).long(), torch.tensor([59]), DELAY.spec)
    with pytest.raises(PromptError, match="give a shorter one"):
        model.generate(replace(asked, prompt=replace(asked.prompt, frames={"codes": long})))


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": 0},
        {"temperature": -0.1},
        {"top_p": 0.9, "min_p": 0.1},
        {"pointer": "plans"},
        {"slack": (2.0, 3.0)},
        {"temperatur": 1.0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ARSettings.of(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"head": "both"},
        {"text": "none"},
        {"delays": (0, 1)},
        {"delays": (1, 0, 0)},
        {"head": "hierarchical", "delays": (0, 1, 2)},
        {"end": True},
        {"depth_dim": 6},
        {"code_dim": 0},
        {"norm": "batch"},
        {"encoder_layers": -1},
        {"text": "prefix", "encoder_layers": 1},
    ],
)
def test_impossible_models_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        replace(DELAY, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [DELAY, DEPTH, LEFT, ENCODER, CROSS])
def test_the_likelihood_of_codes_is_what_training_calls_their_surprise(config: ARConfig) -> None:
    model = backend(config)
    asked = utterance([0], config, prompt=False)
    codes = model.generate(asked)
    said = model.log_probs(asked, codes)
    loss = model.loss(asked, codes, nothing_random([0], codes.data.shape[2]))["codes"]
    assert torch.allclose(-said.mean(), loss, atol=1e-4)


@every
def test_of_one_code_in_place_of_another_the_likeliest_is_the_one_that_greed_says(config: ARConfig) -> None:
    model = backend(config)
    asked = utterance([0, 1], config)
    codes = model.generate(asked, GREEDY)
    best = model.log_probs(asked, codes)
    for b, n in enumerate(codes.lengths.tolist()):
        for k, t in ((0, 0), (1, n // 2), (2, n - 1)) if n else ():
            other = codes.data.clone()
            other[b, k, t] = (other[b, k, t] + 1) % V
            said = model.log_probs(asked, replace(codes, data=other))
            assert said[b, k, t] < best[b, k, t]
