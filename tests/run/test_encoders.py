"""Ordeal and oracle: an encoder from text to a released folder, which fills masks in transformers as it does here."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pretrain.base.errors import UserError
from pretrain.cli.main import main
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Score
from pretrain.events.read import steps
from pretrain.recipe.read import load
from pretrain.run.open import open_model
from pretrain.run.stages import execute

MUTANTS = [
    ("src/pretrain/tokenizer/tokenizer.py", '"mask_token": self._name(self.mask)', '"mask_token": None'),
    ("src/pretrain/generate/fill.py", "[tokens == mask]", "[tokens != mask]"),
    ("src/pretrain/recipe/bind.py", 'getattr(config, "longest", stated)', "stated"),
    ("src/pretrain/run/work.py", "pad not in self.tokenizer.specials", "pad < 0"),
    ("src/pretrain/run/open.py", 'getattr(family, "CAUSAL", True) and', ""),
]
ROOT = Path(__file__).parents[2]
RECIPE = """
[run]
name = "small"
threads = 1
[[corpus.sources]]
name = "pages"
read = "text"
paths = ["{root}/docs/*.md", "{root}/src/pretrain/recipe/*.py"]
[corpus]
held_out = 0.1
[tokenizer]
kind = "{kind}"
vocab_size = 512
reserved = 16
[model]
use = "{family}"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
[train]
steps = 60
batch = 1024
sequence = 64
precision = "fp32"
mask = "documents"
objective = {{ use = "masked", rate = 0.3 }}
optimizer = {{ use = "adamw", lr = 1e-2 }}
[evaluate]
baselines = false
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, family: str, kind: str, *more: str) -> tuple[RunDirectory, list[Event]]:
    (folder / "small.toml").write_text(RECIPE.format(root=ROOT, family=family, kind=kind))
    events: list[Event] = []
    return RunDirectory(execute(load(str(folder / "small.toml"), list(more)), subscribers=[events.append])), events


@pytest.mark.parametrize(
    ("family", "kind", "mask"), [("bert", "wordpiece", "[MASK]"), ("modernbert", "bpe", "<|mask|>")]
)
def test_an_encoder_learns_and_is_released_as_transformers_has_it(
    family: str, kind: str, mask: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    found, events = run(folder, family, kind)
    losses = [one.loss for one in steps(found)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    scores = [event.value for event in events if isinstance(event, Score) and event.name == "loss, masked"]
    assert scores[-1] < 0.9 * losses[0]

    ours, _, _, tokenizer = open_model(found.path)
    theirs, info = transformers.AutoModelForMaskedLM.from_pretrained(
        found.release, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info[one] for one in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(found.release)
    assert their_tokenizer.mask_token == mask and their_tokenizer.mask_token_id == tokenizer.mask
    prompt = f"the {mask} of a run"
    ids = their_tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        here, there = ours.logits(ids), theirs(ids).logits  # type: ignore[operator]
    assert torch.allclose(here, there, atol=1e-5)
    filler = transformers.pipeline("fill-mask", model=str(found.release), tokenizer=str(found.release))
    at = ids[0].tolist().index(tokenizer.mask)
    best = here[0, at].softmax(-1).topk(3)
    filled = filler(prompt, top_k=3)
    assert [one["token"] for one in filled] == best.indices.tolist()
    assert [one["score"] for one in filled] == pytest.approx(best.values.tolist(), rel=1e-3)
    card = (found.release / "README.md").read_text()
    assert "pipeline_tag: fill-mask" in card and "AutoModelForMaskedLM.from_pretrained" in card

    capsys.readouterr()
    assert main(["sample", str(found.release), prompt, "--json"]) == 0
    (place,) = json.loads(capsys.readouterr().out)["places"]
    ends = [tokenizer.end]
    parts = [tokenizer.encode(part).tolist() for part in prompt.split(mask)]
    whole = torch.tensor([[*ends, *parts[0], tokenizer.mask, *parts[1], *ends]])
    with torch.no_grad():
        share = ours.logits(whole)[0, 1 + len(parts[0])].softmax(-1).topk(5)  # type: ignore[operator]
    assert [text for text, _ in place] == [tokenizer.decode([i]) for i in share.indices.tolist()]
    assert [value for _, value in place] == pytest.approx(share.values.tolist(), rel=1e-4)
    assert main(["sample", str(found.path), f"a {mask} and a {mask}"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    config = json.loads((found.release / "config.json").read_bytes())
    config.pop("is_causal")  # a published folder does not say it
    (found.release / "config.json").write_text(json.dumps(config))
    assert main(["sample", str(found.release), "the"]) == 2
    assert f"cannot continue a text; expected a prompt with {mask} in it" in capsys.readouterr().err


def test_an_objective_that_looks_back_is_refused_for_an_encoder(folder: Path) -> None:
    with pytest.raises(UserError, match=r"train\.objective next_token predicts what model\.use bert sees"):
        run(folder, "bert", "bpe", "train.objective=next_token")


def test_roberta_wants_padding_where_its_places_begin(folder: Path) -> None:
    with pytest.raises(UserError, match=r"max_position_embeddings = 64 .*; expected sequences of at most 62"):
        run(folder, "roberta", "bpe")
    with pytest.raises(UserError, match=r"model\.pad_token_id = 1 is '\"' in the tokenizer: text"):
        run(folder, "roberta", "bpe", "model.max_position_embeddings=66")
    tokens = {token: i for i, token in enumerate(("<s>", "<pad>", "</s>", "<mask>"))}
    inner = Tokenizer(models.BPE(vocab=tokens | {c: i for i, c in enumerate(letters(), 4)}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens(list(tokens))
    inner.save("tokenizer.json")
    found, _ = run(folder, "roberta", "bpe", "model.max_position_embeddings=66", "tokenizer.from=tokenizer.json")
    losses = [one.loss for one in steps(found)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def letters() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())
