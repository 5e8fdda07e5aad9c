"""Closed form: what a rank of thousands says in a step, counted and weighed by hand; what it holds, by division."""

import json
from collections.abc import Sequence

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.cli.main import main
from pretrain.model.weights import parameters
from pretrain.parallel.apply import Ranks
from pretrain.parallel.layout import Layout
from pretrain.plan.rehearse import Rehearsal, Watch, rehearse
from pretrain.precision.policy import Policy
from pretrain.recipe.read import load
from pretrain.run.rehearsal import rehearsed

MUTANTS = [
    ("src/pretrain/parallel/apply.py", '("fold", [*blocks, model])', '("fold", [*model.blocks, model])'),
    ("src/pretrain/plan/rehearse.py", '("reduce-scatter", 1)', '("reduce-scatter", 0)'),
    ("src/pretrain/plan/rehearse.py", "self.now -= self.live.pop(number)[1]", "self.live.pop(number)"),
]
LLAMA = find("model.families", "llama")
VOCAB, WIDTH, INNER, LAYERS, SEQUENCE = 1024, 64, 128, 3, 32
CONFIG = LLAMA.Config(
    vocab_size=VOCAB,
    hidden_size=WIDTH,
    intermediate_size=INNER,
    num_hidden_layers=LAYERS,
    num_attention_heads=8,
    num_key_value_heads=4,
)


def of(
    layout: Layout,
    *,
    samples: int,
    micro: int,
    rank: int = 0,
    compute: torch.dtype = torch.float32,
    more: Sequence[str] = (),
) -> Rehearsal:
    """A rank with so many samples."""
    recipe = load(
        "llama_10m",
        [
            f"train.batch={samples * layout.data * SEQUENCE}",
            f"train.sequence={SEQUENCE}",
            'train.optimizer={use="adamw"}',
            *more,
        ],
    )
    policy = Policy(compute, "cpu")
    return rehearse(LLAMA, CONFIG, recipe.train, layout, rank=rank, policy=policy, micro_batch=micro)


