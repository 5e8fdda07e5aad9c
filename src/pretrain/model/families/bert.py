"""BERT (Devlin et al. 2018, arXiv 1810.04805): every token sees every other, norms after each sum, learned positions.

What its files hold beside masked language modelling, the pooler and the question whether a sentence follows another, is
no part of it.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pretrain.model.decoder import Where
from pretrain.model.encoder import Encoder, Transform
from pretrain.model.layers.feed_forward import MLP
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "BertForMaskedLM"
MODEL_TYPE = "bert"
CAUSAL = False
FIXED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "tie_word_embeddings": True}
INERT = ("attention_probs_dropout_prob", "directionality", "hidden_dropout_prob", "pooler_fc_size",
         "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type")  # fmt: skip
IGNORED = (r"bert\.pooler\..*", r"cls\.seq_relationship\..*", r"bert\.embeddings\.position_ids")


@dataclass(frozen=True)
class Config:
    """The keys of config.json; every token is of the first of `type_vocab_size` types."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        heads = (self.num_attention_heads, self.hidden_size // self.num_attention_heads)
        sizes = {"vocab": self.vocab_size, "position": self.max_position_embeddings, "kind": self.type_vocab_size}
        sizes |= {"embed": self.hidden_size, "mlp": self.intermediate_size}
        return {**{name: (size, 1) for name, size in sizes.items()}, "q": heads, "kv": heads}


def read(said: dict[str, Any]) -> dict[str, Any]:
    """The words as they are. Raises ValueError for a BERT that decodes."""
    if said.get("is_decoder"):
        raise ValueError("is_decoder = true is not supported")
    return said


def weights(c: Config) -> list[Weight]:
    """The table; the first files called weight and bias of a norm gamma and beta."""
    every = range(c.num_hidden_layers)

    def row(name: str, file: str, axes: str, layers: range | None = every) -> list[Weight]:
        first, *_ = axes.split()
        older = ("gamma", "beta") if "LayerNorm" in file else ()
        prefix, inside = ("blocks.{i}.", "bert.encoder.layer.{i}.") if layers else ("", "")
        return [
            Weight(f"{prefix}{name}.{kind}", f"{inside}{file}.{kind}", one, layers,
                   also=tuple(f"{inside}{file}.{word}" for word in older[at : at + 1]))
            for at, (kind, one) in enumerate((("weight", axes), ("bias", first)))
        ]  # fmt: skip

    return [
        Weight("embed.weight", "bert.embeddings.word_embeddings.weight", "vocab embed"),
        Weight("places.weight", "bert.embeddings.position_embeddings.weight", "position embed"),
        Weight("kinds.weight", "bert.embeddings.token_type_embeddings.weight", "kind embed"),
        *row("embed_norm", "bert.embeddings.LayerNorm", "embed", None),
        *row("attention.q", "attention.self.query", "q embed"),
        *row("attention.k", "attention.self.key", "kv embed"),
        *row("attention.v", "attention.self.value", "kv embed"),
        *row("attention.out", "attention.output.dense", "embed q"),
        *row("attention_norm", "attention.output.LayerNorm", "embed"),
        *row("mlp.up", "intermediate.dense", "mlp embed"),
        *row("mlp.down", "output.dense", "embed mlp"),
        *row("mlp_norm", "output.LayerNorm", "embed"),
        *row("transform.dense", "cls.predictions.transform.dense", "embed embed", None),
        *row("transform.norm", "cls.predictions.transform.LayerNorm", "embed", None),
        Weight("head.weight", "cls.predictions.decoder.weight", "vocab embed", tied="embed.weight"),
        Weight("head.bias", "cls.predictions.bias", "vocab", also=("cls.predictions.decoder.bias",)),
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
        places=c.max_position_embeddings, kinds=c.type_vocab_size,
    )  # fmt: skip
