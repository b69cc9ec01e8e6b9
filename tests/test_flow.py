"""The flow backend: what it promises to those who call it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tts.audio import MelRecipe
from tts.backends.flow import model as model_module
from tts.backends.flow.config import FlowConfig, FlowSettings
from tts.backends.flow.dit import TimeExperts
from tts.backends.flow.model import FlowBackend
from tts.backends.flow.path import FlowDraw, FlowDrawConfig, draw, point, velocity
from tts.backends.flow.rows import make_row
from tts.backends.flow.text import lay_aligned, lay_plain
from tts.config import load_config
from tts.errors import FitError, SettingsError
from tts.frames import Frames, Plan, Prompt, Tokens, Utterance
from tts.interfaces import Backend, Trainable
from tts.nn.speaker import SpeakerConfig
from tts.sampling import reference
from tts.train.run import BackendTraining

MEL = MelRecipe(bands=4)
PLAIN = FlowConfig(
    vocabulary=9, table="t", mel=MEL, dim=16, depth=1, heads=2, head_dim=8, text_dim=8, text_layers=2, zero_init=False
)
ALIGNED = replace(
    PLAIN, expansion="aligned", patch=2, modulation="shared", prior=True, prompt_statistics=True, mel_mean=-4.0, mel_std=2.0
)
SPEAKER = SpeakerConfig(bands=4, window=4, join=1, hidden=8, layers=1, dim=8)
CONFIGS = [
    PLAIN,
    ALIGNED,
    replace(ALIGNED, expansion="plain", long_skip=True, qk_norm=True, rope_heads=1),
    replace(ALIGNED, speaker=SPEAKER, time_experts=2),
    replace(ALIGNED, speaker=SPEAKER, prompt_statistics=False, infill=False),
    replace(PLAIN, prompt_statistics=True, infill=False),
]
FAST = FlowSettings(steps=3)


def backend(config: FlowConfig) -> FlowBackend:
    """Random weights, none of them zero."""
    torch.manual_seed(0)
    model = FlowBackend(config).eval()
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3)
    return model


def utterance(rows: list[int], config: FlowConfig, prompt: bool = True) -> Utterance:
    """Some of three rows of unequal prompts and targets; the prompt of row 1 has no phones."""
    generator = torch.Generator().manual_seed(1)
    mels = [torch.randn(4, T, generator=generator) for T in (5, 4, 9)]
    ids = [[1, 2, 3], [4, 5, 6, 7], [8]]
    frames = [[3, 0, 4], [5, 1, 4, 1], [6]]
    prompt_ids: list[list[int]] = [[1, 2], [], [3]]
    prompt_frames = [[2, 3], [], [9]]

    def column(values: list[list[int]]) -> Tensor:
        return Tokens.of([values[b] for b in rows], "t").ids

    T = torch.tensor([sum(frames[b]) for b in rows])
    lengths = torch.tensor([mels[b].shape[1] for b in rows])
    mel = torch.zeros(len(rows), 4, int(lengths.max()))
    for k, b in enumerate(rows):
        mel[k, :, : mels[b].shape[1]] = mels[b]
    given = Prompt(
        {"mel": Frames(mel, lengths, config.mel.spec)},
        Tokens.of([prompt_ids[b] for b in rows], "t"),
        lengths / 50,
        column(prompt_frames),
    )
    plan = Plan(T.double() / 50, column(frames).double() / 50)
    seeds = torch.tensor([7, 2**40, 3])[rows]
    return Utterance(Tokens.of([ids[b] for b in rows], "t"), seeds, given if prompt else None, plan)


def test_it_is_a_backend_that_can_be_trained() -> None:
    model = backend(ALIGNED)
    assert isinstance(model, Backend) and isinstance(model, Trainable)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_row_alone_and_in_company_has_the_same_bits(config: FlowConfig) -> None:
    model = backend(config)
    together = model.generate(utterance([0, 1, 2], config), FAST)
    assert together.lengths.tolist() == [7, 11, 6]  # exactly the plan, never the prompt
    backwards = model.generate(utterance([2, 1, 0], config), FAST)
    for b, n in enumerate([7, 11, 6]):
        alone = model.generate(utterance([b], config), FAST).data[0]
        assert alone.shape == (4, n) and bool(alone.isfinite().all())
        assert torch.equal(alone, together.data[b, :, :n])
        assert torch.equal(alone, backwards.data[2 - b, :, :n])
        assert not together.data[b, :, n:].any()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_padded_batch_says_what_its_rows_say(config: FlowConfig) -> None:
    model = backend(config)
    rows = [make_row(config, utterance([0, 1, 2], config), b, model.noise, torch.device("cpu")) for b in range(3)]
    with torch.inference_mode():
        for batched, row in zip(model._solve(rows, FAST), rows, strict=True):
            assert torch.allclose(batched, model._solve([row], FAST)[0], atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("settings", [FAST, FlowSettings(steps=2, solver="midpoint"), FlowSettings(steps=2, guidance=1.0)])
def test_steps_of_a_bucket_say_the_same_mel(config: FlowConfig, settings: FlowSettings, monkeypatch) -> None:
    """On a CPU nothing is captured, but all is filled up as for a graph, and the kernel's definition stands in for it."""
    model, asked = backend(config), utterance([0, 1, 2], config)
    want = model.generate(asked, settings)
    monkeypatch.setenv("MYNAH_PATH", "graph")
    monkeypatch.setattr(model_module.paths, "fused", lambda device: True)
    monkeypatch.setattr(model_module.fused, "flow_step", reference.flow_step)
    got = model.generate(asked, settings)
    assert torch.allclose(got.data, want.data, atol=2e-5)  # mels of a deviation of 1 or 2: sums are of another length
    assert len(model.graphs.held) == (1 if config.time_experts == 1 else 0)  # experts are chosen as they are needed