def test_fsdp_says_each_block_twice_and_sums_it_once() -> None:
    layout, parts = Layout(shard=4), 2  # micro-batches
    found = of(layout, samples=4, micro=2)
    block = 2 * WIDTH * WIDTH + 2 * WIDTH * (WIDTH // 2) + 3 * WIDTH * INNER + 2 * WIDTH
    ends = 2 * VOCAB * WIDTH + WIDTH
    gathers = found.messages["all-gather", "fold"]
    # A block is gathered before each pass; the ends stay from the forward to the backward pass.
    assert gathers == (parts * (2 * LAYERS + 1), parts * (2 * LAYERS * block + ends) * 4)
    sums = found.messages["reduce-scatter", "fold"]
    assert sums == (parts * (LAYERS + 1), parts * (LAYERS * block + ends) * 4)
    assert found.numbers == (LAYERS * block + ends) // 4 and found.weight_bytes == found.numbers * 4
    moments = 2 * found.weight_bytes
    assert moments < found.optimizer_bytes <= moments + 8
    assert found.peak_bytes > 3 * found.weight_bytes + found.optimizer_bytes

    found = of(layout, samples=4, micro=2, more=["train.objective=multi_token"])
    further = block + 2 * WIDTH * WIDTH + 3 * WIDTH  # a module that looks ahead goes by itself, as a block does
    gathers = found.messages["all-gather", "fold"]
    assert gathers == (parts * (2 * LAYERS + 3), parts * (2 * LAYERS * block + 2 * further + ends) * 4)
    assert found.numbers == (LAYERS * block + further + ends) // 4


def test_matrices_travel_in_bfloat16_and_gradients_in_float32() -> None:
    layout, parts = Layout(shard=4), 2
    matrices, norms = 2 * WIDTH * WIDTH + 2 * WIDTH * (WIDTH // 2) + 3 * WIDTH * INNER, 2 * WIDTH
    head, embed = VOCAB * WIDTH, VOCAB * WIDTH + WIDTH
    found = of(layout, samples=4, micro=2, compute=torch.bfloat16)
    gathers, sums = found.messages["all-gather", "fold"], found.messages["reduce-scatter", "fold"]
    # Norms and the embedding are in the same messages, in float32.
    narrow, wide = 2 * LAYERS * matrices + head, 2 * LAYERS * norms + embed
    assert gathers == (parts * (2 * LAYERS + 1), parts * (2 * narrow + 4 * wide))
    assert sums == (parts * (LAYERS + 1), parts * (LAYERS * (matrices + norms) + head + embed) * 4)


def test_tensor_parallelism_says_activations_twice_a_layer_each_way() -> None:
    found = of(Layout(shard=64, replicate=16, tp=4), samples=1, micro=1, rank=777)
    whole = SEQUENCE * WIDTH * 4
    # Forward: attention's and the mlp's input, and the last hidden states; backward: their outputs' and the
    # embedding's gradients.
    each = 2 * LAYERS + 1 + 2 * LAYERS + 1
    assert found.messages["all-gather", "tp"] == (each, each * whole)
    assert found.messages["reduce-scatter", "tp"] == (each, each * whole)
    assert found.messages["all-reduce", "replicate"].number == LAYERS + 1 + 2  # and two sums of counts


def test_a_stage_hears_and_says_what_is_between_blocks_once_each_way() -> None:
    found = of(Layout(pp=3, shard=2, tp=4), samples=4, micro=1, rank=9)  # of the second stage
    between = SEQUENCE * WIDTH // 4 * 4  # a rank's part of a sequence
    assert found.messages["receive", "pp"] == found.messages["send", "pp"] == (4 * 2, 4 * 2 * between)
    assert found.messages["all-gather", "fold"].number == 4  # a block stays from a forward pass to a backward one


def test_rows_travel_to_their_experts_and_back_each_way() -> None:
    layers, experts, width, sequence, chosen = 2, 8, 256, 64, 2
    said = [f"model.num_hidden_layers={layers}", f"train.sequence={sequence}", f"train.batch={8 * sequence}"]
    found = rehearsed(load("mixtral_10m", [*said, "parallel.ep=4"]), 8, 5)
    assert found.layout == Layout(shard=8, ep=4)
    rows = sequence * chosen * width * 2  # bfloat16
    assert found.messages["all-to-all", "ep"] == (layers * 5, layers * (experts * 8 + 4 * rows))
    stack = 3 * 352 * width * experts // 4 * 2  # a quarter of the experts, in bfloat16
    assert found.messages["all-gather", "expert_shard"] == (layers * 2, layers * 2 * stack)  # before each pass


def test_a_rank_of_16384_of_the_70b_recipe() -> None:
    layers = 2
    recipe = load("llama3_70b", [f"model.num_hidden_layers={layers}", "parallel.tp=8"])
    found = rehearsed(recipe, 16384, 16383)
    assert found.layout == Layout(shard=2048, tp=8)
    whole, half = 8192 * 8192 * 4, 8192 * 8192 * 2
    each = 2 * layers + 1 + 2 * layers + 1
    count, size = found.messages["all-gather", "tp"]
    assert count == each and each * half <= size <= each * whole
    fsdp = 2 * layers + 1
    assert found.messages["all-gather", "fold"].number == fsdp


def test_the_most_at_once_is_of_what_lives_together() -> None:
    with FakeTensorMode(), Watch(Ranks(), 1.0) as watch:
        for _ in range(3):
            first = torch.empty(1000)
            del first
        both = torch.empty(1000), torch.empty(500)
        assert len(both) == 2
    assert watch.peak == 1500 * 4


@pytest.mark.parametrize("name", ["bert_10m", "gpt_oss_10m", "fill_in_middle"])
def test_what_depends_on_numbers_is_rehearsed_too(name: str) -> None:
    """Which places are masked, how many rows an expert has, where a text is cut: two ranks hold a half each."""
    recipe = load(name, ["train.batch=4096", "parallel.shard=2"])
    config = recipe.model.family.bind(vocab_size=recipe.tokenizer.ids)
    family = find(recipe.model.family.kind, recipe.model.family.use)
    found = rehearsed(recipe, 2, 0)
    assert 2 * found.numbers == pytest.approx(parameters(family.weights(config), config.axes()), rel=1e-3)
    assert found.messages["all-gather", "fold"].number > config.num_hidden_layers


def test_the_command_prints_a_table_and_refuses_what_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "llama_10m", 'train.optimizer={use="adamw"}', "parallel.tp=2", "--ranks", "8"]
    assert main([*asked, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["layout"]["shard"] == 4 and {"kind", "along", "number", "bytes"} == set(table["messages"][0])
    assert main(asked) == 0 and "8 ranks (replicate 1 · shard 4 · tp 2); rank 0" in capsys.readouterr().out
    assert main([*asked, "--rank", "8"]) == 2 and "expected 0 to 7" in capsys.readouterr().err
    with pytest.raises(UserError, match="does not divide"):
        rehearsed(load("llama_10m", ["parallel.tp=5"]), 64, 0)
    with pytest.raises(UserError, match="experts in fp32"):
        rehearsed(load("mixtral_10m", ["train.precision=fp32"]), 2, 0)
