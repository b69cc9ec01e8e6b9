"""Voices that a person keeps: made of recordings, found by name everywhere, handed on; nothing outside of their folder."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, speech
from safetensors.torch import load_file, save_file

from tts.cli import main
from tts.errors import CheckpointError, FitError, PromptError, SettingsError
from tts.serve.voices import add_voice, clarity, export_voice, import_voice, remove_voice, sources_of
from tts.voices import about_voice, find_voice, load_voice, read_voice, user_folder, voice_names

FAST = {"steps": 1}


@pytest.fixture
def mynah(capsys):
    """Run a command; gives (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        return int(stopped.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def kept(tiny, home, recording):
    """The file of a voice "ann", made of one recording."""
    add_voice(tiny, "ann", [recording], consent="I agree. Ann, 2 May")
    return home / "voices" / "ann.safetensors"


def test_a_kept_voice_says_what_its_prompt_says(tiny, kept):
    named = tiny.synthesize("One.", "voice:ann", settings=FAST)
    voice = load_voice(tiny.folder, "ann", tiny.parts.encoder, tiny.parts.front_end.table)
    assert np.array_equal(named.samples, tiny.synthesize("One.", voice, settings=FAST).samples)
    assert not np.array_equal(named.samples, tiny.synthesize("One.", "voice:tiny", settings=FAST).samples)
    assert tiny.voices == ["tiny", "ann"]


def test_a_kept_voice_speaks_through_backends_of_codes_and_as_a_stream(tiny, kept):
    assert len(tiny.synthesize("One.", "voice:ann", backend="masked", check=False).samples)
    assert len(np.concatenate(list(tiny.stream("One.", "voice:ann", backend="flow", settings=FAST))))


def test_a_file_tells_where_the_voice_comes_from(tiny, kept, recording):
    about = about_voice(kept)
    assert about["consent"] == "I agree. Ann, 2 May" and about["system"] == tiny.identity
    (source,) = sources_of(about)
    assert source.file == recording.name and source.used and len(source.sha256) == 64 and source.seconds == 3.0
    assert str(recording.parent) not in json.dumps(about), "folders are nobody's business"


def test_the_clearest_recording_is_used_and_statistics_are_over_all(tiny, home, tmp_path, monkeypatch):
    for name, hz in (("low", 100.0), ("high", 220.0), ("mid", 150.0)):
        soundfile.write(tmp_path / f"{name}.wav", speech(2.0, hz=hz), RATE)
    paths = [tmp_path / f"{name}.wav" for name in ("low", "high", "mid")]
    loudest = [float(tiny.encode_prompt(path).prompt.frames["mel"].data.sum()) for path in paths]
    monkeypatch.setattr("tts.serve.voices.clarity", lambda _, voice: float(voice.prompt.frames["mel"].data.sum()))
    add_voice(tiny, "all", paths)
    used = [source.used for source in sources_of(about_voice(home / "voices/all.safetensors"))]
    assert used == [value == max(loudest) for value in loudest] and sum(used) == 1
    mels = torch.cat([tiny.encode_prompt(path).prompt.frames["mel"].data[0] for path in paths], 1)
    statistics = load_file(home / "voices/all.safetensors")["statistics"]
    assert torch.allclose(statistics[0], mels.mean(1)) and torch.allclose(statistics[1], mels.std(1, correction=0))


def test_more_clear_speech_counts_for_more(tiny):
    posteriors = torch.tensor([[0.0, -9.0, -9.0], [-9.0, 0.0, 0.0]])  # [V, T]: a silence, then two frames of a phone

    class Ears:
        def posteriors(self, mel):
            return type("Heard", (), {"data": posteriors[None]})

    class Deaf:
        parts = type("Parts", (), {"device": "cpu", "recognizer": Ears()})

    assert clarity(Deaf(), tiny.encode_prompt(None)) == pytest.approx(2.0)


def test_a_recording_longer_than_a_prompt_may_be_is_heard_in_pieces(tiny, home, recording, monkeypatch):
    monkeypatch.setattr("tts.serve.voices.SECONDS", (0.5, 2.0))
    monkeypatch.setattr("tts.serve.voices.PIECE", 1.0)
    heard = []
    encode = tiny.encode_prompt
    monkeypatch.setattr(tiny, "encode_prompt", lambda source, text=None: heard.append(source) or encode(source, text))
    voice = add_voice(tiny, "long", [recording])
    assert len(heard) == 3 and voice.seconds < 1.2


def test_texts_are_one_for_each_recording(tiny, home, recording):
    add_voice(tiny, "told", [recording, recording], ["One.", "Two."])
    assert about_voice(home / "voices/told.safetensors")["text"] in ("One.", "Two.")
    with pytest.raises(SettingsError, match="2 recordings, or none; got 1"):
        add_voice(tiny, "ann", [recording, recording], ["One."])
    with pytest.raises(PromptError, match="one recording or more"):
        add_voice(tiny, "ann", [])


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a\\b", ".hidden", "-x", "a b", "a.b", "é", "x" * 65, "a\0", "a\n"])
def test_a_name_cannot_leave_the_folder(tiny, home, recording, name):
    with pytest.raises(SettingsError, match="cannot be called"):
        add_voice(tiny, name, [recording])
    with pytest.raises(PromptError, match="has no voice"):
        tiny.encode_prompt(f"voice:{name}")
    with pytest.raises(PromptError, match="no voice"):
        remove_voice(name)
    assert list(home.iterdir()) == []


def test_a_name_that_is_taken_is_refused_unless_it_shall_be_replaced(tiny, kept, recording):
    with pytest.raises(SettingsError, match="say --replace"):
        add_voice(tiny, "ann", [recording])
    with pytest.raises(SettingsError, match="brings a voice 'tiny' itself"):
        add_voice(tiny, "tiny", [recording], replace=True)
    add_voice(tiny, "ann", [recording], consent="newly", replace=True)
    assert about_voice(kept)["consent"] == "newly"


def test_an_unknown_voice_is_answered_with_the_nearest(tiny, kept):
    with pytest.raises(PromptError, match=r"did you mean 'ann'\?\); it has tiny; yours are ann"):
        tiny.synthesize("One.", "voice:anm")


def test_a_built_in_voice_comes_first(tiny, home, kept):
    shutil.copy(kept, home / "voices/tiny.safetensors")
    assert find_voice(tiny.folder, "tiny").is_relative_to(tiny.folder) and tiny.voices == ["tiny", "ann"]


def test_what_is_exported_is_imported_elsewhere_and_says_the_same(tiny, kept, tmp_path, home, monkeypatch):
    said = tiny.synthesize("One.", "voice:ann", settings=FAST).samples
    export_voice(tiny.folder, "ann", tmp_path / "to-you.safetensors")
    monkeypatch.setenv("MYNAH_HOME", str(tmp_path / "other"))
    assert import_voice(tiny, tmp_path / "to-you.safetensors") == "to-you"
    assert np.array_equal(said, tiny.synthesize("One.", "voice:to-you", settings=FAST).samples)
    assert about_voice(user_folder() / "voices/to-you.safetensors")["consent"].startswith("I agree")
    remove_voice("to-you")
    assert voice_names(user_folder()) == []


def broken(kept, **tensors):
    about = about_voice(kept)
    path = kept.parent.parent / "broken.safetensors"
    save_file({**load_file(kept), **tensors}, path, about)
    return path


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"mel": torch.zeros(3, 10)}, "80 finite bands"),
        ({"mel": torch.full((80, 10), float("nan"))}, "80 finite bands"),
        ({"mel": torch.zeros(80, 3_001)}, "60 are the most"),
        ({"tokens": torch.tensor([10**6]), "token_frames": torch.tensor([3])}, "no symbols"),
        ({"tokens": torch.tensor([-1]), "token_frames": torch.tensor([3])}, "no symbols"),
        ({"tokens": torch.tensor([1, 2]), "token_frames": torch.tensor([3])}, "not two rows"),
        ({"tokens": torch.tensor([1]), "token_frames": torch.tensor([3])}, "3 frames of tokens lie over"),
        ({"tokens": torch.tensor([1.0]), "token_frames": torch.tensor([3.0])}, "not two rows"),
    ],
)
def test_a_file_that_is_no_voice_is_not_imported(tiny, kept, tensors, says):
    with pytest.raises(CheckpointError, match=says):
        import_voice(tiny, broken(kept, **tensors), "new")
    assert voice_names(user_folder()) == ["ann"]


