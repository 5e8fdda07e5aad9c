"""Oracle: our files are safetensors' own, byte for byte; transformers loads them; memory stays near one tensor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from folders import write_folder
from pretrain.base.errors import DamagedError, UserError
from pretrain.base.extension import find
from pretrain.base.files import new_folder, verify
from pretrain.model.config import read_config
from pretrain.model.folder import checked, load_folder, make
from pretrain.model.tensor_files import INDEX, WEIGHTS, Tensors, split, write_tensors
from pretrain.model.weights import initialise

MUTANTS = [
    ("src/pretrain/model/tensor_files.py", "(-ranks.index(shells[name].dtype), name)", "name"),
    ("src/pretrain/model/tensor_files.py", "size + shells[name].nbytes > most", "size > most"),
    ("src/pretrain/model/tensor_files.py", "-len(text) % 8", "-len(text) % 4"),
    ("src/pretrain/model/tensor_files.py", "for name in listed - held:", "for name in held - held:"),
    ("src/pretrain/model/tensor_files.py", "for name in held & self._files.keys():", "for name in held - held:"),
    ("src/pretrain/model/weights.py", "if theirs.dtype not in KEPT:", "if False:"),
    ("src/pretrain/model/weights.py", "split(LOOKED_AT))", "split(LOOKED_AT)[:1])"),
    ("src/pretrain/model/weights.py", "made.dtype is torch.float16 is not tensor.dtype", "made is tensor"),
]
KINDS = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
SIZES = st.dictionaries(st.text("ab.019é", min_size=1), st.tuples(KINDS, st.lists(st.integers(1, 3), max_size=3)))

llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=97, hidden_size=32, intermediate_size=72, num_hidden_layers=12, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip


def model(seed: int = 0) -> torch.nn.Module:
    made = make(llama, CONFIG)
    initialise(made, llama.weights(CONFIG), 0.2, seed)
    return made


@given(SIZES)
def test_a_file_is_what_safetensors_would_write(tmp_path_factory: pytest.TempPathFactory, sizes: dict) -> None:
    folder = tmp_path_factory.mktemp("files")
    tensors = {name: torch.randn(shape).to(dtype) for name, (dtype, shape) in sizes.items()}
    save_file(tensors, folder / "theirs", metadata={"format": "pt"})
    shells = {name: tensor.to("meta") for name, tensor in tensors.items()}
    write_tensors(folder, shells, reversed(tensors.items()))  # type: ignore[arg-type]
    assert (folder / WEIGHTS).read_bytes() == (folder / "theirs").read_bytes()


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 200))
def test_shards_are_cut_where_the_hub_would_cut(counts: list[int], most: int) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="its rule is not installed")
    shells = {f"layers.{i}.weight": torch.empty(count, device="meta") for i, count in enumerate(counts)}
    theirs = hub.split_torch_state_dict_into_shards({n: torch.empty(t.shape) for n, t in shells.items()},
                                                    max_shard_size=most * 4)  # fmt: skip
    large = [
        [name] for name, shell in shells.items() if shell.nbytes > most * 4
    ]  # theirs may come before what was open
    ours = [shard for shard in split(shells, most * 4) if shard not in large]
    if not large:
        assert ours == list(theirs.filename_to_tensors.values())
    assert sorted(name for shard in split(shells, most * 4) for name in shard) == sorted(shells)
    assert all(sum(shells[name].nbytes for name in shard) <= most * 4 for shard in ours)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_transformers_loads_shards_and_we_do(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    made = model()
    with new_folder(tmp_path / "x") as folder:
        write_folder(folder, llama, made, CONFIG, dtype="float32", end=3, shard_bytes=50_000)
    assert len(verify(tmp_path / "x")) == 3 + len(
        set(json.loads((tmp_path / "x" / INDEX).read_bytes())["weight_map"].values())
    )
    assert max(path.stat().st_size for path in (tmp_path / "x").glob("model-*")) < 50_000 + 2_000
    tokens = torch.arange(20).view(2, 10)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "x")
    expected = made.logits(tokens)  # type: ignore[operator]
    assert torch.allclose(theirs(tokens).logits, expected, atol=1e-5)
    assert torch.equal(load_folder(tmp_path / "x")[0].logits(tokens), expected)  # type: ignore[operator]
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="50kB")
    assert torch.equal(load_folder(tmp_path / "theirs")[0].logits(tokens), expected)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_rounds_once(tmp_path: Path, dtype: str) -> None:
    made = model()
    write_folder(tmp_path, llama, made, CONFIG, dtype=dtype, end=3)
    kind = getattr(torch, dtype)
    back = Tensors(tmp_path)["model.embed_tokens.weight"]
    assert back.dtype is kind and torch.equal(back, made.get_parameter("embed.weight").to(kind))
    assert json.loads((tmp_path / "config.json").read_bytes())["torch_dtype"] == dtype
    assert set(Tensors(tmp_path).dtypes()) == {{"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]}


def test_a_number_too_large_for_float16_is_told(tmp_path: Path) -> None:
    made = model()
    made.get_parameter("blocks.3.mlp.up.weight").data[0, 0] = 1e5
    with pytest.raises(UserError, match=r"layers\.3\.mlp\.up_proj.* 1e\+05; expected at most 65504"):
        write_folder(tmp_path, llama, made, CONFIG, dtype="float16", end=3)


CONVERT = """
import sys, torch
from pathlib import Path
from pretrain.model.config import read_config
from pretrain.model.folder import checked, write_model

