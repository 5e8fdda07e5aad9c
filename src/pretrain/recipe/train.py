"""[train]: what is optimised, how, and for how long."""

from dataclasses import dataclass
from typing import Literal

from pretrain.base.units import count, seconds, size
from pretrain.recipe.schema import Leaf, key, leaf_key


@dataclass(frozen=True)
class Schedule:
    """[train.schedule]: the learning rate as a factor of the step."""

    use: Literal["wsd", "cosine", "constant"] = key("warm-up–stable–decay (linear decay), cosine or constant", "wsd")
    warmup: float = key("share of the steps with a rising rate", 0.02, at_least=0, at_most=1)
    decay: float = key("share of the steps with a falling rate at the end (wsd)", 0.4, at_least=0, at_most=1)
    final: float = key("the last step's factor", 0.0, at_least=0, at_most=1)


@dataclass(frozen=True)
class Warmup:
    """[train.sequence_warmup]: shorter sequences first; a row of the order is then several of them."""

    start: int = key("tokens in the first sequences: train.sequence halved a few times", unit=count, at_least=2)
    tokens: int = key("tokens until they are as long as train.sequence, in doublings", unit=count, at_least=1)


@dataclass(frozen=True)
class Phase:
    """[[train.phases]]: from a point of the run on, other weights of the sources."""

    start: float = key("share of the run after which it begins", at_least=0, at_most=1)
    weights: dict[str, float] = key("weights by the names of sources; the others keep theirs")
    over: float = key(
        "share of the run over which the shares move there in a straight line", 0.0, at_least=0, at_most=1
    )


@dataclass(frozen=True)
class Balance:
    """[train.balance]: what keeps a router from sending all tokens to few experts; without experts it says nothing."""

    loss: float = key("weight of the auxiliary loss, of each sequence, mean over layers", 0.001, at_least=0)
    z_loss: float = key("weight of the routers' own log²Z, mean over layers and tokens", 0.0, at_least=0)
    bias_rate: float = key(
        "by how much a step moves an expert's bias against its load, where a router has biases for that",
        0.001,
        at_least=0,
    )


@dataclass(frozen=True)
class Guard:
    """[train.guard]: what is done about faults, each decided before a weight moves."""

    not_finite: Literal["skip", "rewind", "stop"] = key(
        "where loss or gradient norm is no number: skip the batch, rewind to a checkpoint and skip all since, or stop",
        "skip",
    )
    spike: Literal["skip", "rewind", "stop", "ignore"] = key("the same, where one is far above those before", "skip")
    factor: float = key(
        "what is far: a norm over so many times the median of the last steps, a loss so many median deviations above "
        "theirs",
        10.0,
        at_least=1,
    )
    window: int = key("the last steps that count; before there are as many, nothing is far", 128, at_least=1)
    patience: int = key(
        "how often batches are skipped in the time of window steps, or in a row, until the run stops", 8, at_least=0
    )
    ahead: int = key("further batches that are skipped after a rewind", 100, at_least=0)
    compare_every: int = key(
        "steps between comparisons, bit for bit, of what ranks hold in common, also before each checkpoint; 0 for none",
        100,
        at_least=0,
    )
    lost_shard: Literal["stop", "skip"] = key(
        "where a shard of tokens is gone or not what its digest says: stop, or learn without its rows", "stop"
    )


@dataclass(frozen=True)
class Train:
    """[train]: one of steps, tokens and seconds says how long."""

    objective: Leaf = leaf_key("what is predicted", "objective.kinds", use="next_token")
    optimizer: Leaf = leaf_key("how weights move", "optimizer.kinds", use="adamw")
    schedule: Schedule = key("how the learning rate moves", Schedule())
    steps: int | None = key("optimizer steps", None, unit=count, at_least=1)
    tokens: int | None = key("tokens to train on", None, unit=count, at_least=1)
    seconds: float | None = key(
        "a budget of time: measured at the start and turned into steps", None, unit=seconds, at_least=1
    )
    phases: tuple[Phase, ...] = key("how the mixture changes along the run", ())
    mixture_temperature: float | None = key(
        "multiplies each weight by its source's size to the power 1/this: 1 draws by size, more draws more evenly",
        None,
        at_least=1,
    )
    batch: int = key("tokens in a step, over all devices", 65536, unit=count, at_least=1)
    sequence: int = key("tokens that a model sees at once", 1024, unit=count, at_least=2)
    sequence_warmup: Warmup | None = key("sequences that begin shorter and double", None)
    micro_batch: int | None = key("sequences in a forward pass (what fits, if not said)", None, at_least=1)
    mask: Literal["causal", "documents"] = key("whether attention may cross document bounds", "causal")
    tuned_on: dict[str, int] | None = key(
        "sizes of the small model on which rates and std were found, by the keys of [model]: they are carried over "
        "(muP in width, complete-P in depth)",
        None,
    )
    clip: float = key("largest norm of the gradient, 0 for none", 1.0, at_least=0)
    z_loss: float = key("weight of log²Z beside the loss", 0.0, at_least=0)
    balance: Balance = key("how the load of experts is balanced", Balance())
    precision: Literal["auto", "fp32", "bf16", "bf16_pure", "fp8", "fp8_rowwise", "mxfp8"] = key(
        "of matrix products; weights stay float32, but with bf16_pure, which rounds them by chance (docs/precision.md)",
        "auto",
    )
    higher: tuple[Literal["embedding", "output", "router"], ...] = key(
        "parts that keep float32 weights and products no narrower than bfloat16", ("embedding", "output", "router")
    )
    recompute: Literal["none", "selective", "full", "budget"] = key(
        "what a block makes again in the backward pass: nothing, all but products and attention, all, or all in those "
        "blocks whose activations train.activation_bytes cannot hold",
        "none",
    )
    activation_bytes: int | None = key(
        'activations that a device keeps, with recompute = "budget"', None, unit=size, at_least=0
    )
    compile: Literal["auto", "always", "never"] = key("torch.compile: where it helps, always or never", "auto")
    guard: Guard = key("what is done about faults", Guard())
    log_every: int = key("steps between step events", 1, at_least=1)
    checkpoint_every: int = key("steps between checkpoints, 0 for the last only", 1000, at_least=0)
    keep: int = key("checkpoints kept, the newest first", 2, at_least=1)
    evaluate_every: int = key("steps between estimates on held-out documents, 0 for none", 0, at_least=0)
    sample_every: int = key("steps between samples, 0 for none", 0, at_least=0)
