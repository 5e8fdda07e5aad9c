"""Twin and closed form: folded factors against the multipliers that the papers write, and their coordinate check."""

from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from folders import write_folder
from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.model.folder import make
from pretrain.model.transfer import transferred
from pretrain.model.weights import Scale, Weight, initialise

MUTANTS = [
    ("src/pretrain/model/transfer.py", "inputs**-0.5, 1 / inputs", "inputs**-0.5, 1.0"),
    ("src/pretrain/model/transfer.py", "inputs**-0.5, 1 / inputs", "1.0, 1 / inputs"),
    ("src/pretrain/model/transfer.py", "            fold = 1 / inputs", "            pass"),
    ("src/pretrain/model/transfer.py", "            fold = 1 / width", "            pass"),
    ("src/pretrain/model/transfer.py", "            fold = 1 / depth", "            pass"),
    ("src/pretrain/model/transfer.py", 'axes["q"][1]) ** 0.5', 'axes["q"][1])'),
    ("src/pretrain/model/transfer.py", "eps /= depth", "pass"),
    ("src/pretrain/model/transfer.py", "eps / fold)", "eps)"),
    ("src/pretrain/model/transfer.py", "spread * fold)", "spread)"),
    ("src/pretrain/model/weights.py", '"zeros" else 1.0 if said is None else said)', '"zeros" else 1.0)'),
    ("src/pretrain/optimizer/fused.py", "weight_decay / rate", "weight_decay"),
    ("src/pretrain/optimizer/fused.py", "eps * small", "eps"),
    ("src/pretrain/optimizer/kinds/muon.py", "in self.matrices], self.scales)", "in self.matrices], 1.0)"),
]  # fmt: skip
llama, gpt2 = find("model.families", "llama"), find("model.families", "gpt2")
AdamW, Muon = find("optimizer.kinds", "adamw").AdamW, find("optimizer.kinds", "muon").Muon
VOCAB, HEAD, BASE = 32, 8, 16


def sized(width: int, depth: int, *, tied: bool = False, head: int = HEAD) -> Any:
    return llama.Config(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=depth,
        num_attention_heads=width // head, num_key_value_heads=width // head, tie_word_embeddings=tied,
        initializer_range=0.1,
    )  # fmt: skip


def texts(step: int) -> Tensor:
    """A text in which one token says the next, mostly."""
    generator = torch.Generator().manual_seed(step)
    first = torch.randint(VOCAB, (4, 1), generator=generator)
    return (first + 7 * torch.arange(17) + (torch.rand(4, 17, generator=generator) < 0.1)) % VOCAB


