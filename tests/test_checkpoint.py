"""A checkpoint comes back as it was saved, or says what is wrong with it."""

from dataclasses import dataclass, replace

import pytest
import torch
import yaml
from torch import nn

from tts import registry
from tts.checkpoint import CONFIG, Part, System, load, save
from tts.errors import CheckpointError, OutputError


@dataclass(frozen=True)
class ToyConfig:
    dim: int = 3
    sizes: tuple[int, ...] = (1, 2)


class Toy(nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(config.dim, 2)
        self.register_buffer("count", torch.tensor([5]))


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(registry.PARTS, "vocoder", {"toy": f"{__name__}:Toy"})
    monkeypatch.setitem(registry.PARTS, "backend", {"toy": f"{__name__}:Toy"})


SYSTEM = System(
    name="toy",
    version="1",
    languages=("en-us",),
    sample_rate=16_000,
    parts={"vocoder": Part("toy", {"dim": 4}), "backend": Part("toy", {"dim": 3, "sizes": (7,)})},
    tables={"phones": ("_", "ə", "y", "n", ":", "~", "1", " ")},
    extra={"licence": "Apache-2.0", "hours": 1.5},
)


def toy(dim: int) -> Toy:
    torch.manual_seed(dim)
    return Toy(ToyConfig(dim))


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "c", SYSTEM, {"vocoder": toy(4).state_dict(), "backend": toy(3).state_dict()})
    return tmp_path / "c"


def test_a_system_comes_back_with_its_tables_and_facts(folder):
    system = load(folder).system
    assert system.tables["phones"] == SYSTEM.tables["phones"]
    assert (system.name, system.languages, system.extra) == ("toy", ("en-us",), SYSTEM.extra)
    assert system.parts["vocoder"].dtype == "float16"


def test_a_part_is_built_with_its_config_and_its_weights_in_float32(folder):
    backend = load(folder).build("backend")
    assert backend.config == ToyConfig(3, (7,))
    assert not backend.training
    for name, x in toy(3).state_dict().items():
        stored = x.half().float() if x.is_floating_point() else x
        assert torch.equal(backend.state_dict()[name], stored)
        assert backend.state_dict()[name].dtype == stored.dtype


def test_float32_weights_come_back_bit_for_bit(tmp_path):
    state = toy(4).state_dict()
    save(tmp_path, replace(SYSTEM, parts={"vocoder": Part("toy", {"dim": 4})}), {"vocoder": state}, dtype=torch.float32)
    assert torch.equal(load(tmp_path).state("vocoder")["layer.weight"], state["layer.weight"])


def test_matrices_in_eight_bits_come_back_as_near_as_eight_bits_can_be(tmp_path):
    state = {"a.weight": torch.randn(7, 33, 3) * 10 ** torch.linspace(-3, 2, 7)[:, None, None], "a.bias": torch.randn(7)}
    state |= {"zero": torch.zeros(5, 5), "ids": torch.arange(4).view(2, 2), "empty": torch.zeros(0, 4)}
    system = replace(SYSTEM, parts={"vocoder": Part("toy", dtype="int8")})
    assert save(tmp_path, system, {"vocoder": state}).parts["vocoder"].dtype == "int8"
    found = load(tmp_path).state("vocoder")
    assert found.keys() == state.keys()
    wanted, got = (torch.nn.functional.pad(x["a.weight"].flatten(), (0, -693 % 64)).view(-1, 64) for x in (state, found))
    assert ((wanted - got).abs().amax(1) <= 0.51 / 127 * wanted.abs().amax(1)).all()
    assert torch.equal(found["a.bias"], state["a.bias"].half().float())
    for name in ("zero", "ids", "empty"):
        assert torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype
    (file,) = tmp_path.glob("*.safetensors")
    save(tmp_path, load(tmp_path).system, {"vocoder": found})
    assert file.exists()  # packed again they are the same: the file is named after its content


