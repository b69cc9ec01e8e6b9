"""The figures of a report are the means they claim to be, and their intervals behave like intervals."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tts.eval.report import HUMAN, build_report, estimate, save_report, summarise, table, times_human

ITEMS = [
    {"id": "a", "word_errors": 1, "words": 10, "utterance_wer": 0.1, "sim": 0.5},
    {"id": "b", "word_errors": 1, "words": 2, "utterance_wer": 0.5, "sim": None},
    {"id": "c", "word_errors": 0, "words": 4, "utterance_wer": 0.0},
]


def test_corpus_rate_is_a_ratio_of_sums_and_the_mean_a_mean_of_ratios() -> None:
    found = summarise(ITEMS)
    assert found["wer"].value == 2 / 16
    assert found["mean_wer"].value == pytest.approx(0.2)
    assert (found["sim"].value, found["sim"].n) == (0.5, 1)  # items without a value are not counted as 0
    assert "per" not in found


def test_interval_holds_the_value_narrows_with_items_and_repeats_with_its_seed() -> None:
    few, many = estimate([0, 1] * 5), estimate([0, 1] * 500)
    assert few is not None and many is not None
    assert few.low < few.value == 0.5 < few.high and many.high - many.low < few.high - few.low
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.5 / 1000**0.5, rel=0.15)  # what theory says of a mean
    assert estimate([0, 1] * 5) == few and estimate([0, 1, 1, 0, 1], seed=1) is not None
    assert estimate([0.3] * 4) == estimate([0.3] * 4, seed=7)  # no spread, no interval


def test_nothing_to_divide_by_is_no_figure() -> None:
    assert estimate([]) is None and estimate([1, 2], [0, 0]) is None
    assert summarise([]) == {}


def test_wer_is_held_to_recordings_of_the_same_sentences_only() -> None:
    human = [{"id": "a", "word_errors": 2, "words": 10}, {"id": "z", "word_errors": 9, "words": 9}]
    ratio = times_human(ITEMS, human)
    assert ratio is not None and (ratio.value, ratio.n) == (0.5, 1)
    assert times_human(ITEMS, []) is None


def test_report_is_whole_json_and_one_table(tmp_path: Path) -> None:
    human = [{"id": item["id"], "word_errors": 1, "words": item["words"]} for item in ITEMS]
    report = build_report({"check-off": ITEMS, HUMAN: human}, {"backend": "flow"}, seed=3)
    save_report(report, tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["seed"] == 3 and read["versions"]["torch"] and read["settings"] == {"backend": "flow"}
    assert read["rows"]["check-off"]["items"][0]["utterance_wer"] == 0.1
    assert read["rows"]["check-off"]["wer_times_human"]["value"] == pytest.approx(2 / 3)
    console = Console(width=120, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    console.print(table(report))
    said = console.export_text()
    assert "12.5 % [" in said and "recordings (3)" in said and "times that of recordings" in said and "PESQ" not in said
