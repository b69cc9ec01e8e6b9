"""Learned durations, of every kind: plans that sum up, follow the prompt, and need nothing that is not there."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RATE, speech, tiny_durations

from tts import registry
from tts.config import from_mapping
from tts.duration.autoregressive import join
from tts.duration.bytes import ByT5Config, ByteDurationConfig, ByteDurations
from tts.duration.flow import FlowDurationConfig, FlowDurations
from tts.duration.outside import CallableDuration
from tts.duration.rules import PromptRate, Ratio
from tts.errors import CheckpointError, FitError, SettingsError
from tts.eval.durations import compare_durations, count_weights, duration_table, summarise
from tts.eval.protocols import Item as Asked
from tts.frames import Prompt, Tokens
from tts.text.phonemes import ByteFrontEnd
from tts.text.tokens import PHONES
from tts.train.clips import Prompts, Spoken
from tts.train.data import Corpus, CorpusWriter, Item, save_alignment
from tts.train.duration import DurationRecipe, DurationTask, find_durations, flow_loss
from tts.train.loop import LoopConfig, fit

CAT = [PHONES.id(symbol) for symbol in (" ", "ð", "ə", " ", "k", "ˈæ", "t", ".")]
LASTS = [0, 3, 2, 0, 4, 6, 3, 5]  # frames at the usual pace
PACES = (0.7, 1.0, 1.5)  # how long the phones of three speakers last; within what the rule takes for a rate
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "phones": ("phones", {"total": "sum"}),
    "sentence": ("sentence", {}),
    "flow": ("flow", {}),
    "autoregressive": ("autoregressive", {}),
    "bytes": ("bytes", {}),
}
ALL = pytest.mark.parametrize("kind", KINDS)


def tokens(*rows: list[int]) -> Tokens:
    return Tokens.of(rows, PHONES.identity)


def voice(pace: float, n: int = 1) -> Prompt:
    """The cat, `pace` times as long as usual."""
    frames = torch.tensor([[round(pace * x) for x in LASTS]] * n)
    return Prompt({}, tokens(*[CAT] * n), frames.sum(1) / 50, frames)


def untrained(kind: str) -> Any:
    name, config = KINDS[kind]
    known = {"vocabulary": len(PHONES), "table": PHONES.identity, "rule": tiny_durations(), "symbols": PHONES.symbols}
    cls = registry.find("duration", name)
    own = registry.config_type(cls)
    assert own is not None
    known = {field: value for field, value in known.items() if field in own.__dataclass_fields__}
    torch.manual_seed(0)
    return cls(from_mapping(own, {"dim": 16, "layers": 1, **config, **known})).eval()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips each of a fast, a usual and a slow speaker."""
    folder = tmp_path_factory.mktemp("corpus") / "toy"
    texts, rows = [], []
    with CorpusWriter(folder, {"symbols": list(PHONES.symbols), "table": PHONES.identity, "mel": "toy"}) as writer:
        for i in range(36):
            pace = PACES[i % 3]
            words = 1 + i // 3 % 4
            ids = CAT[:-1] * words + CAT[-1:]
            frames = [round(pace * x) for x in LASTS[:-1]] * words + [5]
            T = sum(frames)
            writer.add(Item(f"{i}", f"pace {pace}", "toy", "F", "en-us", T / 50, "", T, 0, tuple(ids)), torch.zeros(2, T))
            texts.append(ids)
            rows.append(frames)
    save_alignment(folder, texts, rows, [-1.0] * 36)
    return folder


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each kind one that has learned from the corpus, by name."""
    made = {}
    for kind, (name, config) in KINDS.items():
        recipe = DurationRecipe(
            name, {"dim": 16, "layers": 1, "dropout": 0.0, **config}, budget_tokens=300, heard=0.0, unknown=0.0, valid_items=4
        )
        task = DurationTask(recipe, Corpus(corpus), Corpus(corpus))
        fit(task, LoopConfig(110, lr=2e-2, warmup=5, threads=1, ema=0.0, validate_every=1000), tmp_path_factory.mktemp(kind))
        made[kind] = task.durations.eval()
    return made


@ALL
def test_a_slower_prompt_gives_longer_plans(kind: str, trained: dict[str, Any]) -> None:
    fast, usual, slow = (float(trained[kind].plan(tokens(CAT[:-1] * 2 + CAT[-1:]), voice(x)).seconds) for x in PACES)
    assert slow > 1.15 * usual > 1.15 * 1.15 * fast


@ALL
def test_a_learned_plan_is_near_what_was_learned(kind: str, trained: dict[str, Any]) -> None:
    planned = trained[kind].plan(tokens(CAT[:-1] * 3 + CAT[-1:]), voice(1.0))
    assert float(planned.seconds) == pytest.approx((3 * 18 + 5) / 50, rel=0.2)


@ALL
@pytest.mark.parametrize("prompt", ["none", "silent", "unaligned"])
def test_a_plan_needs_no_prompt_and_no_alignment(kind: str, prompt: str) -> None:
    said = {"none": None, "silent": Prompt({}, tokens([]), torch.ones(1)), "unaligned": Prompt({}, tokens(CAT), torch.ones(1))}
    plan = untrained(kind).plan(tokens(CAT), said[prompt])
    assert float(plan.seconds) > 0 and plan.token_seconds is not None and bool((plan.token_seconds >= 0).all())


@ALL
def test_learned_tokens_sum_to_the_whole_and_a_row_is_planned_in_company_as_alone(kind: str) -> None:
    part, long = untrained(kind), CAT[:-1] * 3 + CAT[-1:]
    both = part.plan(tokens(CAT, long), voice(1.5, 2))
    alone = part.plan(tokens(CAT), voice(1.5))
    torch.testing.assert_close(both.token_seconds.sum(1), both.seconds)
    assert torch.equal(both.token_seconds[0, : len(CAT)], alone.token_seconds[0])
    assert not both.token_seconds[0, len(CAT) :].any()
    assert torch.equal(both.token_frames(Fraction(50)).sum(1), both.frames(Fraction(50)))


@ALL
def test_learned_plans_are_never_shorter_than_the_floor(kind: str) -> None:
    for ids in ([CAT[0], CAT[-1]], [CAT[1]]):
        assert float(untrained(kind).plan(tokens(ids), None).seconds) >= tiny_durations().floor - 1e-9


@ALL
def test_learned_durations_refuse_tokens_of_another_table(kind: str) -> None:
    with pytest.raises(FitError, match="table"):
        untrained(kind).plan(Tokens.of([CAT], "other"), None)


@pytest.mark.parametrize("kind", ["sentence", "flow", "bytes"])
def test_a_predictor_of_totals_begins_as_the_rule(kind: str) -> None:
    ruled = PromptRate(tiny_durations()).plan(tokens(CAT), voice(1.3)).seconds
    torch.testing.assert_close(untrained(kind).plan(tokens(CAT), voice(1.3)).seconds, ruled, rtol=1e-5, atol=0)


def test_a_flow_plans_the_quantile_of_the_lengths_that_it_has_learned(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = {"dim": 16, "layers": 1, "dropout": 0.0, "vocabulary": len(PHONES), "table": PHONES.identity}
    own = from_mapping(FlowDurationConfig, {**config, "rule": tiny_durations()})
    durations = FlowDurations(own)
    told = durations.features(tokens(*[CAT] * 256), voice(1.0, 256))
    shares = durations.shares.features(tokens(*[CAT] * 256), voice(1.0, 256))
    frames = torch.tensor([LASTS] * 256)
    optimizer = torch.optim.Adam(durations.parameters(), 1e-2)
    for _ in range(150):  # the same sentence lasts 0.8 to 1.4 times what the rule says
        factor = 0.8 * (1.4 / 0.8) ** torch.rand(256)
        batch = {
            "told": told,
            "told_shares": shares,
            "seconds": told["said"].exp() * factor,
            "frames": frames,
            "inner": frames > 0,
        }
        loss = flow_loss(durations, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rule = float(told["said"][0].exp())
    for quantile, factor in ((0.1, 0.85), (0.5, 1.06), (0.9, 1.32)):
        durations.config = replace(own, quantile=quantile)
        assert float(durations.eval().plan(tokens(CAT), voice(1.0)).seconds) == pytest.approx(rule * factor, rel=0.07)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"quantile": 0.0}, {"quantile": 1.0}, {"scale": 0.0}])
def test_a_flow_of_durations_refuses_what_it_cannot_solve(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="got"):
        FlowDurationConfig(**wrong)


def test_the_sum_of_phones_is_their_mean_not_that_of_logarithms(tmp_path: Path) -> None:
    """One phone lasts 1 frame or 25, at random: 13 on average, and 6 by the mean of logarithms."""
    rows = [[0, 25 if i % 2 else 1, 3] for i in range(40)]
    with CorpusWriter(tmp_path / "c", {"symbols": list(PHONES.symbols), "table": PHONES.identity, "mel": "toy"}) as writer:
        for i, row in enumerate(rows):
            T, ids = sum(row), (CAT[0], CAT[5], CAT[-1])
            writer.add(Item(f"{i}", f"{i}", "toy", "F", "en-us", T / 50, "", T, 0, ids), torch.zeros(2, T))
    save_alignment(tmp_path / "c", [[CAT[0], CAT[5], CAT[-1]]] * 40, rows, [-1.0] * 40)
    recipe = DurationRecipe("phones", {"dim": 16, "layers": 1, "dropout": 0.0, "total": "sum"}, budget_tokens=120)
    task = DurationTask(recipe, Corpus(tmp_path / "c"), Corpus(tmp_path / "c"))
    fit(task, LoopConfig(150, lr=1e-2, warmup=5, threads=1, validate_every=1000), tmp_path / "run")
    lasts = task.durations.eval().plan(tokens([CAT[0], CAT[5], CAT[-1]]), None).token_seconds
    assert 50 * float(lasts[0, 1]) == pytest.approx(13, rel=0.1)


def test_durations_one_by_one_are_those_of_the_whole_sequence() -> None:
    part, said = untrained("autoregressive"), voice(1.2)
    planned = part.plan(tokens(CAT), said).token_seconds * 50  # [1, L]
    told = part.features(tokens(CAT), said)
    phones, frames, _ = part.encode(**told)
    frames[:, len(CAT) :] = planned.float()
    with torch.no_grad():
        classes = part(phones, frames)[0, len(CAT) :].softmax(-1) @ torch.arange(100.0)
    spoken = [i for i, token in enumerate(CAT) if not PHONES.is_boundary(token)]
    torch.testing.assert_close(classes[spoken], planned[0, spoken].float(), rtol=1e-4, atol=1e-4)


def test_two_rows_are_joined_without_a_gap() -> None:
    joined, first = join(torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]), torch.tensor([[4], [5]]), torch.tensor([1, 1]))
    assert joined.tolist() == [[1, 2, 4], [3, 5, 0]]
    assert first.tolist() == [[True, True, False], [True, False, False]]


# ------------------------------------------------------------------------------------------------------------ bytes


def test_bytes_are_those_of_byt5s_tokenizer() -> None:
    ids, lengths = untrained("bytes").read(tokens(CAT, CAT[:1]))
    assert bytes(i - 3 for i in ids[0, :-1].tolist()).decode() == " ðə kˈæt." and int(ids[0, -1]) == 1
    assert ids[1, :2].tolist() == [ord(" ") + 3, 1] and lengths.tolist() == [len(" ðə kˈæt.".encode()) + 1, 2]


def test_a_front_end_of_bytes_gives_the_text_itself() -> None:
    front_end = ByteFrontEnd()
    part = ByteDurations(ByteDurationConfig(vocabulary=257, table=front_end.table, dim=16, symbols=front_end.symbols.symbols))
    encoded = [token for token in front_end.encode("Déjà") if isinstance(token, int)]
    ids, _ = part.read(Tokens.of([encoded], front_end.table))
    assert bytes(i - 3 for i in ids[0, :-1].tolist()).decode() == "Déjà"


def test_byt5_is_held_frozen_with_its_own_hidden_states(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = ByT5Config(d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    torch.manual_seed(1)
    theirs = transformers.T5EncoderModel(transformers.T5Config(**vars(shape), is_encoder_decoder=False, use_cache=False)).eval()
    known = {"vocabulary": len(PHONES), "table": PHONES.identity, "symbols": PHONES.symbols, "rule": tiny_durations()}
    part = ByteDurations(ByteDurationConfig(dim=16, byt5=shape, **known))
    named_once = {name: x for name, x in theirs.state_dict().items() if name != "encoder.embed_tokens.weight"}
    part.load_byt5(named_once | {"decoder.block.0.weight": torch.zeros(1)})
    ids, lengths = part.read(tokens(CAT, CAT[:3]))
    mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    ours = part.train().encode(ids, mask)
    torch.testing.assert_close(ours[mask], wanted[mask], rtol=0, atol=1e-5)
    assert not any(weight.requires_grad for weight in part.encoder.parameters()) and not part.encoder.training
    assert float(part.eval().plan(tokens(CAT), None).seconds) > 0
    with pytest.raises(CheckpointError, match="do not fit"):
        part.load_byt5({name: x[..., :1] for name, x in theirs.state_dict().items()})
    with pytest.raises(CheckpointError, match="its own encoder"):
        untrained("bytes").load_byt5(untrained("bytes").encoder.state_dict())


# ---------------------------------------------------------------------------------------------------------- a function


def test_a_function_of_yours_says_how_long_and_phones_share_it() -> None:
    heard = []

    def asked(phones: tuple[str, ...], seconds: float | None, said: tuple[str, ...]) -> float:
        heard.append((phones, seconds, said))
        return 0.1 * len(phones)

    shares = PromptRate(tiny_durations())
    part = CallableDuration(asked, shares, PHONES.symbols)
    plan = part.plan(tokens(CAT, CAT[:4]), voice(1.0, 2))
    torch.testing.assert_close(plan.seconds, torch.tensor([0.8, 0.4], dtype=torch.float64))
    assert plan.token_seconds is not None
    usual = shares.plan(tokens(CAT), voice(1.0))
    torch.testing.assert_close(plan.token_seconds[:1], usual.token_seconds * 0.8 / usual.seconds)
    assert heard[1] == ((" ", "ð", "ə", " "), pytest.approx(0.46), tuple(PHONES.symbols[i] for i in CAT))
    part.plan(tokens(CAT), None)
    assert heard[2][1:] == (None, ())
    with pytest.raises(FitError, match="table"):
        part.plan(Tokens.of([CAT], "other"), None)


@pytest.mark.parametrize("given", [0, -1.0, float("nan"), float("inf"), True, "2", None])
def test_what_is_no_length_is_refused(given: Any) -> None:
    with pytest.raises(SettingsError, match="finite number above 0"):
        CallableDuration(lambda *_: given, PromptRate(tiny_durations()), PHONES.symbols).plan(tokens(CAT), None)
    with pytest.raises(SettingsError, match="is called with"):
        CallableDuration(2.0, PromptRate(tiny_durations()), PHONES.symbols)  # type: ignore[arg-type]


def test_a_system_speaks_as_long_as_a_function_says(tiny: Any) -> None:
    duration = CallableDuration(lambda phones, seconds, said: 1.5, tiny.parts.duration, PHONES.symbols)
    audio = tiny.with_duration(duration).synthesize("The cat.", check=False)
    assert len(audio.samples) / audio.sample_rate == pytest.approx(1.5, abs=0.02)
    assert tiny.parts.duration is not duration
    duration.table = "other"
    with pytest.raises(FitError, match="reads table other"):
        tiny.with_duration(duration)


# ---------------------------------------------------------------------------------------------------------- training


def test_prompts_are_other_clips_of_the_speaker(corpus: Path) -> None:
    prompts = Prompts(Corpus(corpus), -2.0, PHONES)
    row = lambda i: tuple(Corpus(corpus).token_frames(i).tolist())  # noqa: E731
    assert prompts.next(0).frames == row(3) and prompts.next(33).frames == row(0)
    assert {prompts.draw(0, share / 11).frames for share in range(11)} == {row(i) for i in range(3, 36, 3)}
    assert Prompts(Corpus(corpus), 0.0, PHONES).next(0) == Spoken()


def test_a_prompt_as_heard_has_no_stress_and_boundaries_in_long_silences_only() -> None:
    prompts = Prompts.__new__(Prompts)
    prompts.table = PHONES
    ids = [CAT[0], CAT[1], CAT[0], CAT[5], PHONES.id(","), CAT[6], CAT[-1]]
    heard = prompts.as_heard(Spoken(tuple(ids), (2, 3, 5, 4, 6, 3, 7)), 50.0)
    assert [PHONES.symbols[i] for i in heard.tokens] == [" ", "ð", "æ", " ", "t", "."]
    assert heard.frames == (2, 8, 4, 6, 3, 7)


def test_a_kind_that_is_not_learned_is_refused(corpus: Path) -> None:
    with pytest.raises(SettingsError, match=r"recipe.type must be one of phones, sentence"):
        DurationTask(DurationRecipe("ratio"), Corpus(corpus), Corpus(corpus))
    with pytest.raises(SettingsError, match=r"unknown key 'recipe.model.dims' \(did you mean 'dim'"):
        DurationTask(DurationRecipe("sentence", {"dims": 3}), Corpus(corpus), Corpus(corpus))


# -------------------------------------------------------------------------------------------------------- evaluation


def test_errors_of_plans_are_medians_means_and_bias() -> None:
    found = summarise([{"id": str(i), "seconds": 2.0, "planned": x} for i, x in enumerate((2.0, 2.2, 1.0))])["metrics"]
    assert found["median_percent"]["value"] == pytest.approx(10)
    assert found["mean_percent"]["value"] == pytest.approx(20)
    assert found["seconds"]["value"] == pytest.approx(0.4)
    assert found["bias_percent"]["value"] == pytest.approx(-40 / 3)
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in found.values())


def test_predictors_are_compared_on_recordings(tiny: Any, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", speech(2.0), RATE)
    names = ["system", "prompt-rate", "ratio"]
    predictors = find_durations(names, tiny.parts.duration)
    assert isinstance(predictors["ratio"], Ratio) and count_weights(predictors["ratio"]) == 0
    items = [Asked("a", "The cat.", tmp_path / "a.wav", None, tmp_path / "a.wav"), Asked("b", "No.", tmp_path / "a.wav")]
    report = compare_durations(items, tiny, predictors, tmp_path)
    assert list(report["rows"]) == names and [item["id"] for item in report["rows"]["ratio"]["items"]] == ["a"]
    assert 0 < report["rows"]["ratio"]["items"][0]["seconds"] < 2.2
    assert json.loads((tmp_path / "durations.json").read_text())["rows"]["system"]["weights"] == count_weights(
        tiny.parts.duration
    )
    assert duration_table(report).row_count == 3
    with pytest.raises(SettingsError, match="sentence=RUN"):
        find_durations(["sentence"], tiny.parts.duration)
