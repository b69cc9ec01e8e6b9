"""Manifests of batches: every kind says the same, and one that cannot be used is one sentence."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts import Request
from tts.errors import InputError
from tts.serve.jobs.manifests import COLUMNS, Job, read_manifest, travelling


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_kind_of_manifest_says_the_same(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"id": "a", "text": "Hi, you.", "prompt": "p/a.wav", "prompt_text": "So."}\n')
    (tmp_path / "m.csv").write_text('id,text,prompt,prompt_text\r\na,"Hi, you.",p/a.wav,So.\r\n')
    (tmp_path / "excel.csv").write_text("\ufeffid;text;prompt;prompt_text\na;Hi, you.;p/a.wav;So.\n", encoding="utf-8")
    (tmp_path / "m.tsv").write_text("id\ttext\tprompt\tprompt_text\na\tHi, you.\tp/a.wav\tSo.\n")
    (tmp_path / "m.lst").write_text("a|So.|p/a.wav|Hi, you.\n")
    jobs = {path.name: read_manifest(path) for path in tmp_path.iterdir()}
    (wanted,) = jobs["m.jsonl"]
    assert len(jobs) == 5 and wanted.request.text == "Hi, you." and wanted.request.prompt_text == "So."
    assert wanted.request.prompt == str(tmp_path.resolve() / "p/a.wav"), "paths are relative to the manifest"
    assert all([job.request for job in found] == [wanted.request] for found in jobs.values())


def test_a_row_may_say_everything_itself_and_the_rest_travels(tmp_path):
    (tmp_path / "m.csv").write_text(
        "id,text,voice,seed,speed,seconds,language,backend,check,settings,settings.steps,note,spede\n"
        'a,Hi.,ann,7,,2.5,de,masked,no,"{""top_p"": 0.5}",4,"x, y",\n'
        "b,Hi.,,,,,,,,,,,1\n"
    )
    one, two = read_manifest(tmp_path / "m.csv", Request("", "voice:bob", None, "flow", 3, 1.5, settings={"guidance": 2}))
    request = one.request
    assert (request.prompt, request.seed, request.speed, request.seconds) == ("voice:ann", 7, 1.0, 2.5)
    assert (request.language, request.backend, request.check) == ("de", "masked", False)
    assert request.settings == {"top_p": 0.5, "steps": 4}, "settings of another backend are not its own"
    assert one.extra == {"note": "x, y"} and two.extra == {"spede": "1"}
    assert (two.request.prompt, two.request.speed, two.request.settings) == ("voice:bob", 1.5, {"guidance": 2})
    assert travelling([one, two]) == ["note", "spede (did you mean 'speed'?)"]


def test_a_seed_comes_from_the_id_and_never_from_the_row(tmp_path):
    rows = [{"id": "a", "text": "Hi."}, {"id": "b", "text": "Hi."}, {"text": "Hi."}, {"text": "Hi."}]
    there = {job.id: job.request.seed for job in read_manifest(write(tmp_path / "m.jsonl", rows))}
    back = {job.id: job.request.seed for job in read_manifest(write(tmp_path / "m.jsonl", rows[::-1]))}
    other = {job.id: job.request.seed for job in read_manifest(tmp_path / "m.jsonl", Request("", seed=1))}
    assert there == back and len(set(there.values())) == 4
    assert not set(there.values()) & set(other.values())
    own = read_manifest(write(tmp_path / "own.jsonl", [{"id": "a", "text": "Hi.", "seed": 5}]), Request("", seed=1))
    assert own[0].request.seed == 5


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.jsonl", '{"text": "a"}\n{"text": ', "row 2: this is not JSON"),
        ("m.jsonl", "[1]", "row 1: write an object"),
        ("m.jsonl", '{"text": ' + "[" * 100_000, "row 1: this is not JSON"),
        ("m.jsonl", '{"text": "\\ud800"}', "row 1: it holds half of a character"),
        ("m.jsonl", '{"id": "a"}', "row 1, column text: it is missing"),
        ("m.jsonl", '{"text": 5}', "row 1, column text: it must be text, got 5"),
        ("m.jsonl", '{"text": "a", "seed": 1.5}', "row 1, column seed: it must be a whole number, got 1.5"),
        ("m.jsonl", '{"text": "a", "seed": -1}', "row 1, column seed: seed must be"),
        ("m.jsonl", '{"text": "a", "speed": 9}', "row 1, column speed: speed must be"),
        ("m.jsonl", '{"text": "a", "speed": 2, "seconds": 2}', "speed or seconds, not both"),
        ("m.jsonl", '{"text": "a", "prompt": "a.wav", "voice": "b"}', "row 1, column voice: give a prompt or a voice"),
        ("m.jsonl", '{"text": "a", "prompt": [1]}', "row 1, column prompt"),
        ("m.jsonl", '{"text": "a", "settings": "steps"}', "row 1, column settings: write JSON"),
        ("m.jsonl", '{"text": "a", "check": "perhaps"}', "row 1, column check: it must be true or false"),
        ("m.jsonl", '{"id": "a", "text": "a"}\n\n{"id": "a", "text": "b"}', "row 3, column id: 'a' is that of row 1"),
        ("m.csv", "id,words\na,b\n", "row 1, column text: the header is id, words"),
        ("m.csv", "id,text\na,b,c\n", "row 2: 3 fields under 2 columns"),
        ("m.csv", 'id,text,seed\na,"b",x\n', "row 2, column seed: it must be a whole number, got 'x'"),
        ("m.csv", 'id,text\na,"b"c\n', "row 2: the fields cannot be told apart"),
        ("m.lst", "a|b|c\n", "row 1: 3 fields between bars"),
        ("m.json", '[\n{"text": "a"}]', "m.json is one list of JSON; a manifest is JSONL"),
        ("m.xlsx", b"PK\3\4\0\0", "m.xlsx holds zero bytes, so it is no text; save a spreadsheet as CSV"),
        ("m.csv", "", "holds no items"),
        ("m.csv", "text\n", "holds no items"),
        ("m.csv", b"text\n\xff\n", "cannot be read as UTF-8"),
        ("none.csv", None, "does not exist"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_sentence(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"^[^\n]+$") as refused:
        read_manifest(tmp_path / name)
    assert says in str(refused.value) and name in str(refused.value)


TEXT = st.text(max_size=20) | st.sampled_from(["One.", "a.wav", "voice:ann", "1", "true", '{"steps": 1}', "\t", "|"])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.lists(TEXT, max_size=2)
ROWS = st.dictionaries(st.sampled_from([*COLUMNS, "settings.steps", "note"]) | TEXT, VALUES, max_size=6)
LINES = st.lists(ROWS.map(json.dumps) | TEXT, max_size=4).map("\n".join)


@given(content=LINES.map(str.encode) | st.binary(max_size=60), kind=st.sampled_from(["jsonl", "csv", "tsv", "lst"]))
@settings(max_examples=150, deadline=None)
def test_whatever_a_manifest_holds_it_is_understood_or_refused(tmp_path_factory, content, kind):
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    path.write_bytes(content)
    try:
        jobs = read_manifest(path)
    except InputError as error:
        assert path.name in str(error)
    else:
        assert jobs and len({job.file_name for job in jobs}) == len(jobs)


def test_a_file_is_called_as_its_id_and_never_lies_elsewhere():
    names = {name: Job(name, 1, Request("Hi.")).file_name for name in ("a-1_B", "../a", "a/b", "a b", "a.b", "é", "x" * 300)}
    assert names["a-1_B"] == "a-1_B" and len(set(names.values())) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzB0123456789_-") and len(name) < 100 for name in names.values())