def test_a_file_of_other_bytes_or_none_is_not_imported(tiny, kept, tmp_path):
    (tmp_path / "noise.safetensors").write_bytes(b"\0" * 1000)
    for name, error in (("noise", CheckpointError), ("missing", PromptError)):
        with pytest.raises(error):
            import_voice(tiny, tmp_path / f"{name}.safetensors")


def test_a_voice_of_another_system_is_refused_with_what_to_do(tiny, kept):
    about = about_voice(kept) | {"table": "of other symbols", "system": "base-xx 7"}
    save_file(load_file(kept), kept, about)
    with pytest.raises(FitError, match=r"another system \(base-xx 7\).*mynah voices add"):
        tiny.synthesize("One.", "voice:ann")
    with pytest.raises(FitError):
        read_voice(kept, tiny.parts.encoder, tiny.parts.front_end.table)


def test_the_commands_keep_show_list_hand_on_and_remove_a_voice(mynah, tiny_folder, recording, tmp_path, home):
    system = ("--system", tiny_folder)
    code, told, warned = mynah("voices", "add", "me", recording, recording, *system)
    assert code == 0 and "voice:me: 3.0 s of 2 recordings" in told and "no consent is recorded" in warned
    code, told, _ = mynah("voices", "list", *system)
    assert code == 0 and "tiny" in told and "none recorded" in told
    code, told, _ = mynah("voices", "show", "me", *system)
    assert code == 0 and "consent: none recorded" in told and told.count("recording: me.wav") == 2
    code, told, _ = mynah("voices", "show", "tiny", *system)
    assert code == 0 and "its model card" in told and "consent" not in told
    assert mynah("voices", "export", "me", tmp_path / "you.safetensors", *system)[0] == 0
    code, told, _ = mynah("voices", "import", tmp_path / "you.safetensors", *system)
    assert code == 0 and "voice:you is yours" in told
    out = tmp_path / "a.wav"
    assert mynah("say", "One.", "--prompt", "voice:you", "--out", out, *system, "--set", "steps=1")[0] == 0 and out.exists()
    assert mynah("voices", "remove", "me")[0] == 0 and voice_names(home) == ["you"]
    for words in (("remove", "me"), ("show", "me", *system), ("add", "a/b", recording, *system)):
        code, told, complained = mynah("voices", *words)
        assert code == 2 and told == "" and complained.startswith("mynah: ") and complained.count("\n") == 1