def test_noise_depends_on_seed_and_place_in_the_target_alone() -> None:
    model = backend(PLAIN)
    cpu = torch.device("cpu")
    with_prompt, without = (
        make_row(PLAIN, utterance([0], PLAIN, prompt), 0, model.noise, cpu).noise for prompt in (True, False)
    )
    assert torch.equal(with_prompt[:, 5:], without)
    longer = replace(utterance([0], PLAIN), plan=Plan(torch.tensor([0.4])))
    assert torch.equal(make_row(PLAIN, longer, 0, model.noise, cpu).noise[:, :12], with_prompt)


@pytest.mark.parametrize("config", CONFIGS)
def test_scale_one_is_unguided(config: FlowConfig) -> None:
    model = backend(config)
    asked = utterance([0, 1], config)
    calls: list[int] = []
    hook = model.dit.register_forward_hook(lambda m, given, out: calls.append(len(out)))
    plain = model.generate(asked, FlowSettings(steps=2, guidance=1.0))
    assert calls == [1] * 4  # one group of rows
    hook.remove()
    nearly = model.generate(asked, FlowSettings(steps=2, guidance=1.0 + 1e-7))
    assert torch.allclose(plain.data, nearly.data, atol=1e-4)
    assert not torch.allclose(plain.data, model.generate(asked, FlowSettings(steps=2)).data, atol=1e-4)


def test_at_temperature_zero_every_seed_says_the_same() -> None:
    model = backend(ALIGNED)
    asked = utterance([0], ALIGNED)
    other = replace(asked, seeds=asked.seeds + 1)
    cold, warm = FlowSettings(steps=2, temperature=0.0), FlowSettings(steps=2, temperature=1.0)
    assert torch.equal(model.generate(asked, cold).data, model.generate(other, cold).data)
    assert not torch.allclose(model.generate(asked, warm).data, model.generate(other, warm).data, atol=1e-3)


def test_what_guidance_leaves_out_does_not_reach_its_unconditional_rows() -> None:
    model = backend(ALIGNED)
    first, second = utterance([0], ALIGNED), utterance([2], ALIGNED)
    second = replace(second, seeds=first.seeds, plan=first.plan, tokens=Tokens.of([[8, 7, 6]], "t"))
    free = [model.generate(replace(u, prompt=None), FlowSettings(steps=2, guidance=0.0)).data for u in (first, second)]
    assert torch.equal(free[0], free[1])


def test_prompt_and_phones_are_heard() -> None:
    model = backend(ALIGNED)
    said = model.generate(utterance([0], ALIGNED), FAST).data
    assert not torch.allclose(said, model.generate(utterance([0], ALIGNED, prompt=False), FAST).data, atol=1e-3)
    other = replace(utterance([0], ALIGNED), tokens=Tokens.of([[1, 2, 4]], "t"))
    assert not torch.allclose(said, model.generate(other, FAST).data, atol=1e-3)


