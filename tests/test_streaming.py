"""Speech as it is made: chunks join to what is said at once, the first is out early, and closing ends the work."""

import gc
import weakref
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import RATE, speech
from hypothesis import given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

import tts.pipeline
from tts import parts as parts_module
from tts.errors import FitError, SettingsError, TextError
from tts.frames import Frames, FrameSpec
from tts.pipeline import Synthesizer
from tts.script import faded, faded_pieces
from tts.streaming import AFTER, grouped

TEXT = "One and two, [pause:0.1] three. Four!"


@dataclass(frozen=True)
class ParrotSettings:
    at_once: int = 1  # frames that a stream hands out together


class Parrot:
    """A backend of codes that says the prompt again and again, for as long as is planned, turned by the seed."""

    plans, prompt_seconds, settings_type = "exact", (0.5, 12.0), ParrotSettings

    def __init__(self, codec, table: str) -> None:
        self.emits, self.needs, self.table = codec.emits, {"codes": codec.emits}, table
        self.made = 0
        self.alive: weakref.ref | None = None

    def generate(self, utterance, settings) -> Frames:
        codes = utterance.prompt.frames["codes"].data
        T = int(utterance.plan.frames(self.emits.rate))
        data = codes.roll(int(utterance.seeds[0] % 7), 2).repeat(1, 1, -(-T // codes.shape[2]))[:, :, :T]
        return Frames(data, torch.tensor([T]), self.emits)

    def stream(self, utterance, settings):
        whole = self.generate(utterance, settings)
        self.alive = weakref.ref(whole.data)
        for piece in whole.data.split(settings.at_once, dim=2):
            self.made += piece.shape[2]
            yield Frames(piece, torch.tensor([piece.shape[2]]), self.emits)


@pytest.fixture
def speaking(tiny_folder, monkeypatch):
    """The tiny system with another backend "ar", that a function makes of its codec and table; None: with none."""

    def load(make) -> Synthesizer:
        def build(*given):
            built = parts_module.build_parts(*given)
            backends = {"flow": built.backends["flow"]}
            if make is not None:
                backends["ar"] = make(built.codec, built.front_end.table)
            made = replace(built, backends=backends)
            parts_module._check_frames(made)
            return made

        monkeypatch.setattr(tts.pipeline, "build_parts", build)
        return Synthesizer.from_pretrained(tiny_folder)

    return load


@pytest.fixture
def parrot(speaking) -> Synthesizer:
    return speaking(Parrot)


# ------------------------------------------------------------------------------------------------------------- codes


def test_prompts_carry_the_codes_of_their_mel_where_a_backend_reads_them(tiny, speaking, recording):
    deaf = speaking(None)
    for synthesizer, carries in ((tiny, True), (deaf, False)):
        for source in (str(recording), None, "voice:tiny", deaf.encode_prompt(str(recording))):
            voice = synthesizer.encode_prompt(source).prompt.frames
            assert ("codes" in voice) == carries
            if carries:
                assert torch.equal(voice["codes"].data, synthesizer.parts.codec.encode_frames(voice["mel"]).data)


def test_codes_go_through_the_codec_before_anybody_hears_them(parrot):
    audio = parrot.synthesize("One.", backend="ar", check=True)
    codec, vocoder = parrot.parts.codec, parrot.parts.vocoder
    assert audio.report.backend == "ar" and audio.report.checked
    assert len(audio.samples) % int(RATE / codec.emits.rate) == 0
    whole = np.abs(audio.samples).max()
    assert np.isfinite(audio.samples).all() and 0 < whole <= 0.99
    assert audio.report.planned_seconds == pytest.approx(audio.seconds)
    assert vocoder.accepts == codec.embeds


def test_codes_without_their_codec_are_refused(parrot):
    check = parts_module._check_frames
    with pytest.raises(FitError, match="no codec"):
        check(replace(parrot.parts, codec=None))
    other = Parrot(parrot.parts.codec, parrot.parts.front_end.table)
    other.needs, other.emits = {}, replace(other.emits, sizes=(17,) * 8)
    with pytest.raises(FitError, match="backend ar does not fit the codec: sizes"):
        check(replace(parrot.parts, backends={"ar": other}))
    other.needs, other.emits = {"codes": replace(other.emits, width=4)}, parrot.parts.codec.emits
    with pytest.raises(FitError, match=r"reads of a prompt.*width: 4 against 8"):
        check(replace(parrot.parts, backends={"ar": other}))


# ------------------------------------------------------------------------------------------------------------ chunks


@pytest.mark.parametrize(("at_once", "louder"), [(1, 1.0), (7, 1000.0), (1000, 1.0)])
def test_chunks_joined_are_what_is_said_at_once(parrot, at_once, louder, monkeypatch):
    decode = parrot.parts.vocoder.decode
    if louder > 1:  # so that samples are cut off
        monkeypatch.setattr(
            parrot.parts.vocoder, "decode", lambda frames: replace(decode(frames), samples=decode(frames).samples * louder)
        )
    settings = {"at_once": at_once}
    whole = parrot.synthesize(TEXT, backend="ar", seed=3, check=False, settings=settings)
    stream = parrot.stream(TEXT, seed=3, settings=settings)
    chunks = list(stream)
    assert all(chunk.dtype == np.float32 and chunk.ndim == 1 and len(chunk) for chunk in chunks)
    np.testing.assert_allclose(np.concatenate(chunks), whole.samples, atol=1e-5 * louder, rtol=0)
    theirs, ours = whole.report, stream.report
    assert (np.abs(whole.samples).max() == np.float32(0.99)) == (louder > 1)
    assert ours.sentences == theirs.sentences and ours.seconds == theirs.seconds and not ours.checked
    assert (ours.backend, ours.settings, ours.planned_seconds) == ("ar", settings, theirs.planned_seconds)


@pytest.mark.parametrize("pointer", ["plan", "model"])
def test_a_language_model_streams_what_it_says_at_once(tiny, pointer):
    options = {"seed": 5, "settings": {"pointer": pointer}}
    whole = tiny.synthesize(TEXT, backend="ar", check=False, **options)
    stream = tiny.stream(TEXT, **options)
    np.testing.assert_allclose(np.concatenate(list(stream)), whole.samples, atol=1e-5)
    assert stream.report.sentences == whole.report.sentences and stream.report.backend == "ar"
    again = tiny.synthesize(TEXT, backend="ar", check=True, **options)
    assert again.report.checked and again.report.sentences[0].tries in (1, 2)


def test_the_first_chunk_is_out_before_the_rest_is_made(parrot):
    backend = parrot.parts.backends["ar"]
    with parrot.stream("A sentence that is long enough to be said in many pieces, one after another.") as stream:
        assert backend.made == 0  # nothing is made before it is asked for
        next(stream)
        early = backend.made
        rest = list(stream)
    wait = round(AFTER * 25)
    assert wait < early <= wait + 3 < backend.made - 30 and len(rest) > 3
    report = stream.report
    assert 0 < report.first_audio_seconds < report.spent_seconds <= sum(report.stages.values()) + 1e-6


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 9))
@of_hypothesis(max_examples=60, deadline=None)
def test_pieces_are_the_same_however_frames_come(sizes, wait):
    spec = FrameSpec("codes", 1, Fraction(25), (99,))
    data = torch.arange(sum(sizes))[None, None]

    def coming(parts):
        return iter([Frames(part, torch.tensor([part.shape[2]]), spec) for part in parts])

    pieces = [piece.data for piece in grouped(coming(data.split(sizes, 2) if sizes else []), wait, 25.0)]
    at_once = [piece.data for piece in grouped(coming([data] if sum(sizes) else []), wait, 25.0)]
    assert [piece.tolist() for piece in pieces] == [piece.tolist() for piece in at_once]
    assert torch.equal(torch.cat(pieces, 2) if pieces else data, data)
    full = pieces[:-1][:3]  # the last is what is left
    assert [piece.shape[2] for piece in full] == [wait + 3, 6, 12][: len(full)]


