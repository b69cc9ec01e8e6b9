"""The README tells the truth: its Python runs, its table and its commands exist, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer.main

from tts.weights import embedded

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {
    "README.md": README,
    **{
        f"docs/{name}.md": (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for name in ("architecture", "ar", "batch", "codec", "demo", "long-text", "server")
    },
}
TABLE = re.findall(r"^\| (.+?) \| `(\S+\.py)` \| `(\w+)` \|$", README, re.MULTILINE)
LATER = {"docs/hello.wav"}  # made by the embedded weights, and linked to where there are any


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("mynah ")]


def test_the_readme_names_the_two_commands_of_a_fresh_clone():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in ("demo", "test"):
        assert f"make {command}" in README
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


def test_the_table_has_rows():
    assert len(TABLE) > 30
    assert len(TABLE) == README.count(".py` | `"), "a row is not written like the others"


@pytest.mark.parametrize(("words", "file", "name"), TABLE, ids=[words for words, _, _ in TABLE])
def test_where_is(words, file, name):
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^(def|class) {name}\b|^{name}\b.* = ", source, re.MULTILINE), f"{file} does not define {name}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_a_document_exists(document):
    text = DOCUMENTS[document]
    files = re.findall(r"`((?:tts|vocoders|codecs|configs|tests|benchmarks|docs)/[\w./-]*)`", text)
    links = [link for link in re.findall(r"\]\((?!https?:|/|#)([^)]+)\)", text) if embedded() or link not in LATER]
    assert files
    for path in files:
        assert (ROOT / path).exists(), f"{document} names {path}"
    for link in links:
        assert (ROOT / document).parent.joinpath(link).exists(), f"{document} links to {link}"


def test_every_command_of_the_readme_is_understood():
    from tts.cli import app

    assert len(commands()) > 5
    for words in commands():
        command = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), f"the command line has no {words}"
        command.make_context(command.name, list(words))  # reads the words without running them; exits where it cannot
        for word in words:
            if word.startswith("configs/"):
                assert (ROOT / word).is_file(), word


@pytest.mark.skipif(not embedded(), reason="no embedded weights")
def test_the_six_lines_run(tmp_path, monkeypatch, capsys):
    import soundfile

    from tts import synthesize

    lines, streamed = blocks("python")
    assert len(re.findall(r"^.+$", lines, re.MULTILINE)) == 6
    monkeypatch.chdir(tmp_path)
    synthesize("The cat sat on the mat and looked at me.").save("me.wav")
    names: dict[str, object] = {}
    exec(compile(lines, "README.md", "exec"), names)
    exec(compile(streamed, "README.md", "exec"), names)
    assert np.asarray(names["chunk"]).dtype == np.float32
    assert float(capsys.readouterr().out.split()[0]) > 0.5
    for path in (tmp_path / "hello.wav", tmp_path / "again.wav"):
        samples, rate = soundfile.read(path)
        assert len(samples) > 0.5 * rate
        assert np.abs(samples).max() > 0.01
