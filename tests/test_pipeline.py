"""A request becomes speech: the script is kept, plans are obeyed, what fails its check is tried again and told."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import RATE, ROOT, speech

from tts import registry, tries
from tts.asr.check import Check
from tts.errors import FitError, InputError, LanguageError, SettingsError, TextError
from tts.frames import Frames, Request
from tts.pipeline import Synthesizer
from tts.result import Audio, Failure
from tts.sampling.philox import derive
from tts.script import FADE_SECONDS, GAP_SECONDS, Line, faded, join, write_script
from tts.text.markup import Pause

FAST = {"steps": 1}


def say(synthesizer: Synthesizer, text: str, prompt=None, **options) -> Audio:
    return synthesizer.synthesize(text, prompt, **{"settings": FAST, "check": False, **options})


# ------------------------------------------------------------------------------------------------------------ script


def test_a_pause_is_exactly_its_samples_of_silence():
    one, two = torch.full((100,), 0.5), torch.full((50,), -0.5)
    samples = join([Line("a", (1,)), Pause(0.01), Line("b", (1,))], [one, two], 1000)
    assert len(samples) == 100 + 10 + 50
    assert not samples[100:110].any() and samples[50] == 0.5 and samples[130] == -0.5


def test_two_sentences_are_a_gap_apart_and_nothing_clicks_or_clips():
    script = [Line("a", (1,)), Line("b", (1,))]
    samples = join(script, [torch.full((1000,), 2.0), torch.full((1000,), 1.0)], 1000)
    assert len(samples) == 2000 + GAP_SECONDS * 1000
    assert float(samples.abs().max()) == pytest.approx(0.99)
    assert samples[500] == 2 * samples[-500]  # softer as a whole
    assert 0 < samples[0] < 0.2 and len(faded(torch.ones(3), round(FADE_SECONDS * 1000))) == 3


def test_pauses_are_inserted_not_spoken(tiny):
    plain = say(tiny, "One, two.")
    paused = say(tiny, "One, [pause:0.5] two.")
    (silent,) = runs_of_zeros(paused.samples, 0.4)
    assert silent == 0.5 * RATE
    assert [sentence.planned_seconds > 0 for sentence in paused.report.sentences] == [True, True]
    assert not runs_of_zeros(plain.samples, 0.4)


def runs_of_zeros(samples: np.ndarray, longer: float) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], samples == 0, [0]))))
    return [b - a for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > longer * RATE]


def test_a_sentence_that_cannot_be_pronounced_is_left_out_with_a_warning(tiny, monkeypatch):
    encode = tiny.parts.front_end.encode

    def stumble(text, language):
        if "Zwei" in text:
            raise TextError("nothing can be pronounced")
        return encode(text, language)

    monkeypatch.setattr(tiny.parts.front_end, "encode", stumble)
    audio = say(tiny, "One. Zwei. Three.")
    assert [sentence.text for sentence in audio.report.sentences] == ["One.", "Three."]
    assert any("left out" in warning for warning in audio.report.warnings)
    with pytest.raises(TextError):
        say(tiny, "Zwei.")


# -------------------------------------------------------------------------------------------------------------- plan


def test_letters_that_are_left_out_are_reported(tiny):
    assert any("你好" in warning for warning in say(tiny, "Say 你好 to me.").report.warnings)
    assert not say(tiny, "Say naïve to π.").report.warnings


def test_twice_the_speed_is_half_the_time(tiny):
    text = "A sentence that is long enough for its floor not to matter at all."
    slow, fast = say(tiny, text), say(tiny, text, speed=2.0)
    assert fast.seconds == pytest.approx(slow.seconds / 2, abs=0.02)
    assert fast.report.planned_seconds == pytest.approx(slow.report.planned_seconds / 2, abs=0.02 * len(fast.report.sentences))


def test_what_is_said_slowly_is_cut_shorter_so_that_no_line_is_longer_than_a_backend_can_look_back(tiny):
    text = "the cat sat on the mat and the dog lay by the door while " * 3 + "it rained"
    front_end = tiny.parts.front_end
    lines = {speed: [line.text for line in write_script(text, "en-us", front_end, speed)[0]] for speed in (1.0, 0.5, 0.2)}
    assert lines[1.0] == lines[0.5] == [text] and len(lines[0.2]) > 1 and max(map(len, lines[0.2])) <= 88
    assert " ".join(lines[0.2]) == text


def test_seconds_are_met_to_the_frame_pauses_and_gaps_included(tiny):
    audio = say(tiny, "One and two and three. Then four, [pause:0.3] and five.", seconds=4.0)
    assert audio.seconds == pytest.approx(4.0, abs=0.02)
    first, second, third = (sentence.seconds for sentence in audio.report.sentences)
    assert first > second and third > 0


def test_the_seconds_that_a_refusal_offers_are_accepted(tiny):
    for text in ("One.", "One and two.", "One, [pause:0.33] two and three."):
        with pytest.raises(SettingsError) as refused:
            say(tiny, text, seconds=1e9)
        least, most = re.findall(r"[\d.]+(?= to| seconds in)", str(refused.value))
        assert 0 < say(tiny, text, seconds=float(least)).seconds < say(tiny, text, seconds=float(most)).seconds


@pytest.mark.parametrize("options", [{"speed": 2.0, "seconds": 3.0}, {"speed": 9.0}, {"speed": 0.0}, {"speed": float("nan")},
                                     {"seconds": 1e9}, {"seconds": 0.01}, {"seconds": -1}, {"seed": -1}, {"seed": 1.5},
                                     {"seed": 2**63}])  # fmt: skip
def test_numbers_that_cannot_be_met_are_refused(tiny, options):
    with pytest.raises(SettingsError, match="got"):
        say(tiny, "One and two.", **options)


def test_every_wrong_speed_is_told_the_same_range(tiny):
    for speed in (0, 0.1, 9.0, -1, "fast", True, float("nan")):
        with pytest.raises(SettingsError, match=r"speed must be a number from 0\.2 to 5 "):
            say(tiny, "One and two.", speed=speed)


# ------------------------------------------------------------------------------------------------------------- check


def test_a_sentence_that_fails_is_tried_again_with_a_derived_seed_and_the_best_is_kept(tiny, monkeypatch):
    found = {
        7: Check(("w",), ("w",), (), 0.5, -1.0),
        derive(7, 0, 1): Check(("w",), (), (), 0.4, -1.0),
        derive(7, 1, 0): Check(("t",) * 20, ("t",), (), 0.1, -1.0),  # one of twenty is tolerated
    }
    seeds = []

    def generate(utterance, settings):
        seeds.append(int(utterance.seeds[0]))
        return made(utterance, settings)

    made = tiny.parts.backends["flow"].generate
    monkeypatch.setattr(tiny.parts.backends["flow"], "generate", generate)
    monkeypatch.setattr(tries, "listen", lambda *_: found[seeds[-1]])
    report = say(tiny, "One. Two.", check=True, seed=7).report
    assert seeds == [7, derive(7, 0, 1), derive(7, 1, 0)]
    assert [sentence.tries for sentence in report.sentences] == [2, 1] and report.tries == 3
    assert report.sentences[0].seed == derive(7, 0, 1) and report.missed == ("t",) and report.checked
    assert not report.warnings


def test_a_try_that_passes_is_better_than_one_that_misses_less(tiny, monkeypatch):
    stutters, mumbles = Check(("w",) * 20, (), ("w", "ʌ"), 0.1, -1.0), Check(("w",) * 20, ("w",), (), 0.3, -1.0)
    verdicts = iter([stutters, mumbles])
    monkeypatch.setattr(tries, "listen", lambda *_: next(verdicts))
    (sentence,) = say(tiny, "One.", check=True).report.sentences
    assert sentence.passed and sentence.missed == ("w",) and sentence.tries == 2


def test_where_no_try_passes_the_best_is_kept_and_told(tiny, monkeypatch):
    verdicts = iter([Check(("w", "ʌ"), ("w",), (), 0.9, -1.0), Check(("w", "ʌ"), ("w", "ʌ"), (), 0.1, -1.0)])
    monkeypatch.setattr(tries, "listen", lambda *_: next(verdicts))
    report = say(tiny, "One.", check=True, seed=7).report
    assert (report.sentences[0].seed, report.sentences[0].passed, report.missed) == (7, False, ("w",))
    assert any("missed w" in warning and "2 tries" in warning for warning in report.warnings)


def test_reranking_makes_every_try_and_keeps_the_best_of_those_that_pass(tiny, monkeypatch):
    found = [Check(("w",) * 20, (), (), rate, -1.0) for rate in (0.3, 0.1, 0.2)]
    for reranked, often, kept in ((tiny.trying(2, rerank=True), 3, 0.1), (tiny.trying(2), 1, 0.3)):
        verdicts = iter(found)
        monkeypatch.setattr(tries, "listen", lambda *_: next(verdicts))  # noqa: B023
        (sentence,) = say(reranked, "One.", check=True).report.sentences
        assert (sentence.tries, sentence.error_rate) == (often, kept)
    assert (tiny.retries, tiny.rerank) == (1, False)


def test_a_language_that_the_recognizer_does_not_know_is_unchecked_and_told(tiny):
    report = say(tiny, "Eins und zwei.", check=True, language="de").report
    assert not report.checked and report.language == "de"
    assert any("'de'" in warning for warning in report.warnings)
    assert say(tiny, "One.", check=True, language="en").report.checked
    for language in ("fr-fr", "xx-nowhere"):
        with pytest.raises(LanguageError):
            say(tiny, "Un.", language=language)


def test_the_report_tells_how_it_was_made(tiny):
    audio = say(tiny, "One. Two.", check=True, seed=3)
    report = audio.report
    assert report.seed == 3 and report.backend == "flow" and report.settings["steps"] == 1
    assert report.model.name == "tiny" and report.model.licence == "Apache-2.0"
    weights = {"recognizer", "codec", "vocoder", "backend.flow", "backend.ar", "backend.masked"}
    assert set(report.model.parts) == weights
    assert report.seconds == len(audio.samples) / audio.sample_rate
    assert report.planned_seconds == pytest.approx(report.seconds, abs=1e-6)  # the plan holds to the frame
    assert set(report.stages) == {"text", "prompt", "plan", "backend", "check", "vocoder"}
    assert sum(report.stages.values()) <= report.spent_seconds == pytest.approx(report.real_time_factor * report.seconds)
    assert "tiny 0" in tiny.identity


# ------------------------------------------------------------------------------------------------------------- batch


def test_a_model_that_ends_at_once_is_reported(tiny, monkeypatch):
    flow = tiny.parts.backends["flow"]
    nothing = Frames(torch.zeros(1, flow.emits.width, 0), torch.zeros(1).long(), flow.emits)
    monkeypatch.setattr(flow, "generate", lambda *_: nothing)
    audio = tiny.synthesize("One.", check=False)
    assert audio.report.seconds == len(audio.samples) == 0 and audio.report.real_time_factor == 0


def test_a_batch_answers_in_order_and_a_failure_stops_nobody(tiny):
    requests = [Request(text, check=False, settings=FAST) for text in ("One.", "", "Two.")]
    first, failed, last = tiny.batch(iter(requests))
    assert isinstance(first, Audio) and isinstance(last, Audio)
    assert isinstance(failed, Failure) and failed.request is requests[1] and isinstance(failed.error, TextError)


def test_a_batch_answers_whatever_stands_in_a_request(tiny):
    wrong = [
        {"text": 5}, {"prompt": 123}, {"prompt": ("a.wav", "b.wav")}, {"prompt": {}}, {"prompt_text": 5}, {"backend": ["flow"]},
        {"backend": None}, {"seed": "x"}, {"speed": "fast"}, {"seconds": []}, {"language": 5}, {"language": ["en-us"]},
        {"settings": 5}, {"settings": {5: 5}}, {"settings": {"steps": []}},
    ]  # fmt: skip
    requests = [Request(**{"text": "One.", "check": False, "settings": FAST, **words}) for words in wrong]
    answers = list(tiny.batch([*requests, None, requests[0]]))
    assert all(isinstance(answer, Failure) and isinstance(answer.error, InputError) for answer in answers)
    assert [answer.request for answer in answers] == [*requests, None, requests[0]]


def test_a_batch_is_lazy(tiny):
    def forever():
        while True:
            yield Request("One.", check=False, settings=FAST)

    assert isinstance(next(tiny.batch(forever())), Audio)


# ---------------------------------------------------------------------------------------------------------- assembly


def test_parts_that_do_not_fit_are_refused_by_name(tiny_folder, monkeypatch):
    from tts import checkpoint

    loaded = checkpoint.load(tiny_folder)

    def with_part(role, **changes):
        part = loaded.system.parts[role]
        part = replace(part, config={**part.config, **changes})
        return replace(loaded, system=replace(loaded.system, parts={**loaded.system.parts, role: part}))

    with pytest.raises(FitError, match=r"encoder does not fit the recognizer: .*flavour"):
        Synthesizer(with_part("encoder", floor=1e-3))
    with pytest.raises(FitError, match=r"duration of .* reads the symbol table nonsense"):
        Synthesizer(with_part("duration", table="nonsense"))
    parts = {role: part for role, part in loaded.system.parts.items() if role != "vocoder"}
    with pytest.raises(FitError, match="has no vocoder"):
        Synthesizer(replace(loaded, system=replace(loaded.system, parts=parts)))
    with pytest.raises(FitError, match=r"8000 Hz|16000 Hz"):
        Synthesizer(replace(loaded, system=replace(loaded.system, sample_rate=8000)))


def test_every_part_of_the_shipped_configs_is_in_the_registry():
    from tts.checkpoint import System
    from tts.config import load_config

    for path in ("base-en.yaml", "tiny/system.yaml"):
        for role, part in load_config(System, ROOT / "configs" / path).parts.items():
            assert registry.find(role.partition(".")[0], part.type)


def test_an_unknown_device_is_refused(tiny_folder):
    with pytest.raises(SettingsError, match=r"^the device 'tpu9' cannot be used here; give cpu, or cuda with an NVIDIA GPU$"):
        Synthesizer.from_pretrained(tiny_folder, device="tpu9")


def test_a_prompt_may_be_encoded_once_for_many_texts(tiny, recording):
    encoded = tiny.encode_prompt(str(recording))
    once, again = say(tiny, "One.", encoded), say(tiny, "One.", str(recording))
    assert np.array_equal(once.samples, again.samples)
    assert not np.array_equal(once.samples, say(tiny, "One.", (speech(3.0, hz=220.0), RATE)).samples)
