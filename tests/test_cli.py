"""mynah on the command line: files, one sentence for each mistake, nothing half-written."""

import io
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import ROOT, speech

from tts import Request
from tts.cli import main


@pytest.fixture
def mynah(capsys):
    """Run a command; gives (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture
def say(mynah, tiny_folder):
    return lambda *words: mynah("say", *words, "--system", tiny_folder, "--set", "steps=1")


def test_say_writes_a_file_and_tells_about_it(say, recording, tmp_path):
    out = tmp_path / "hello.wav"
    code, told, complained = say("Hello [there](/ðˈɛɹ/).", "--prompt", recording, "--out", out, "--seed", 3, "--seconds", 1.5)
    assert code == 0 and f"{out}: 1.5" in told and "RTF" in told
    assert soundfile.info(out).duration == pytest.approx(1.5, abs=0.02)
    assert "warning: Hardly any speech" in complained  # as random weights hear it


def test_say_reads_standard_input(say, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("One and two.\n"))
    code, _, _ = say("-", "--out", tmp_path / "a.flac", "--no-check")
    assert code == 0 and soundfile.info(tmp_path / "a.flac").format == "FLAC"


def test_several_prompts_are_joined(say, recording, tmp_path):
    one, _, _ = say("One.", "--prompt", recording, "--out", tmp_path / "one.wav")
    two, _, _ = say("One.", "--prompt", recording, "--prompt", recording, "--out", tmp_path / "two.wav")
    assert one == two == 0 and (tmp_path / "one.wav").read_bytes() != (tmp_path / "two.wav").read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["", "--out", "a.wav"], "there is nothing to say in an empty text"),
        (["Hi.", "--out", "a.wav", "--prompt", "missing.wav"], "missing.wav does not exist"),
        (["Hi.", "--out", "nowhere/a.wav"], "nowhere/a.wav cannot be written"),
        (["Hi.", "--out", "a.xyz"], "must end in one of .wav"),
        (["Hi.", "--out", "."], "must end in one of .wav"),
        (["Hi.", "--out", "/dev/null/a.wav"], "/dev/null/a.wav cannot be written"),
        (["Hi.", "--out", f"{'a' * 300}.wav"], "cannot be written"),
        (["Hi.", "--out", "a.wav", "--backend", "flaw"], "did you mean 'flow'?"),
        (["Hi.", "--out", "a.wav", "--set", "stepz=4"], "did you mean 'steps'?"),
        (["Hi.", "--out", "a.wav", "--set", "steps"], "NAME=VALUE"),
        (["Hi.", "--out", "a.wav", "--speed", "2", "--seconds", "2"], "speed or seconds, not both"),
        (["Hi.", "--out", "a.wav", "--language", "klingon"], "klingon"),
        (["Hi.", "--out", "a.wav", "--device", "abacus"], "abacus"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(say, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, told, complained = say(*words)
    assert code == 2 and told == "" and list(tmp_path.iterdir()) == []
    assert complained.startswith("mynah: ") and complained.count("\n") == 1 and says in complained


def test_a_place_that_cannot_be_written_is_refused_before_the_work(say, tmp_path, monkeypatch):
    monkeypatch.setattr("tts.pipeline.Synthesizer.from_pretrained", None)
    (tmp_path / "taken.wav").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("taken.wav", "file/a.wav", "nowhere/a.wav"):
        code, _, complained = say("Hi.", "--out", tmp_path / name)
        assert code == 2 and f"{name} cannot be written" in complained
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.wav"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--speed", 0), "speed must be a number from 0.2 to 5"),
        (("--seed", -1), "seed must be"),
        (("--backend", "flown"), "unknown backend 'flown' (did you mean 'flow'?); tiny has flow, ar, masked, mixed"),
        (("--language", "xx"), "espeak-ng has no language 'xx'"),
        (("--set", "steps=abc"), "steps must be a whole number, got 'abc'"),
        (("--set", "solver="), "solver must be one of ['euler', 'midpoint'], got ''"),
        (("--set", "steps=[1"), "steps cannot be '[1'; a number is written steps=8, several steps=[8,4]"),
        (("--set", "stepps=3"), "unknown key 'stepps' (did you mean 'steps'?)"),
        (("--backend", "masked", "--set", "steps=abc"), "steps=8 or steps=[8,4]; got 'abc'"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_the_weights_are_loaded(
    mynah, tiny_folder, tmp_path, monkeypatch, words, says
):
    monkeypatch.setattr("tts.pipeline.Synthesizer.from_pretrained", None)
    monkeypatch.setattr("tts.checkpoint.Checkpoint.state", None)
    code, _, complained = mynah("say", "Hi.", "--out", tmp_path / "a.wav", "--system", tiny_folder, *words)
    assert code == 2 and says in complained, complained
    (tmp_path / "m.jsonl").write_text('{"text": "Hi."}\n')
    if "--speed" not in words:
        code, _, complained = mynah("batch", tmp_path / "m.jsonl", "--out", tmp_path / "out", "--system", tiny_folder, *words)
        assert code == 2 and says in complained, complained
        assert not (tmp_path / "out").exists()


def test_a_system_that_is_not_there_is_one_sentence(mynah, tmp_path):
    code, _, complained = mynah("say", "Hi.", "--system", "base-xx", "--out", tmp_path / "a.wav")
    assert code == 2 and "there is no system 'base-xx'" in complained


def test_reconstruct_writes_a_copy_and_tells_about_it(mynah, tiny_folder, recording, tmp_path):
    for words, told_of in (
        ((), "8 codebooks, 0.80 kbit/s"),
        (("--n-codebooks", 3), "3 codebooks"),
        (("--n-codebooks", 0), "vocoder alone"),
    ):
        out = tmp_path / "copy.flac"
        code, told, complained = mynah("reconstruct", recording, out, "--system", tiny_folder, *words)
        assert code == 0 and complained == "" and f"{out}: 3.00 s, made in" in told and "RTF" in told and told_of in told
        assert soundfile.info(out).frames == soundfile.info(recording).frames


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{me}", "a.wav", "--n-codebooks", "9"], "n_codebooks must be 1..8, or 0 for the vocoder alone, got 9"),
        (["missing.wav", "a.wav"], "missing.wav does not exist"),
        (["{none}", "a.wav"], "holds no samples"),
        (["{me}", "a.xyz"], "must end in one of .wav"),
    ],
)
def test_what_cannot_be_reconstructed_is_one_sentence(mynah, tiny_folder, recording, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    none = recording.parent / "none.wav"
    soundfile.write(none, [], 16_000)
    words = [word.format(me=recording, none=none) for word in words]
    code, told, complained = mynah("reconstruct", *words, "--system", tiny_folder)
    assert code == 2 and told == "" and list(tmp_path.iterdir()) == []
    assert complained.startswith("mynah: ") and complained.count("\n") == 1 and says in complained


def test_help_and_version_are_there_at_once(mynah):
    code, told, _ = mynah("--help")
    assert code == 0 and all(
        name in told for name in ("say", "reconstruct", "prepare", "align", "train", "assemble", "eval", "version")
    )
    code, told, _ = mynah("version")
    assert code == 0 and told.startswith("mynah-tts 0.")


def test_help_imports_nothing_heavy():
    import subprocess

    code = (
        "import sys\nfrom tts.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(len({'torch', 'numpy', 'librosa', 'omegaconf'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_from_recordings_to_a_system(mynah, tmp_path, tiny_folder):
    """prepare, align, train each part for two steps, assemble, speak, copy: the way of the tiny configs."""
    corpus = tmp_path / "corpus"
    rows = ["path\tspeaker\ttext"]
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", speech(1.5 + 0.2 * number, hz=120.0 + 10 * number), 16_000)
        rows.append(f"{number}.wav\ts{number % 2}\tOne and two and three.")
    (tmp_path / "list.tsv").write_text("\n".join(rows) + "\n")
    assert mynah("prepare", tmp_path / "list.tsv", corpus, "workers=1")[0] == 0
    data = [f"train={corpus}", f"valid={corpus}"]

    def train(what: str, config: str, *more: str) -> Path:
        out = tmp_path / what
        code, _, complained = mynah("train", what, ROOT / "configs/tiny" / config, *data, f"out={out}", *more)
        assert code == 0, complained
        return out

    asr = train("asr", "asr.yaml")
    seen = tmp_path / "seen"
    code, told, complained = mynah("align", corpus, "--recognizer", asr, "--phone-lm", corpus, "--pictures", seen, "--count", 2)
    assert code == 0 and "aligned 3" in told, complained
    assert sorted(path.name for path in seen.iterdir()) == ["other-00.png", "worst-00.png", "worst-01.png"]
    codec = train("codec", "codec.yaml")
    vocoder = train("vocoder", "vocoder.yaml")
    flow = train("backend", "flow.yaml", "loop.steps=2", "recipe.min_score=-99")
    duration = train("duration", "duration.yaml", "recipe.min_score=-99", "recipe.type=autoregressive")
    system = ROOT / "configs/base-en.yaml"
    runs = [f"recognizer={asr}", f"codec={codec}", f"vocoder={vocoder}", f"backend.flow={flow}", f"duration={duration}"]
    code, _, complained = mynah("assemble", system, tmp_path / "system", *runs[1:-1])
    assert code == 2 and "add recognizer=FOLDER duration=FOLDER" in complained and not (tmp_path / "system").exists()
    code, _, complained = mynah("assemble", system, tmp_path / "system", *runs)
    assert code == 0, complained
    words = ["--system", tmp_path / "system", "--prompt", tmp_path / "0.wav", "--out", tmp_path / "a.wav", "--set", "steps=1"]
    assert mynah("say", "One and two.", *words)[0] == 0
    code, told, complained = mynah("reconstruct", tmp_path / "0.wav", tmp_path / "copy.wav", "--system", tmp_path / "system")
    assert code == 0 and "2 codebooks, 0.15 kbit/s" in told, complained
    runs = runs[:-1]  # and with the rule that needs no training
    ruled = tmp_path / "ruled.yaml"
    ruled.write_text(system.read_text().replace("type: autoregressive}\n  backend", "type: prompt-rate}\n  backend"))
    assert mynah("assemble", ruled, tmp_path / "system", *runs, "--durations", corpus, "--phone-lm", corpus)[0] == 0
    assert (tmp_path / "system" / "phone_lm.safetensors").is_file()
    assert mynah("say", "One and two.", *words)[0] == 0
    assert soundfile.info(tmp_path / "a.wav").duration > 0.3


def test_train_names_a_wrong_key(mynah, tmp_path):
    code, _, complained = mynah("train", "asr", ROOT / "configs/tiny/asr.yaml", "loop.stepz=3")
    assert code == 2 and "did you mean 'steps'?" in complained


def test_train_says_what_can_be_trained_and_by_what(mynah):
    for words, says in (
        (("nonsense",), "unknown recipe 'nonsense'; choose one of asr, duration,"),
        (("asr",), "give a config to train asr by, such as configs/train/asr.yaml"),
        (("asr", "missing.yaml"), "missing.yaml does not exist; give a YAML file"),
    ):
        code, _, complained = mynah("train", *words)
        assert code == 2 and complained.startswith(f"mynah: {says}") and complained.count("\n") == 1


def test_eval_names_the_options_that_do_not_fit_and_no_others(mynah, tmp_path):
    for words, says in (
        (("--copies",), "say what to copy: --protocol FILE, a TSV of recordings"),
        (("--hard", "--copies"), "--copies speaks nothing, so it goes without --hard"),
        (
            ("--copies", "--set", "steps=2", "--prompt-snr", 0),
            "--copies speaks nothing, so it goes without --set and --prompt-snr",
        ),
        (("--hard", "--n-codebooks", 4), "--n-codebooks is for --copies; give both or neither"),
        (("--hard", "--protocol", "a", "--protocol", "b"), "--hard takes one --protocol, got 2"),
        (("--hard", "--tries", 0), "--tries must be 1 or more, got 0"),
        (("--hard", "--tries", 2, "--rerank", 1), "--rerank must be 2 or more, got 1"),
    ):
        code, _, complained = mynah("eval", "--out", tmp_path / "e", *words)
        assert code == 2 and complained == f"mynah: {says}\n"


def test_eval_hands_over_the_system_with_its_own_ears(mynah, tiny_folder, tmp_path, monkeypatch):
    asked = {}

    def run(protocol, synthesizer, folder, meters, **options):
        asked.update(options, errors=meters.phones(synthesizer.speak(Request("One.", settings={"steps": 1})).samples, "One."))
        return {"rows": {}, "interval": "95 % bootstrap"}

    monkeypatch.setattr("tts.eval.command.run", run)
    words = ("--out", tmp_path / "e", "--system", tiny_folder, "--seed", 4, "--set", "steps=2", "--set", "solver=midpoint")
    code, told, complained = mynah("eval", "--protocol", tmp_path / "p.tsv", *words)
    assert code == 0, complained
    assert asked["seed"] == 4 and asked["settings"] == {"steps": 2, "solver": "midpoint"} and asked["errors"][1] == 3
    assert "boot" in told  # the table, however narrow the terminal


def test_eval_of_copies_hands_over_the_parts_and_speaks_nothing(mynah, tiny_folder, tmp_path, monkeypatch):
    asked = {}

    def copy(encoder, vocoder, items, folder, meters, codec, n_codebooks, seed):
        asked.update(rate=vocoder.sample_rate, ids=[item.id for item in items], K=codec.emits.width, n=n_codebooks)
        return {"rows": {}, "interval": "95 % bootstrap"}

    monkeypatch.setattr("tts.eval.command.copy_synthesis", copy)
    monkeypatch.setattr("tts.eval.command.run", None)
    soundfile.write(tmp_path / "a.wav", speech(1.0), 16_000)
    (tmp_path / "p.tsv").write_text("id\tprompt\ttext\trecording\none\ta.wav\tOne.\ta.wav\n")
    words = ("eval", "--protocol", tmp_path / "p.tsv", "--out", tmp_path / "e", "--system", tiny_folder)
    code, _, complained = mynah(*words, "--copies", "--n-codebooks", 0, "--n-codebooks", 4)
    assert code == 0, complained
    assert asked == {"rate": 16_000, "ids": ["one"], "K": 8, "n": [0, 4]}