def test_saving_one_part_keeps_the_others_and_leaves_no_old_files(folder):
    before = load(folder).system
    (folder / "MODEL_CARD.md").write_text("kept")
    after = save(folder, before, {"vocoder": {k: v + 1 for k, v in toy(4).state_dict().items()}})
    assert load(folder).system == after
    assert after.parts["backend"] == before.parts["backend"]
    assert after.parts["vocoder"].sha256 != before.parts["vocoder"].sha256
    names = {CONFIG, "MODEL_CARD.md", after.parts["backend"].file, after.parts["vocoder"].file}
    assert {path.name for path in folder.iterdir()} == names


def test_a_save_that_dies_before_the_config_leaves_the_old_checkpoint_whole(folder, monkeypatch):
    import tts.checkpoint

    before, write = load(folder).system, tts.checkpoint.write_whole

    def dies(path, data):
        if path.name == CONFIG:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(tts.checkpoint, "write_whole", dies)
    with pytest.raises(KeyboardInterrupt):
        save(folder, before, {"vocoder": {k: v + 1 for k, v in toy(4).state_dict().items()}})
    assert load(folder).system == before


def edit(folder, change):
    path = folder / CONFIG
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("role", ["vocoder", "backend"])
def test_truncated_weights_are_named(folder, role):
    path = folder / load(folder).system.parts[role].file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{path.name}.*{role}.*truncated"):
        load(folder)


def test_a_missing_file_is_named(folder):
    path = folder / load(folder).system.parts["vocoder"].file
    path.unlink()
    with pytest.raises(CheckpointError, match=path.name):
        load(folder)


def test_a_config_truncated_anywhere_is_noticed(folder):
    whole = (folder / CONFIG).read_text().rstrip("\n")
    for end in range(0, len(whole), 29):
        (folder / CONFIG).write_text(whole[:end])
        with pytest.raises(CheckpointError) as refused:
            load(folder)
        assert "\n" not in str(refused.value)  # one sentence, though YAML would draw a picture


def test_another_format_is_refused_with_both_numbers(folder):
    edit(folder, lambda values: values.update(format=2))
    with pytest.raises(CheckpointError, match=r"format 2.*reads format 1"):
        load(folder)


def test_an_unknown_key_or_part_is_refused(folder):
    edit(folder, lambda values: values["parts"]["vocoder"].update(typ="toy"))
    with pytest.raises(CheckpointError, match=r"parts\.vocoder\.typ.*'type'"):
        load(folder)


def test_a_config_cannot_choose_a_class_outside_the_registry(folder):
    edit(folder, lambda values: values["parts"]["vocoder"].update(type="os:system"))
    with pytest.raises(CheckpointError, match="os:system"):
        load(folder).build("vocoder")


def test_a_config_cannot_choose_a_file_outside_the_folder(folder):
    edit(folder, lambda values: values["parts"]["vocoder"].update(file="../secret.safetensors"))
    with pytest.raises(CheckpointError, match="same folder"):
        load(folder)


def test_a_part_that_is_not_there_is_refused_with_those_that_are(folder):
    with pytest.raises(CheckpointError, match=r"no recognizer.*vocoder"):
        load(folder).build("recognizer")


def test_weights_of_another_shape_are_refused_naming_the_tensor(folder):
    edit(folder, lambda values: values["parts"]["vocoder"]["config"].update(dim=5))
    with pytest.raises(CheckpointError, match=r"'layer\.weight' has shape \(2, 4\).*\(2, 5\)"):
        load(folder).build("vocoder")


@pytest.mark.parametrize(
    ("change", "said"), [(lambda s: s.pop("layer.bias"), "lacks"), (lambda s: s.update(more=s["count"]), "more")]
)
def test_a_missing_or_an_extra_tensor_is_named(folder, change, said):
    state = toy(4).state_dict()
    change(state)
    save(folder, load(folder).system, {"vocoder": state})
    with pytest.raises(CheckpointError, match=said):
        load(folder).build("vocoder")


def test_a_weight_too_great_for_float16_is_refused_when_saving(tmp_path):
    with pytest.raises(ValueError, match=r"layer\.weight is not finite"):
        save(tmp_path, SYSTEM, {"vocoder": {"layer.weight": torch.full((1, 1), 1e6)}})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        save(tmp_path / "file", SYSTEM, {})
