"""The kernels draw what the plain definitions draw: in Triton's interpreter on any Linux machine, and on a GPU.

The interpreter is chosen as Triton is imported, so `test_the_kernels_agree_with_their_definitions` runs this file once more in
a process that has chosen it; there each claim below is tested at small sizes, for the interpreter sorts slowly.
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tts.decoding import captured
from tts.decoding.autoregressive import Task, gather
from tts.decoding.commit import ByConfidence, Candidates
from tts.decoding.masked import decode_masked, draw
from tts.errors import CheckpointError, MissingPackageError, SettingsError, ShapeError
from tts.sampling import fused, lean, paths, reference, speculative, steps
from tts.sampling.philox import PhiloxNoise, Purpose
from tts.sampling.policy import Policy

pytest.importorskip("triton", reason="Triton exists for Linux only")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)
everywhere = pytest.mark.parametrize("device", ["cpu"] if INTERPRETED else [ON_GPU])


def in_both_types(names: str, cases: list) -> pytest.MarkDecorator:
    """Every case in float32 and bfloat16; in the interpreter, which is slow, in one of them by turns."""
    types = torch.float32, torch.bfloat16
    pairs = [(*case, dtype) for i, case in enumerate(cases) for j, dtype in enumerate(types) if not INTERPRETED or i % 2 == j]
    return pytest.mark.parametrize(f"{names}, dtype", pairs)


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_the_kernels_agree_with_their_definitions():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def scores(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rounded, so that many are equal, and some cannot be."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator).mul(2).round(decimals=1)
    return x.masked_fill(torch.rand(*shape, generator=generator) < 0.1, -torch.inf).to(dtype)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return (torch.randint(0, 2**23, shape, generator=torch.Generator().manual_seed(seed)) + 0.5) / 2**23


POLICIES = [
    Policy(),
    Policy(top_k=(9, 70), temperature=(0.0, 0.8), repetition_penalty=(1.0, 1.5)),
    Policy(top_k=5, top_p=0.8, repetition_penalty=2.0),
    Policy(min_p=0.1, temperature=1.3),
]


@everywhere
@in_both_types("policy", [(policy,) for policy in POLICIES])
def test_sample_codes_draws_what_the_reference_draws(device, policy, dtype):
    B, K, V = 1, 2, 70 if dtype == torch.float32 else 64
    x, u = scores(B, K, V, dtype=dtype), unit(B, K)
    history = torch.randint(-1, V + 2, (B, K, 19), generator=torch.Generator().manual_seed(1))
    forbidden = torch.arange(V) % 7 == 0
    ours = fused.sample_codes(x.to(device), u.to(device), policy, history.to(device), forbidden.to(device))
    assert torch.equal(ours.cpu(), reference.sample_codes(x, u, policy, history, forbidden))


@everywhere
def test_of_equal_codes_the_lower_index_comes_first(device):
    u = (torch.arange(4) + 0.5)[:, None] / 4
    ours = fused.sample_codes(torch.zeros(4, 1, 64, device=device), u.to(device), Policy(top_k=4))
    assert ours.flatten().tolist() == [0, 1, 2, 3]


@everywhere
def test_an_item_is_drawn_alike_wherever_it_stands_in_a_batch(device):
    x, u = scores(3, 1, 64), unit(3, 1)
    order = torch.tensor([2, 0, 1])
    ours = fused.sample_codes(x.to(device), u.to(device), Policy(top_k=8))
    theirs = fused.sample_codes(x[order].to(device), u[order].to(device), Policy(top_k=8))
    assert torch.equal(ours[order.to(device)], theirs)


@everywhere
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [-torch.inf, torch.nan, torch.inf])
def test_scores_that_allow_no_code_are_a_typed_error_that_names_the_row(device, bad, temperature):
    x = torch.zeros(1, 2, 16)
    x[0, 1, slice(None) if bad == -torch.inf else 3] = bad
    with pytest.raises(CheckpointError, match="item 0, codebook 1"):
        fused.sample_codes(x.to(device), torch.full((1, 2), 0.5, device=device), Policy(temperature=temperature, top_k=1))


def begin(
    device: str, K: int, V: int, policy: Policy, most: tuple[int, ...], before: bool, delays: tuple[int, ...]
) -> steps.Steps:
    B = len(most)
    known = torch.randint(0, V, (B, K, 3), generator=torch.Generator().manual_seed(5)).to(device) if before else None
    seeds = torch.tensor([-7, 2**40 + 3, 5][:B], device=device)
    return steps.Steps.start(seeds, torch.tensor(most, device=device), delays, V, policy.repetition_window, known)


@everywhere
@pytest.mark.parametrize(("before", "delays", "one_by_one"), [(True, (0, 1), False), (False, (0, 0), True)])
def test_a_loop_of_fused_steps_is_the_loop_of_plain_ones(device, before, delays, one_by_one):
    """Guidance, penalty, delays, prompt, end of speech, countdown, noise by seed: everything that a step keeps."""
    K, V, D = 2, 17, 20
    policy = Policy(guidance=2.0, repetition_penalty=1.5, repetition_window=3, temperature=0.9, top_k=8)
    ours, theirs = (begin(d, K, V, policy, (4, 2), before, delays) for d in (device, "cpu"))
    table = torch.randn(K * (V + 1), D, generator=torch.Generator().manual_seed(6))
    for s in range(5):
        x = scores(4, K, V + 1, seed=s).clamp(min=-9)
        x[:, 1:, V] = -torch.inf  # no book but the first can end
        x[2:, 0, V] -= 5 * s  # guidance makes it likelier and likelier
        may = torch.tensor([s > 1, True])
        for book in range(K) if one_by_one else [None]:
            of = slice(None) if book is None else slice(book, book + 1)
            fused.sample_step(x[:, of].to(device), ours, policy, may.to(device), book=book)
            steps.sample_step(x[:, of], theirs, policy, may, book=book)
            if book is not None:
                assert torch.equal(ours.current(book).cpu(), theirs.said[:, book, theirs.column(s)])
        vectors = fused.embed_step(table.to(device), ours, 2), steps.embed_step(table, theirs, 2)
        assert torch.allclose(vectors[0].cpu(), vectors[1], atol=1e-5)
        for name in ("said", "ends", "left", "clock", "trouble"):
            assert torch.equal(getattr(ours, name).cpu(), getattr(theirs, name)), (s, name)
    assert ours.left.tolist() == [0, 0]
    for a, b in zip(ours.codes(), theirs.codes(), strict=True):
        assert torch.equal(a.cpu(), b)


@everywhere
def test_tables_of_low_rank_are_gathered_and_joined(device):
    K, V, rank = 2, 5, 3
    ours, theirs = (begin(d, K, V, Policy(), (2, 2), False, (0, 1)) for d in (device, "cpu"))
    for each in (ours, theirs):
        each.said[:, :, each.room] = torch.tensor([[1, V], [4, V]])
        each.clock[1] = 1
    table, join = torch.randn(K * (V + 1), rank), torch.randn(K * rank, 4)
    got = fused.embed_step(table.to(device), ours, 2, lambda rows: rows @ join.to(device))
    assert torch.allclose(got.cpu(), steps.embed_step(table, theirs, 2, lambda rows: rows @ join), atol=1e-5)


@everywhere
def test_scores_that_allow_no_code_are_marked_in_a_loop_and_raised_when_one_looks(device):
    state = begin(device, 2, 16, Policy(), (2, 2), False, (0, 1))
    x = torch.zeros(2, 2, 16)
    x[1, 0] = torch.nan
    fused.sample_step(x.to(device), state, Policy())
    assert state.trouble.tolist() == [0, 1]
    with pytest.raises(CheckpointError, match="item 1"):
        state.check()


MASKED = [
    (Policy(top_k=6), 0.0, False, True),
    (Policy(top_p=0.7), 1.0, True, False),
    (Policy(min_p=0.2), 2.0, False, False),
]


@everywhere
@in_both_types("policy, noise, tempered, injected", MASKED)
def test_a_masked_pass_draws_and_keeps_what_the_decoder_does(device, policy, noise, tempered, injected, dtype):
    B, T, V, book = 2, 3, 70 if dtype == torch.float32 else 64, 1
    logits = scores(2 * B, T, V, seed=2, dtype=dtype)
    masked = torch.tensor([[True, True, True], [False, True, True]])
    codes = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(3)).masked_fill(masked, V)
    seeds, step, stay = torch.tensor([3, -9]), torch.tensor([0, 2]), torch.tensor([2, 1])
    left, temperature, scales = torch.tensor([0.1, 0.5]), torch.tensor([0.7, 0.0]), torch.tensor([1.5, 2.0])
    # 1. as tts/decoding/masked.py does it
    b, t = masked.nonzero(as_tuple=True)
    uniforms = PhiloxNoise().uniform(seeds[:, None], Purpose.MASKED, book, torch.arange(T), step[:, None])
    logits[B:].clamp_(min=-20)  # only the condition rules codes out
    c, u = logits.float().chunk(2)
    mixed = (u + scales[:, None, None] * (c - u)).masked_fill(c == -torch.inf, -torch.inf)
    drawn, sure = draw(mixed[b, t], uniforms[b, t], policy, temperature[b], tempered)
    said, confidence = codes.index_put((b, t), drawn), torch.ones(B, T).index_put((b, t), sure)
    candidates = Candidates(book, step, left, masked, said, confidence, seeds, PhiloxNoise())
    kept = ByConfidence(noise).commit(candidates, stay)
    # 2. as the kernels do
    commits = PhiloxNoise().uniform(seeds[:, None], Purpose.COMMIT, book, torch.arange(T), step[:, None])
    given = (uniforms.to(device), commits.to(device)) if injected else None
    now, open_ = codes.to(device), masked.to(device)
    inputs = [x.to(device) for x in (stay, seeds)]
    ours, certainty, trouble = fused.mask_step(
        logits.to(device), now, open_, *inputs, book, step.to(device), policy, left=left.to(device), uniforms=given,
        temperature=temperature.to(device), guidance=scales.to(device), noise=noise, tempered=tempered,
    )  # fmt: skip
    assert torch.equal(ours.cpu(), said)
    assert torch.allclose(certainty.cpu(), confidence, atol=1e-5)
    assert torch.equal(open_.cpu(), masked & ~kept)
    assert torch.equal(now.cpu(), said.where(kept | ~masked, V))
    assert trouble.tolist() == [0, 0]


@everywhere
def test_of_cells_that_are_equally_sure_the_first_stay_masked(device):
    V, T = 16, 6
    codes, masked = torch.full((1, T), V, device=device), torch.ones(1, T, dtype=torch.bool, device=device)
    logits = torch.zeros(1, T, V, device=device)
    logits[0, 4, 3] = 50.0
    one, zero = torch.ones(1, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    fused.mask_step(logits, codes, masked, zero + 3, zero, 0, zero, Policy(), left=one, temperature=one)
    assert masked.tolist() == [[True, True, True, False, False, False]]
    fused.mask_step(logits, codes, masked, zero, zero, 0, zero, Policy(), left=one, temperature=one)
    assert not masked.any()
    assert (codes < V).all()


@everywhere
@pytest.mark.parametrize("k", [1, 3])
def test_spec_verify_accepts_what_its_definition_accepts(device, k):
    N, V = 6, 20
    p, q = scores(N, V, seed=8).softmax(-1), scores(N, V, seed=9).softmax(-1)
    drafts = torch.multinomial(q, k, replacement=True, generator=torch.Generator().manual_seed(0))
    u = unit(N, k + 1, seed=4)
    ours = fused.spec_verify(*(x.to(device) for x in (p, q, drafts, u)))
    theirs = speculative.spec_verify(p, q, drafts, u)
    assert [x.tolist() for x in ours] == [x.tolist() for x in theirs]
    assert 0 < int((theirs[1] < k).sum()) < N  # some pass, some do not


@everywhere
@in_both_types("guidance", [(2.5,), (1.0,)])
def test_flow_step_is_guidance_and_the_solvers_update(device, guidance, dtype):
    generator = torch.Generator().manual_seed(0)
    x, v = (torch.randn(n, 3, 5, generator=generator).to(dtype) for n in (2, 2 if guidance == 1 else 4))
    ours = fused.flow_step(x.to(device), v.to(device), 0.125, guidance)
    assert ours.dtype == dtype
    off = (ours.cpu().float() - reference.flow_step(x, v, 0.125, guidance).float()).abs()
    assert (off <= (1e-6 if dtype == torch.float32 else 0.02)).all()


@pytest.mark.skipif(not INTERPRETED, reason="toys live on the CPU; backends are compared on a GPU in tests/test_gpu.py")
@pytest.mark.parametrize("depth", [False, True])
def test_steps_by_kernels_say_what_the_decoder_says(depth, monkeypatch):
    from test_decoding_captured import K, Toy, V

    toy, policy = Toy("cpu", depth=depth), Policy(guidance=1.5, repetition_penalty=1.3, temperature=0.9, top_k=6)
    task = Task(torch.tensor([5]), torch.tensor([3]), policy, (0, 0, 0) if depth else (0, 1, 1))
    said = []
    monkeypatch.setattr(captured, "LOOK", 4)
    for path in ("plain", "graph"):
        monkeypatch.setenv("MYNAH_PATH", path)
        cache, first = toy.begin(2)
        said.append(gather(captured.decode(toy, first, cache, task), 1, K, V))
    assert torch.equal(said[0][0], said[1][0]) and said[0][0].shape == (1, K, 3)


@pytest.mark.skipif(not INTERPRETED, reason="toys live on the CPU; backends are compared on a GPU in tests/test_gpu.py")
def test_masked_passes_by_kernels_say_what_the_decoder_says(monkeypatch):
    from test_decoding_masked import Oracle, all_masked, task

    asked = task(all_masked(2, 2, 5, 20), (3, 1), Policy(temperature=0.8, min_p=0.05), torch.tensor([5, 3]))
    asked = replace(asked, commit=ByConfidence(1.0))
    said = []
    for path in ("plain", "fused"):
        monkeypatch.setenv("MYNAH_PATH", path)
        said.append(decode_masked(Oracle(2, 20), torch.tensor([[1, 5], [1, 3]]), asked))
    assert torch.equal(said[0].codes, said[1].codes) and torch.equal(said[0].passes, said[1].passes)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no CUDA device")
def test_a_replayed_graph_draws_new_codes_and_the_same_as_without_a_graph():
    K, V, T = 4, 1000, 20
    policy = Policy(guidance=2.0, top_k=250, repetition_penalty=1.2)
    x = torch.randn(2, K, V, device="cuda")  # the same scores at every step: only the noise can change
    table = torch.randn(K * (V + 1), 64, device="cuda")

    def fresh() -> steps.Steps:
        return begin("cuda", K, V, policy, (T,), False, (0, 1, 2, 3))

    def step(state: steps.Steps) -> None:
        fused.sample_step(x, state, policy)
        fused.embed_step(table, state, 2)

    plain = fresh()
    for _ in range(T + 3):
        step(plain)
    state, start = fresh(), fresh()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(state)
    for name in ("said", "ends", "left", "clock", "trouble"):
        getattr(state, name).copy_(getattr(start, name))
    for _ in range(T + 3):
        graph.replay()
    assert torch.equal(state.said, plain.said)
    assert len(set(state.codes()[0][0, 0].tolist())) > T // 2


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_full_size_at_most_one_code_in_ten_thousand_differs(dtype):
    B, K, V = 2048, 8, 1024
    x, u = torch.randn(B, K, V, generator=torch.Generator().manual_seed(0)).mul(3).to(dtype), unit(B, K)
    for policy in (Policy(top_k=250), Policy(top_p=0.9), Policy(min_p=0.05, temperature=0.8)):
        ours = fused.sample_codes(x.cuda(), u.cuda(), policy)
        assert (ours.cpu() != reference.sample_codes(x, u, policy)).float().mean() <= 1e-4


def test_a_cpu_draws_by_the_lean_sampler():
    assert fused.sampler_for("cpu") is lean.sample_guided
    assert not paths.available("cpu")


def test_without_triton_the_error_says_what_to_install(monkeypatch):
    for module in (fused, paths):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert not paths.available("cuda")
    assert fused.sampler_for("cuda") is reference.sample_guided
    with pytest.raises(MissingPackageError, match="pip install triton"):
        fused.flow_step(torch.zeros(1, 2), torch.zeros(1, 2), 0.1)


def test_wrong_shapes_and_settings_are_typed_errors():
    state = begin("cpu", 2, 5, Policy(), (2,), False, (0, 1))
    with pytest.raises(ShapeError, match="uniforms"):
        fused.sample_codes(torch.zeros(2, 3, 4), torch.full((3, 2), 0.5), Policy())
    with pytest.raises(ShapeError, match=r"\[2, 2, 5\] or one wider"):
        fused.sample_step(torch.zeros(1, 2, 5), state, Policy(guidance=2.0))
    with pytest.raises(SettingsError, match="the window is 99"):
        fused.sample_step(torch.zeros(1, 2, 5), state, replace(Policy(repetition_penalty=2.0), repetition_window=99))
    with pytest.raises(ShapeError, match="must have 12 rows"):
        fused.embed_step(torch.zeros(10, 4), state)
    with pytest.raises(ShapeError, match="velocity"):
        fused.flow_step(torch.zeros(2, 3), torch.zeros(2, 3), 0.1, 2.0)