def test_frames_to_keep_stay_as_they_were() -> None:
    model = backend(ALIGNED)
    context = Frames(torch.randn(1, 4, 7), torch.tensor([7]), MEL.spec)
    keep = torch.tensor([[True, True, False, False, True, False, False]])
    made = model.generate(replace(utterance([0], ALIGNED), context=context, keep=keep), FAST).data
    assert torch.allclose(made[0, :, keep[0]], context.data[0, :, keep[0]], atol=1e-5)
    assert not torch.allclose(made[0, :, ~keep[0]], context.data[0, :, ~keep[0]], atol=1e-1)


def test_aligned_text_stands_exactly_on_its_frames() -> None:
    text = lay_aligned(torch.tensor([[5, 6, 7, 0]]), torch.tensor([[2, 0, 3, 0]]), 7)
    assert text.rows.tolist() == [[6, 6, 8, 8, 8, 0, 0]]
    assert text.inside is not None and text.log_frames is not None
    assert torch.allclose(text.inside[0], torch.tensor([1 / 4, 3 / 4, 1 / 6, 1 / 2, 5 / 6, 0, 0]))
    assert torch.allclose(text.log_frames[0].exp(), torch.tensor([2.0, 2, 3, 3, 3, 1, 1]))
    assert lay_aligned(torch.tensor([[5]]), torch.tensor([[9]]), 2).rows.tolist() == [[6, 6]]
    assert lay_aligned(torch.zeros(1, 0).long(), torch.zeros(1, 0).long(), 2).rows.tolist() == [[0, 0]]


def test_plain_text_stands_at_the_first_positions() -> None:
    ids, lengths = torch.tensor([[5, 0, 7], [3, 0, 0]]), torch.tensor([3, 1])
    assert lay_plain(ids, lengths, 5).rows.tolist() == [[6, 1, 8, 0, 0], [4, 0, 0, 0, 0]]
    assert lay_plain(ids, lengths, 2).rows.tolist() == [[6, 1], [4, 0]]


def test_the_path_runs_from_noise_to_data_at_constant_speed() -> None:
    noise, data = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(point(noise, data, torch.tensor([0.0, 1.0])), torch.stack((noise[0], data[1])))
    one, two = (point(noise, data, torch.full((2,), t)) for t in (0.25, 0.75))
    assert torch.allclose((two - one) / 0.5, velocity(noise, data), atol=1e-5)


def test_masked_spans_are_contiguous_and_long_and_half_run_to_the_end() -> None:
    lengths = torch.tensor([10, 20, 30, 40] * 100)
    drawn = draw(lengths, 1, generator=torch.Generator().manual_seed(0))
    edges = drawn.masked.int().diff(dim=1, prepend=torch.zeros(400, 1).int(), append=torch.zeros(400, 1).int())
    assert bool(((edges == 1).sum(1) == 1).all()) and bool(((edges == -1).sum(1) == 1).all())
    share = drawn.masked.sum(1) / lengths
    assert float(share.min()) >= 0.69 and float(share.max()) <= 1.0
    to_end = drawn.masked.gather(1, lengths[:, None] - 1).float().mean()
    assert 0.45 < float(to_end) < 0.75  # short rows also end there by chance
    assert not bool((drawn.masked & (torch.arange(40)[None] >= lengths[:, None])).any())
    assert not bool((drawn.hide_phones & drawn.masked).any())
    assert bool((drawn.drop_prompt | ~drawn.drop_text).all())
    assert sorted((drawn.t * 400).floor().long().tolist()) == list(range(400))  # times cover the range evenly


def test_a_span_to_the_end_of_joined_utterances_is_the_second_one() -> None:
    always = FlowDrawConfig(span_to_end=1.0)
    drawn = draw(torch.tensor([10]), 1, always, joins=torch.tensor([6]))
    assert drawn.masked[0].tolist() == [False] * 6 + [True] * 4


