"""Word replacements: the same words on every call, counted where they lie, and truthful about what was kept."""

import numpy as np
import pytest
import torch
from conftest import RATE, speech
from test_eval_phones import SECOND, Hears, Spells

from tts import editing
from tts.asr.align import Alignment
from tts.audio import save
from tts.errors import InputError
from tts.eval.edits import _outside, edit_table, replacements, run_edits, span_errors
from tts.eval.phones import PhoneEars
from tts.eval.protocols import Item
from tts.result import Edit

pytest.importorskip("jiwer")


def items(tmp_path, *texts: str) -> list[Item]:
    sounds = [save(tmp_path / f"{n}.wav", torch.from_numpy(speech(3.0)), RATE) for n in range(len(texts))]
    return [Item(f"item-{n}", text, sound, recording=sound) for n, (text, sound) in enumerate(zip(texts, sounds, strict=True))]


def test_a_word_inside_becomes_a_word_of_another_text_the_same_on_every_call(tmp_path):
    given = items(tmp_path, "on monday we went home", "the old house stood there", "no no no")
    chosen = replacements(given, 2)
    assert chosen == replacements(given, 2)
    for one in chosen:
        before, after = one.item.text.split(), one.text.split()
        assert [a for a, b in zip(before, after, strict=True) if a != b] == [one.old]
        assert one.new not in before and before.index(one.old) not in (0, len(before) - 1)
    with pytest.raises(InputError, match="3 words cannot be replaced: 2 items"):
        replacements(given, 3)


def test_only_phones_where_the_new_word_lies_are_counted():
    class Spaced(Spells):
        """Three words of three phones."""

        def encode(self, text, language):
            phones = super().encode(text, language)
            return [1, *phones[:3], 1, *phones[3:6], 1, *phones[6:], 1]

    def counted(heard: str) -> tuple[int, int]:
        return span_errors(PhoneEars(Hears(heard), Spaced()), SECOND, "k æ t d ɔ ɡ m æ t", "k æ t p ɪ ɡ m æ t")

    assert counted("k æ t d ɔ ɡ m æ t") == (0, 3)
    assert counted("s æ s d ɔ ɡ m æ s")[0] == 0  # errors of other words are not its own
    assert counted("k æ t d ɪ ɡ m æ t")[0] == 1


def test_what_lies_outside_of_edits_is_compared_on_both_time_lines():
    before, after = np.arange(10), np.array([0, 1, 2, 50, 51, 52, 6, 7, 8, 9])
    assert all(np.array_equal(a, b) for a, b in _outside(before, after, [Edit((3, 6), (3, 6))]))
    assert not all(np.array_equal(a, b) for a, b in _outside(before, after, [Edit((4, 6), (4, 6))]))
    longer = np.array([0, 1, 50, 51, 52, 5, 6, 7, 8, 9])
    assert all(np.array_equal(a, b) for a, b in _outside(before, longer, [Edit((2, 5), (2, 5))]))


def test_a_report_tells_of_every_replacement_and_what_was_kept(tiny, tmp_path, monkeypatch):
    def align(log_probs, tokens, rate):  # the tiny recognizer hears nothing
        ends = torch.linspace(0, len(log_probs), len(tokens) + 1).round().long()
        return Alignment(torch.diff(ends).tolist(), -0.1)

    monkeypatch.setattr(editing, "align", align)
    chosen = replacements(items(tmp_path, "on monday we went home", "the old house stood there"), 2)
    ears = PhoneEars(tiny.parts.recognizer, tiny.parts.front_end, tiny.parts.encoder)
    report = run_edits(chosen, tiny, tmp_path / "out", ears, settings={"steps": 1})
    assert report["kept"] == 1.0 and [row["id"] for row in report["items"]] == ["item-0", "item-1"]
    assert set(report["rows"]) == {"edited", "spoken", "recorded"}
    assert all(row["edited_phones"] == row["spoken_phones"] > 0 for row in report["items"])
    assert edit_table(report).row_count == 3
    assert len(list((tmp_path / "out/edited").iterdir())) == 2 and (tmp_path / "out/report.json").is_file()
