"""Protocols are read as they are written, and every mistake in one is named with its line."""

from pathlib import Path

import pytest

from tts.errors import InputError
from tts.eval.protocols import COPIED, Item, from_manifest, read_protocol, shorten, write_protocol


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "wavs").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "wavs" / name).touch()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "protocol"
    path.write_text(text, encoding="utf-8")
    return path


def test_seed_tts_eval_list_is_read_with_and_without_recording(folder: Path) -> None:
    path = write(folder, "one|Said before.|wavs/a.wav|To say.\n\ntwo||wavs/a.wav|To say too.|wavs/b.wav\n")
    a, b = folder / "wavs/a.wav", folder / "wavs/b.wav"
    assert read_protocol(path) == [Item("one", "To say.", a, "Said before."), Item("two", "To say too.", a, None, b)]


def test_tsv_columns_come_in_any_order_and_optional_ones_may_be_missing(folder: Path) -> None:
    path = write(folder, "\ufefftext\tspeaker\tid\tprompt\nTo say.\tanna\tone\twavs/a.wav\n")
    assert read_protocol(path) == [Item("one", "To say.", folder / "wavs/a.wav", speaker="anna")]


def test_written_protocol_reads_back_from_another_folder(folder: Path) -> None:
    items = [
        Item("x", "Hello.", folder / "wavs/a.wav", "Hi.", folder / "wavs/b.wav", "anna"),
        Item("y", "Yes.", folder / "wavs/b.wav"),
    ]
    (folder / "elsewhere").mkdir()
    write_protocol(items, folder / "elsewhere/p.tsv")
    assert read_protocol(folder / "elsewhere/p.tsv") == items


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one|x|wavs/a.wav", "line 1: 3 fields"),
        ("one|x|wavs/a.wav|Yes.\none|x|wavs/a.wav|No.", "line 2: the id 'one' was used before"),
        ("one|x|wavs/a.wav|Yes.\ntwo|x|wavs/c.wav|No.", "line 2: no prompt"),
        ("one|x|wavs/a.wav|Yes.|wavs/c.wav", "line 1: no recording"),
        ("one|x|wavs/a.wav| ", "line 1: text is empty"),
        ("id\tprompt\ttext\none\twavs/a.wav", "line 2: text is empty"),
        ("id\tprompt\ttext\none\twavs/a.wav\tYes.\tand", "line 2: 4 fields under 3 columns"),
        ("id\tprompt\none\twavs/a.wav", "line 1: the header"),
        ("id\tprompt\ttext\tprompt_txt\n", "line 1: unknown column 'prompt_txt' (did you mean 'prompt_text'?)"),
        ("id\tprompt\ttext\n", "holds no items"),
        ("", "holds no items"),
    ],
)
def test_mistakes_are_named_with_their_line(folder: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_protocol(write(folder, text))
    assert said in str(caught.value)


def test_recordings_to_be_copied_need_neither_text_nor_prompt(folder: Path) -> None:
    path = write(folder, "id\trecording\ttext\none\twavs/a.wav\t\ntwo\twavs/b.wav\tYes.\n")
    a, b = folder / "wavs/a.wav", folder / "wavs/b.wav"
    assert read_protocol(path, COPIED) == [Item("one", "", a, None, a), Item("two", "Yes.", b, None, b)]
    with pytest.raises(InputError, match="line 1: the header is id, recording, text; a protocol needs id, prompt, text"):
        read_protocol(path)
    with pytest.raises(InputError, match="line 1: recording is empty"):
        read_protocol(write(folder, "one|x|wavs/a.wav|Yes."), COPIED)


def test_missing_and_binary_files_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_protocol(folder / "none")
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_protocol(folder / "binary")


def test_file_names_are_safe_and_differ_where_ids_differ() -> None:
    names = [Item(name, "", Path()).file_name for name in ("a-1_b", "a/b", "a.b", "..")]
    assert names[0] == "a-1_b" and len(set(names)) == 4
    assert not any("/" in name or "." in name for name in names)


def test_manifest_gives_both_protocols_without_choice(tmp_path: Path) -> None:
    rows = ["path\tcorpus\tspeaker\tseconds\ttext"]
    rows += [f"a/{i}.wav\tread\tanna\t{seconds}\tWORDS {i}" for i, seconds in enumerate([2.0, 5.0, 12.0, 20.0, 2.5, 3.0])]
    rows += ["b/1.wav\tother\tbert\t5.0\tWORDS", "c/1.wav\tvoices\tcora\t5.0\t", "d/1.wav\tvoices\tdora\t5.0\t"]
    (tmp_path / "m.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "texts").write_text(
        "too short\none two three four five\n" + "long " * 26 + "\nsix seven eight nine ten\nand one more of them\n"
    )
    again, new = from_manifest(tmp_path / "m.tsv", tmp_path / "texts", per_speaker=2, corpora={"read"})
    # of the clips 1, 2, 4, 5 (2.5 to 12 s) every second one; the prompt is the next that lasts 3 to 10 s
    assert [(item.text, item.prompt_text) for item in again] == [("WORDS 1", "WORDS 5"), ("WORDS 4", "WORDS 5")]
    assert again[0].recording == tmp_path / "a/1.wav" and again[0].speaker == "anna"
    assert [(item.speaker, item.text) for item in new] == [
        ("cora", "one two three four five"),
        ("dora", "six seven eight nine ten"),
    ]
    assert from_manifest(tmp_path / "m.tsv", tmp_path / "texts", 2, {"read"}) == (again, new)


def test_shortened_items_have_one_to_three_words_and_no_recording() -> None:
    short = shorten([Item(str(i), "one two three four", Path("a"), recording=Path("b")) for i in range(4)])
    assert [item.text for item in short] == ["one", "one two", "one two three", "one"]
    assert all(item.recording is None for item in short)