def loss_of(model: FlowBackend, noise: FlowDraw, T: int) -> dict[str, Tensor]:
    asked = utterance([1, 2], model.config, prompt=False)
    mel = torch.randn(2, 4, T, generator=torch.Generator().manual_seed(2))
    mel[0, :, 11:], mel[1, :, 6:] = 5.0, 5.0  # padding: must not matter
    return model.loss(asked, Frames(mel, torch.tensor([11, 6]), MEL.spec), noise)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_loss_is_a_pure_function_and_every_weight_learns(config: FlowConfig) -> None:
    model = backend(replace(config, dropout=0.0)).train()
    noise = draw(torch.tensor([11, 6]), 4, FlowDrawConfig(drop_prompt=0, drop_all=0, longest_span=0.8))
    one, two = loss_of(model, noise, 11), loss_of(model, noise, 11)
    assert all(torch.equal(one[name], two[name]) for name in one)
    one["loss"].backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(name.startswith("speaker.encoder.") for name in still), still  # it was learnt elsewhere
    assert all(p.requires_grad != name.startswith("speaker.encoder.") for name, p in model.named_parameters())


def test_an_expert_learns_from_its_own_part_of_the_times_alone() -> None:
    model = backend(replace(PLAIN, time_experts=4, dropout=0.0)).train()
    noise = replace(draw(torch.tensor([11, 6]), 4, FlowDrawConfig(drop_all=0)), t=torch.tensor([0.99, 0.3]))
    loss_of(model, noise, 11)["loss"].backward()
    experts = model.dit.blocks[0].feed_forward.experts
    assert [all(p.grad is not None and bool(p.grad.any()) for p in expert.parameters()) for expert in experts] == [
        False, True, False, True,
    ]  # fmt: skip


def test_rows_of_different_times_each_go_through_their_expert() -> None:
    experts = TimeExperts(torch.nn.Linear(3, 3) for _ in range(4))
    x, expert = torch.randn(5, 2, 3), torch.tensor([2, 0, 2, 3, 0])
    by_row = torch.stack([experts.experts[e](row) for e, row in zip(expert.tolist(), x, strict=True)])
    assert torch.allclose(experts(x, expert), by_row, atol=1e-6)


@pytest.mark.parametrize("config", [PLAIN, replace(ALIGNED, time_experts=3)])
def test_modulations_of_all_times_at_once_are_those_of_each(config: FlowConfig) -> None:
    model = backend(config)
    times, voice = torch.tensor([0.0, 0.4, 0.9]), torch.randn(2, 16) if config.prompt_statistics else None
    for t, given in zip(times, model._modulations(times, voice), strict=True):
        one = model.dit.modulate(t.expand(1 if voice is None else 2), voice)
        assert torch.allclose(given.blocks, one.blocks, atol=1e-6) and torch.allclose(given.out, one.out, atol=1e-6)
        assert (given.expert is None and one.expert is None) or torch.equal(given.expert, one.expert)  # type: ignore[arg-type]


def test_without_infilling_the_voice_alone_is_known_and_the_row_is_the_target() -> None:
    for options in ({"prompt_statistics": True}, {"speaker": SPEAKER, "prompt_statistics": False}):
        config = replace(ALIGNED, infill=False, **options)  # type: ignore[arg-type]
        model, asked = backend(config), utterance([0], config)
        row = make_row(config, asked, 0, model.noise, torch.device("cpu"))
        assert row.n_frames == 7 and not row.given.any() and row.heard.shape == (4, 5)
        said = model.generate(asked, FAST).data
        assert asked.prompt is not None
        mel = asked.prompt.frames["mel"]
        other = replace(asked, prompt=replace(asked.prompt, frames={"mel": replace(mel, data=mel.data.flip(1))}))
        assert not torch.allclose(said, model.generate(other, FAST).data, atol=1e-3)
        silent = replace(asked, prompt=replace(asked.prompt, tokens=Tokens.of([[]], "t"), token_frames=None))
        assert torch.equal(said, model.generate(silent, FAST).data)  # what the prompt says is not read
        context = Frames(torch.zeros(1, 4, 7), torch.tensor([7]), MEL.spec)
        with pytest.raises(FitError, match="edit"):
            model.generate(replace(asked, context=context, keep=torch.ones(1, 7).bool()), FAST)