def learn(model: nn.Module, optimizer: Any, steps: int, forward: Any = None) -> list[float]:
    """Losses of so many steps."""
    out = []
    for step in range(steps):
        tokens = texts(step)
        logits = (forward or model.logits)(tokens[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
        optimizer.step(1.0)
        out.append(loss.item())
    return out


def fresh(config: Any, rows: list[Weight]) -> nn.Module:
    model = make(llama, config)
    initialise(model, rows, config.initializer_range, 0)
    return model


def written_out(config: Any, base: Any, model: nn.Module, eps: float) -> tuple[Any, Any]:
    """The paper's table 1 as it is printed: multipliers in the forward pass, torch's own AdamW; the model's weights are
    unfolded in place."""
    width, depth = config.hidden_size / base.hidden_size, config.num_hidden_layers / base.num_hidden_layers
    ends = [part for block in model.blocks for part in (block.attention.out, block.mlp.down)]
    with torch.no_grad():
        for part in ends:
            part.weight.mul_(depth)
            part.register_forward_hook(lambda _, given, out: out / depth)
        for block in model.blocks:  # 1 / d of the head, which is 1 / √d in the small model
            block.attention.q.weight.mul_((config.head_size / base.head_size) ** 0.5)
            block.attention.scale = base.head_size**0.5 / config.head_size
        if config.tie_word_embeddings:
            model.norm.weight.mul_(width)
        else:
            model.head.weight.mul_(width)
    groups = []
    for name, parameter in model.named_parameters():
        hidden = parameter.dim() == 2 and name.startswith("blocks.")
        groups.append({
            "params": [parameter], "lr": 0.01 / (width if hidden else 1),
            "weight_decay": (0.1 * (width if hidden else 1)) if parameter.dim() == 2 else 0.0,
            "eps": eps / width / (depth if name.startswith("blocks.") else 1),
        })  # fmt: skip
    inner = torch.optim.AdamW(groups, betas=(0.9, 0.95))

    class Theirs:
        def step(self, scale: float) -> None:
            inner.step()

    return Theirs(), lambda tokens: model.logits(tokens) / width


@pytest.mark.parametrize(("tied", "head"), [(False, HEAD), (True, HEAD), (False, 2 * HEAD)])
def test_folded_factors_are_the_printed_multipliers(tied: bool, head: int) -> None:
    config, base, eps = sized(32, 6, tied=tied, head=head), sized(BASE, 2, tied=tied), 1e-3  # so large that it matters
    rows = transferred(llama, config, base)
    ours, theirs = fresh(config, rows), fresh(config, rows)
    here = learn(ours, AdamW(lr=0.01, eps=eps).build(ours, rows), 6)
    optimizer, forward = written_out(config, base, theirs, eps)
    there = learn(theirs, optimizer, 6, forward)
    assert here == pytest.approx(there, rel=1e-5)


def test_starts_as_printed() -> None:
    """Variances of table 1, of the weights as they stand in the file."""
    config, base = sized(128, 8), sized(BASE, 2)
    model = fresh(config, transferred(llama, config, base))
    wanted = {"embed": 0.1, "head": 0.1 / 8, "blocks.0.attention.q": 0.1 / 8**0.5, "blocks.7.mlp.up": 0.1 / 8**0.5,
              "blocks.3.mlp.down": 0.1 / 8**0.5 / 4, "blocks.0.attention.out": 0.1 / 8**0.5 / 4}  # fmt: skip
    for name, std in wanted.items():
        assert model.get_parameter(f"{name}.weight").std().item() == pytest.approx(std, rel=0.03), name
    tied = fresh(replace(config, tie_word_embeddings=True), transferred(
        llama, replace(config, tie_word_embeddings=True), replace(base, tie_word_embeddings=True)))  # fmt: skip
    assert torch.equal(tied.norm.weight, torch.full((128,), 1 / 8)) and (model.norm.weight == 1).all()


def test_an_orthogonal_update_follows_the_depth_alone() -> None:
    config, base, moved = sized(32, 8), sized(BASE, 2), list[dict[str, Tensor]]()
    rows = transferred(llama, config, base)
    for some in (rows, [replace(row, scale=Scale()) for row in rows]):
        model = fresh(config, rows)
        before = {name: one.detach().clone() for name, one in model.named_parameters()}
        learn(model, Muon(lr=0.02).build(model, some), 1)
        moved.append({name: one.detach() - before[name] for name, one in model.named_parameters()})
    for name, times in {"mlp.up": 1, "attention.q": 1, "mlp.down": 4, "attention.out": 4}.items():
        here, there = (one[f"blocks.3.{name}.weight"] for one in moved)
        assert torch.allclose(here * times, there, atol=1e-6), name


def sizes(config: Any, rows: list[Weight], kind: Any = None) -> dict[str, float]:
    """After a few steps: how large the logits are, and how far the stream has moved from where it was at first."""
    model = fresh(config, rows)
    seen = list[Tensor]()
    model.norm.register_forward_hook(lambda _, given, out: seen.append(given[0].detach()))
    tokens = texts(99)[:, :-1]
    model.logits(tokens)
    learn(model, (kind or AdamW(lr=0.01)).build(model, rows), 5)
    logits = model.logits(tokens)
    return {
        "logits": logits.square().mean().item() ** 0.5,
        "stream": (seen[-1] - seen[0]).square().mean().item() ** 0.5,
    }


def slope(measured: list[tuple[int, float]]) -> float:
    """Of the logarithm of a size over that of what it was measured at."""
    points = [(log(at), log(size)) for at, size in measured]
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def slopes(along: str, base: Any, carried: bool, kind: Any = None) -> dict[str, float]:
    measured: dict[str, list[tuple[int, float]]] = {"logits": [], "stream": []}
    for times in (1, 2, 4, 8):
        config = sized(BASE * times, 2) if along == "width" else sized(BASE, 2 * times)
        rows = transferred(llama, config, base) if carried else llama.weights(config)
        for name, size in sizes(config, rows, kind).items():
            measured[name].append((times, size))
    return {name: slope(values) for name, values in measured.items()}


KINDS = {"adamw": AdamW(lr=0.01), "muon": Muon(lr=0.02, iterations=2, adamw_lr=0.01)}


@pytest.mark.parametrize(("along", "kind"), [("width", "adamw"), ("depth", "adamw"), ("depth", "muon")])
def test_coordinate_check(along: str, kind: str) -> None:
    """Yang et al. 2022, D.1: sizes are flat in width and depth where settings are carried over; elsewhere the stream
    moves further the larger the model is, and in wider ones the logits grow."""
    flat, steep = (slopes(along, sized(BASE, 2), carried=carried, kind=KINDS[kind]) for carried in (True, False))
    assert max(map(abs, flat.values())) < 0.3, flat
    assert steep["stream"] > 0.7 and (along == "depth" or steep["logits"] > 0.4), steep


def test_nothing_is_changed_where_the_model_is_the_small_one() -> None:
    config = sized(32, 3)
    one, other = fresh(config, transferred(llama, config, config)), fresh(config, llama.weights(config))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert {weight.scale for weight in transferred(llama, config, config)} == {Scale()}


def test_biases_of_a_branch_follow_its_matrix() -> None:
    config = gpt2.Config(vocab_size=VOCAB, n_embd=32, n_layer=4, n_head=2)
    rows = {row.name: row for row in transferred(gpt2, config, replace(config, n_layer=1))}
    branch = {name.removeprefix("blocks.{i}.") for name, row in rows.items() if row.scale.lr != 1}
    assert branch == {f"{part}.{kind}" for part in ("attention.out", "mlp.down") for kind in ("weight", "bias")}
    assert rows["blocks.{i}.mlp.down.weight"].std == pytest.approx(0.02 / 2**0.5 / 4)


SIZES: dict[str, Any] = {"vocab_size": VOCAB, "intermediate_size": 32, "num_attention_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "nimble": SIZES,
    "qwen3": {**SIZES, "num_key_value_heads": 2, "head_dim": 8},
    "qwen3_moe": {**SIZES, "num_key_value_heads": 2, "moe_intermediate_size": 8, "num_experts": 4,
                  "num_experts_per_tok": 2},
    "mixtral": {**SIZES, "num_key_value_heads": 2},
    "gpt_oss": {**SIZES, "num_key_value_heads": 2, "num_local_experts": 4},
    "deepseek_v3": {**SIZES, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
                    "v_head_dim": 8, "moe_intermediate_size": 8, "n_routed_experts": 8, "n_group": 2, "topk_group": 1,
                    "first_k_dense_replace": 1, "num_experts_per_tok": 2, "num_nextn_predict_layers": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_branch_of_a_family_is_found(name: str) -> None:
    """A block of a model four times as deep adds a quarter to the stream, whatever its branches are made of."""
    family, added = find("model.families", name), list[Tensor]()
    base = family.Config(hidden_size=16, num_hidden_layers=2, **FAMILIES[name])
    config = replace(base, num_hidden_layers=8)
    for rows in (transferred(family, config, base), family.weights(config)):
        rows = [replace(row, std=0.3 * row.scale.orthogonal_lr) if row.std == 0 else row for row in rows]
        model = make(family, config)
        initialise(model, rows, base.initializer_range, 0)
        with torch.no_grad():
            model.embed.weight.mul_(1e5)  # so that no branch sees the other
            model.blocks[-1].register_forward_hook(lambda _, given, out: added.append((out[0] - given[0]).double()))
            model.double()(texts(0)[:, :-1])
    assert 0 < (added[0] * 4 - added[1]).norm() <= 0.01 * added[1].norm()


class Sandwich(llama.Block):
    """A block that norms what its branches add."""

    def forward(self, x: Tensor, where: Any) -> tuple[Tensor, None]:
        x = x + self.attention_norm(self.attention(x, where))
        return x + self.mlp_norm(self.mlp(x)), None


def test_refuses_what_cannot_be_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = gpt2.Config(vocab_size=VOCAB, n_embd=32, n_layer=1, n_head=2)
    with pytest.raises(UserError, match="heads are 32 wide, the model's 16, and made by one matrix"):
        transferred(gpt2, config, replace(config, n_head=1))
    monkeypatch.setattr(llama, "Block", Sandwich)
    with pytest.raises(UserError, match="norms what its branches add"):
        transferred(llama, sized(32, 4), sized(16, 2))


def test_the_release_is_the_plain_family(tmp_path: Path) -> None:
    """Nothing of it is left in a folder: transformers' logits are ours."""
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    config = sized(32, 6, tied=True)
    rows = transferred(llama, config, sized(BASE, 2, tied=True))
    model = fresh(config, rows)
    learn(model, AdamW(lr=0.01).build(model, rows), 3)
    write_folder(tmp_path, llama, model, config, dtype="float32", end=None)
    tokens = texts(5)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path)(tokens).logits
    assert (model.logits(tokens) - theirs).abs().max() <= 1e-5 * theirs.abs().max()