def convert(source, to):
    family, config = read_config(source)
    write_model(to, family, config, checked(source, family, config, "bfloat16"), dtype="bfloat16",
                shard_bytes=10**9, said={})

def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

small, large, out = map(Path, sys.argv[1:])
torch.set_num_threads(1)
convert(small, out / "small")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kib("VmRSS")
convert(large, out / "large")
print((kib("VmHWM") - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a moment")
def test_memory_stays_under_twice_the_largest_tensor(tmp_path: Path) -> None:
    big = llama.Config(
        vocab_size=24576, hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=4, head_dim=64,
    )  # fmt: skip
    for name, config in (("small", CONFIG), ("large", big)):
        write_folder(tmp_path / name, llama, make(llama, config), config, dtype="float32", end=None)
    command = [sys.executable, "-c", CONVERT, *(str(tmp_path / name) for name in ("small", "large", "out"))]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    largest = 24576 * 256 * 4
    whole = sum(path.stat().st_size for path in (tmp_path / "large").glob("*.safetensors"))
    assert largest < peak < 2 * largest < whole / 1.5, (peak, largest, whole)


def folder_of(path: Path, **changes: Tensor | None) -> Path:
    """A released folder with some of its tensors changed, or left out."""
    write_folder(path, llama, model(), CONFIG, dtype="float32", end=3)
    tensors = {**dict(Tensors(path)), **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
    tensors = {name: tensor.clone() for name, tensor in tensors.items() if tensor is not None}
    save_file(tensors, path / WEIGHTS)
    return path


NORM, UP = "model.layers.1.input_layernorm.weight", "model.layers.1.mlp.up_proj.weight"
WRONG = {
    "missing": ({NORM: None}, r"tensor model\.layers\.1\.input_layernorm\.weight is missing; nearest: .*layernorm"),
    "extra": ({"model.layers.12.mlp.up_proj.weight": torch.ones(2)},
              r"model\.safetensors: tensor model\.layers\.12\S* belongs to no weight of the family; nearest: model"),
    "of another shape": ({UP: torch.ones(72, 31)}, r"model\.safetensors: tensor \S*up_proj\.weight is \[72, 31\]; "
                                                   r"expected \[72, 32\]"),
    "not a number": ({NORM: torch.full([32], torch.nan)}, r"\.safetensors: tensor \S*norm\.weight holds NaN or infin"),
    "infinite": ({UP: torch.full([72, 32], torch.inf)}, r"up_proj\.weight holds NaN or infinity; expected finite"),
    "quantised": ({UP: torch.ones(72, 32, dtype=torch.int8)}, r"up_proj\.weight is kept as int8, as quantised"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_tensor_is_one_line_with_its_file(tmp_path: Path, name: str) -> None:
    changes, said = WRONG[name]
    folder = folder_of(tmp_path / "x", **{key.replace(".", "__"): tensor for key, tensor in changes.items()})
    family, config = read_config(folder)
    for read in (lambda: load_folder(folder), lambda: list(checked(folder, family, config))):
        with pytest.raises(UserError, match=said) as raised:
            read()
        assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_what_is_not_finite_is_found_far_down(tmp_path: Path) -> None:
    wide = llama.Config(vocab_size=40000, hidden_size=32, intermediate_size=8, num_hidden_layers=1,
                        num_attention_heads=2, num_key_value_heads=2)  # fmt: skip
    made = make(llama, wide)
    made.get_parameter("embed.weight").data[-1, -1] = torch.inf
    write_folder(tmp_path, llama, made, wide, dtype="float32", end=None)
    with pytest.raises(UserError, match=r"embed_tokens\.weight holds NaN or infinity"):
        load_folder(tmp_path)


def config_says(folder: Path, **said: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **said}))


def test_what_a_folder_asks_for_and_we_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each; the code and the pickle beside would fail loudly if anything opened them."""
    folder = folder_of(tmp_path / "x")
    (folder / "modeling_x.py").write_text("raise SystemExit('executed')")
    config_says(folder, auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    with pytest.raises(UserError, match=r"config\.json: auto_map asks for code .* nothing of a folder is executed"):
        load_folder(folder)
    folder = folder_of(tmp_path / "y")
    config_says(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UserError, match=r"json: quantization_config: weights in gptq, which pretrain does not read"):
        load_folder(folder)
    folder = folder_of(tmp_path / "z")
    config_says(folder, architectures=["LlamaForCausalML"])
    with pytest.raises(UserError, match=r"architecture LlamaForCausalML is not known; .*nearest: LlamaForCausalLM"):
        load_folder(folder)
    folder = folder_of(tmp_path / "p")
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"no safetensors file; expected model\.safetensors or"):
        load_folder(folder)
    torch.save({"a": torch.ones(1)}, folder / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *given, **more: pytest.fail("opened"))
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a pickle, which could run any code and is never open"):
        load_folder(folder)


def test_an_index_and_its_files_agree(tmp_path: Path) -> None:
    write_folder(tmp_path, llama, model(), CONFIG, dtype="float32", end=3, shard_bytes=200_000)
    index = json.loads((tmp_path / INDEX).read_bytes())
    first, second, *_ = sorted(tmp_path.glob("model-*"))

    def says(**changes: str) -> None:
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": {**index["weight_map"], **changes}}))

    says(**{"model.norm.weight": "model-9.safetensors"})
    with pytest.raises(UserError, match=r"index\.json: no file model-9\.safetensors, which holds model\.norm\.weight"):
        load_folder(tmp_path)
    says(**{"model.norm.weight": "../model-9.safetensors"})
    with pytest.raises(UserError, match=r"index\.json: no file \S*model-9"):
        load_folder(tmp_path)
    says(**{"model.norm.weight": first.name})
    with pytest.raises(UserError, match=rf"index\.json: tensor model\.norm\.weight is not in {first.name}"):
        load_folder(tmp_path)
    says()
    whole = first.read_bytes()
    first.write_bytes(whole[:-100])
    with pytest.raises(DamagedError, match=rf"{first.name}: cannot be read"):
        load_folder(tmp_path)
    first.write_bytes(whole)
    again = {name: one for name, one in dict(Tensors(tmp_path)).items() if index["weight_map"][name] == second.name}
    save_file({**{n: t.clone() for n, t in again.items()}, "lm_head.weight": torch.ones(97, 32)}, second)
    with pytest.raises(UserError, match=r"tensor lm_head\.weight is also in"):
        load_folder(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(DamagedError, match="expected a weight_map"):
        load_folder(tmp_path)
