"""RoBERTa (Liu et al. 2019, arXiv 1907.11692): BERT's layers, and places that are counted from the padding token on.

Its files number places from pad_token_id + 1, and padding itself stands at pad_token_id: so a sequence is as much
shorter than max_position_embeddings. What they hold of a pooler is no part of it.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pretrain.model.decoder import Where
from pretrain.model.encoder import Encoder, Transform
from pretrain.model.layers.feed_forward import MLP
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "RobertaForMaskedLM"
MODEL_TYPE = "roberta"
CAUSAL = False
FIXED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "tie_word_embeddings": True}
INERT = ("attention_probs_dropout_prob", "hidden_dropout_prob")
IGNORED = (r"roberta\.pooler\..*", r"roberta\.embeddings\.position_ids")
UNSAID = {"layer_norm_eps": 1e-12, "max_position_embeddings": 512, "pad_token_id": 1, "type_vocab_size": 2}


@dataclass(frozen=True)
class Config:
    """The keys of config.json; every token is of the first of `type_vocab_size` types."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 514
    pad_token_id: int = 1
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if not 0 <= self.pad_token_id < min(self.max_position_embeddings - 1, self.vocab_size):
            raise ValueError(
                f"pad_token_id {self.pad_token_id} leaves no place among {self.max_position_embeddings}, since places "
                "are counted from it on"
            )

    @property
    def longest(self) -> int:
        """Tokens in a sequence, at most."""
        return self.max_position_embeddings - self.pad_token_id - 1

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        heads = (self.num_attention_heads, self.hidden_size // self.num_attention_heads)
        sizes = {"vocab": self.vocab_size, "position": self.max_position_embeddings, "kind": self.type_vocab_size}
        sizes |= {"embed": self.hidden_size, "mlp": self.intermediate_size}
        return {**{name: (size, 1) for name, size in sizes.items()}, "q": heads, "kv": heads}


def read(said: dict[str, Any]) -> dict[str, Any]:
    """The words as they are. Raises ValueError for a RoBERTa that decodes."""
    if said.get("is_decoder"):
        raise ValueError("is_decoder = true is not supported")
    return said


def weights(c: Config) -> list[Weight]:
    """The table: our name, the file's name, axes."""
    every = range(c.num_hidden_layers)

    def row(name: str, file: str, axes: str, layers: range | None = every) -> list[Weight]:
        first, *_ = axes.split()
        prefix, inside = ("blocks.{i}.", "roberta.encoder.layer.{i}.") if layers else ("", "")
        return [
            Weight(f"{prefix}{name}.{kind}", f"{inside}{file}.{kind}", one, layers)
            for kind, one in (("weight", axes), ("bias", first))
        ]

    return [
        Weight("embed.weight", "roberta.embeddings.word_embeddings.weight", "vocab embed"),
        Weight("places.weight", "roberta.embeddings.position_embeddings.weight", "position embed"),
        Weight("kinds.weight", "roberta.embeddings.token_type_embeddings.weight", "kind embed"),
        *row("embed_norm", "roberta.embeddings.LayerNorm", "embed", None),
        *row("attention.q", "attention.self.query", "q embed"),
        *row("attention.k", "attention.self.key", "kv embed"),
        *row("attention.v", "attention.self.value", "kv embed"),
        *row("attention.out", "attention.output.dense", "embed q"),
        *row("attention_norm", "attention.output.LayerNorm", "embed"),
        *row("mlp.up", "intermediate.dense", "mlp embed"),
        *row("mlp.down", "output.dense", "embed mlp"),
        *row("mlp_norm", "output.LayerNorm", "embed"),
        *row("transform.dense", "lm_head.dense", "embed embed", None),
        *row("transform.norm", "lm_head.layer_norm", "embed", None),
        Weight("head.weight", "lm_head.decoder.weight", "vocab embed", tied="embed.weight"),
        Weight("head.bias", "lm_head.bias", "vocab", also=("lm_head.decoder.bias",)),
    ]


class Block(nn.Module):
    """Attention, then the feed-forward layer, each added to the stream, and the sum normed."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        heads, width = c.axes()["q"]
        self.attention = GroupedAttention(c.hidden_size, heads, heads, width, bias=True, out_bias=True, rotary=None)
        self.attention_norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.mlp = MLP(c.hidden_size, c.intermediate_size, activation="gelu")
        self.mlp_norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, None]:
        """The stream [batch, seq, embed] after this block."""
        x = self.attention_norm(x + self.attention(x, where))
        return self.mlp_norm(x + self.mlp(x)), None


def build(c: Config) -> Encoder:
    """The module, its weights not yet drawn."""
    return Encoder(
        c.vocab_size, c.hidden_size, [Block(c) for _ in range(c.num_hidden_layers)], nn.Identity(),
        embed_norm=nn.LayerNorm(c.hidden_size, c.layer_norm_eps),
        transform=Transform(c.hidden_size, c.layer_norm_eps),
        places=c.max_position_embeddings, padding=c.pad_token_id, kinds=c.type_vocab_size,
    )  # fmt: skip