def test_closing_early_ends_the_work_and_frees_everything(parrot):
    backend = parrot.parts.backends["ar"]
    stream = parrot.stream("A sentence that is long enough to be said in many pieces. And another one.")
    next(stream)
    assert backend.alive() is not None
    stream.close()
    gc.collect()
    assert backend.alive() is None and stream.report is None
    assert list(stream) == []


def test_a_backend_that_makes_a_line_at_once_is_heard_line_by_line(tiny):
    settings = {"steps": 1}
    whole = tiny.synthesize(TEXT, check=False, settings=settings)
    stream = tiny.stream(TEXT, backend="flow", settings=settings)
    assert np.abs(whole.samples).max() < 0.99
    np.testing.assert_allclose(np.concatenate(list(stream)), whole.samples, atol=1e-5)
    assert stream.report.backend == "flow" and stream.report.first_audio_seconds > 0


def test_what_cannot_be_said_is_refused_at_once(parrot):
    with pytest.raises(TextError):
        parrot.stream("")
    for wrong in ({"seed": -1}, {"speed": 0}, {"backend": "nobody"}, {"settings": {"steps": 3}}):
        with pytest.raises(SettingsError):
            parrot.stream("One.", **wrong)


def test_two_streams_of_one_system_do_not_mix(parrot):
    alone = [np.concatenate(list(parrot.stream(text))) for text in ("One and two.", "Three and four.")]
    one, other = parrot.stream("One and two."), parrot.stream("Three and four.")
    said: list[list[np.ndarray]] = [[], []]
    for k in (0, 1, 1, 0) * 50:
        said[k].extend(chunk for chunk in [next((one, other)[k], None)] if chunk is not None)
    assert all(np.array_equal(np.concatenate(chunks), expected) for chunks, expected in zip(said, alone, strict=True))


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 6))
@of_hypothesis(max_examples=60, deadline=None)
def test_pieces_fade_as_the_whole_does(sizes, n):
    whole = torch.ones(sum(sizes))
    pieces = list(faded_pieces(whole.split(sizes) if sizes else [], n))
    assert torch.equal(torch.cat([torch.zeros(0), *pieces]), faded(whole, n))


def test_prompts_from_elsewhere_get_codes_too(parrot, speaking):
    heard = speaking(None).encode_prompt((speech(2.0), RATE))
    one, other = (parrot.synthesize("One.", voice, backend="ar", check=False) for voice in (heard, (speech(2.0), RATE)))
    assert np.array_equal(one.samples, other.samples)


def test_a_stream_that_is_listened_to_is_the_same_and_says_afterwards_what_was_heard(tiny):
    plain, heard = (tiny.stream("One. Two.", backend="ar", check=check) for check in (False, True))
    assert np.array_equal(np.concatenate(list(plain)), np.concatenate(list(heard)))
    assert not plain.report.checked and heard.report.checked and heard.report.stages["check"] > 0
    for sentence in heard.report.sentences:
        assert sentence.passed is not None and sentence.error_rate is not None and sentence.tries == 1
    unheard = tiny.stream("Eins.", backend="ar", language="de", check=True)
    list(unheard)
    assert not unheard.report.checked and any("Nobody listened" in warning for warning in unheard.report.warnings)