def test_a_speaker_encoder_hears_the_prompt_at_any_level() -> None:
    model = backend(replace(ALIGNED, speaker=SPEAKER))
    assert model.speaker is not None
    mel, known = torch.randn(3, 4, 9), torch.ones(3, 9).bool()
    known[1, 5:], known[2] = False, False
    voice = model.speaker(mel, known)
    assert torch.allclose(voice, model.speaker(mel + 3.0, known), atol=1e-5)
    assert torch.allclose(voice[1:2], model.speaker(mel[1:2, :, :5], known[1:2, :5]), atol=1e-6)
    assert bool(voice[0].any()) and not voice[2].any()


def test_fresh_weights_predict_zero_velocity() -> None:
    torch.manual_seed(0)
    model = FlowBackend(replace(PLAIN, zero_init=True)).eval()
    noise = draw(torch.tensor([11, 6]), 4, FlowDrawConfig(shortest_span=1.0))
    made = loss_of(model, noise, 11)["flow"].detach()
    mel = torch.randn(2, 4, 11, generator=torch.Generator().manual_seed(2))
    squares = torch.cat([(mel - noise.noise)[b, :, :n].flatten() for b, n in enumerate([11, 6])]).square()
    assert float(made) == pytest.approx(float(squares.mean()), rel=1e-5)


def test_one_utterance_is_learnt_by_heart() -> None:
    config = replace(ALIGNED, dim=32, patch=1, dropout=0.0, zero_init=True, mel_mean=0.0, mel_std=1.0)
    torch.manual_seed(0)
    model = FlowBackend(config)
    asked = utterance([1], config, prompt=False)
    mel = Frames(torch.randn(1, 4, 11), torch.tensor([11]), MEL.spec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0, fused=True)
    always = FlowDrawConfig(shortest_span=1.0, drop_prompt=0, drop_all=0)
    for _ in range(100):
        loss = model.loss(asked, mel, draw(torch.tensor([11]), 4, always))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = model.eval().generate(asked, FlowSettings(steps=8, guidance=1.0)).data
    assert float((made - mel.data).abs().mean()) < 0.4  # silence at the mean would be wrong by 0.8


def test_settings_that_do_not_exist_are_refused_with_the_nearest_name() -> None:
    for settings, hint in (
        ({"temperature": -0.1}, "temperature"),
        ({"guidence": 2.0}, "guidance"),
        ({"solver": "eular"}, "euler"),
        ({"steps": 0}, "1..1000"),
        ({"steps": 2.5}, "steps"),
        ({"sway": -2.0}, "-1..1"),
        ({"guidance": float("nan")}, "guidance"),
    ):
        with pytest.raises(SettingsError, match=hint):
            FlowSettings.of(settings)
    assert FlowSettings.of(None) == FlowSettings() == FlowSettings.of({})
    assert FlowSettings.of({"steps": 7, "guidance": 3}) == FlowSettings(steps=7, guidance=3.0)


def test_what_does_not_fit_is_refused() -> None:
    model, asked = backend(PLAIN), utterance([0], PLAIN)
    other = Frames(torch.zeros(1, 4, 3), torch.tensor([3]), replace(MEL.spec, flavour="another"))
    assert asked.prompt is not None
    for wrong, word in (
        (replace(asked, plan=None), "plan"),
        (replace(asked, tokens=Tokens.of([[1]], "other")), "table"),
        (replace(asked, prompt=replace(asked.prompt, frames={"mel": other})), "flavour"),
        (replace(asked, prompt=replace(asked.prompt, frames={})), "mel"),
        (replace(asked, keep=torch.ones(1, 7).bool()), "context"),
    ):
        with pytest.raises(FitError, match=word):
            model.generate(wrong, FAST)
    for option, value in (
        ("modulation", "blocks"),
        ("expansion", "align"),
        ("dim", 20),
        ("rope_heads", 3),
        ("time_experts", 0),
        ("speaker", SpeakerConfig()),
    ):
        with pytest.raises(SettingsError, match=option):
            replace(PLAIN, **{option: value})  # type: ignore[arg-type]


def test_base_en_has_at_most_eight_million_weights() -> None:
    configs = Path(__file__).parents[1] / "configs"
    recipe = load_config(BackendTraining, configs / "train" / "backend.yaml").recipe
    with torch.device("meta"):
        model = FlowBackend(replace(recipe.model, vocabulary=249))
    assert sum(p.numel() for p in model.parameters()) < 8_000_000
    tiny = load_config(BackendTraining, configs / "tiny" / "flow.yaml").recipe
    assert FlowBackend(tiny.model).config.dim == 16
