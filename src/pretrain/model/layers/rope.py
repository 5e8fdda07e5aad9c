"""Rotary positions (Su et al. 2021, arXiv 2104.09864), and the published ways to stretch them over longer texts."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NEEDED = {
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {"factor", "original_max_position_embeddings"},
}
OPTIONAL = {"yarn": {"beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"}}


@dataclass(frozen=True)
class RopeScaling:
    """How frequencies are stretched: the keys of config.json.

    linear: Chen et al. 2023, arXiv 2306.15595. dynamic: the base grows with the text (bloc97, emozilla 2023).
    llama3: Dubey et al. 2024, in its reference code. yarn: Peng et al. 2023, arXiv 2309.00071.
    """

    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool | None = None
    rope_type: str = "llama3"

    def __post_init__(self) -> None:
        if self.rope_type not in NEEDED:
            raise ValueError(f"rope_type {self.rope_type!r} is not known; expected {', '.join(NEEDED)}")
        said = {name for name, value in vars(self).items() if value is not None} - {"rope_type"}
        needed, optional = NEEDED[self.rope_type], OPTIONAL.get(self.rope_type, set())
        if self.rope_type in ("linear", "dynamic"):
            optional = {"original_max_position_embeddings"}  # written by some, read by none
        if missing := needed - said:
            raise ValueError(f"rope_type {self.rope_type} needs {', '.join(sorted(missing))}")
        if odd := said - needed - optional:
            raise ValueError(f"rope_type {self.rope_type} has no {', '.join(sorted(odd))}")

    @property
    def magnitude(self) -> float:
        """What cos and sin are multiplied by: YaRN's temperature (3.4), with DeepSeek's two weights of it."""
        if self.rope_type != "yarn":
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return temperature(self.factor, self.mscale) / temperature(self.factor, self.mscale_all_dim)
        return temperature(self.factor)

    def stretch(self, frequencies: Tensor, theta: float) -> Tensor:
        """Of frequencies [head_dim / 2] with base theta: long waves are slowed, short ones kept, by the kind's rule."""
        if self.rope_type == "linear":
            return frequencies / self.factor
        if self.rope_type == "dynamic":
            return frequencies  # until a text is longer than the model knows
        kept = self._kept_llama3(frequencies) if self.rope_type == "llama3" else self._kept_yarn(frequencies, theta)
        return (1 - kept) * frequencies / self.factor + kept * frequencies

    def _kept_llama3(self, frequencies: Tensor) -> Tensor:
        assert self.original_max_position_embeddings and self.low_freq_factor and self.high_freq_factor
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return kept.clamp(0, 1)

    def _kept_yarn(self, frequencies: Tensor, theta: float) -> Tensor:
        """Between the pairs that turn `beta_fast` and `beta_slow` times over the old length (3.2)."""
        assert self.original_max_position_embeddings
        pairs = len(frequencies)
        fast, slow = self.beta_fast or 32, self.beta_slow or 1
        low, high = (
            pairs * math.log(self.original_max_position_embeddings / (turns * 2 * math.pi)) / math.log(theta)
            for turns in (fast, slow)
        )
        if self.truncate is not False:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        high = high + 0.001 if low == high else high
        ramp = (torch.arange(pairs, dtype=torch.float32, device="cpu") - low) / (high - low)
        return 1 - ramp.clamp(0, 1)


def temperature(factor: float, weight: float = 1.0) -> float:
    """YaRN's growth of scores with the length: 0.1 · weight · ln factor + 1."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def frequencies(width: int, theta: float, scaling: RopeScaling | None) -> Tensor:
    """Radians a position, float32 [width / 2]."""
    plain = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32, device="cpu") / width)
    return plain if scaling is None else scaling.stretch(plain, theta)


Turn = tuple[Tensor, Tensor]  # cos and sin


class Rotary(nn.Module):
    """The turns of positions for the first `width` features of a head; `longest` is the length that was trained on."""

    frequency: Tensor

    def __init__(self, width: int, theta: float, scaling: RopeScaling | None = None, longest: int = 0) -> None:
        super().__init__()
        self.width, self.theta, self.scaling, self.longest = width, theta, scaling, longest
        self.magnitude = 1.0 if scaling is None else scaling.magnitude
        self.register_buffer("frequency", frequencies(width, theta, scaling), persistent=False)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Turn:
        """cos and sin [batch, 1, seq, width], the two halves alike, of positions [batch, seq]."""
        frequency = self.frequency
        if self.scaling is not None and self.scaling.rope_type == "dynamic":
            frequency = self._grown(int(positions.max()) + 1).to(frequency)
        turn = positions[:, None, :, None].to(torch.float32) * frequency
        turn = torch.cat([turn, turn], -1)
        cos, sin = turn.cos(), turn.sin()
        if self.magnitude != 1.0:
            cos, sin = cos * self.magnitude, sin * self.magnitude
        return cos.to(dtype), sin.to(dtype)

    def _grown(self, length: int) -> Tensor:
        """Frequencies for a text longer than `longest`: the base grows so that the slowest wave fits it."""
        assert self.scaling is not None
        factor, ratio = self.scaling.factor, max(length, self.longest) / self.longest
        grown = (factor * ratio - (factor - 1)) ** (self.width / (self.width - 2))
        return frequencies(self.width, self.theta * grown, None)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """x [batch, heads, seq, head_dim] turned by position, the first features if cos is narrower.

    Pairs are (i, i + width / 2), as in published files, or neighbours (2i, 2i + 1) if `interleaved`: then the result
    has all first members before all second ones, which no dot product of two such sees.
    """
    if cos.shape[-1] < x.shape[-1]:
        turned = rotate(x[..., : cos.shape[-1]], cos, sin, interleaved=interleaved)
        return torch.cat([turned, x[..., cos.shape[-1] :].to(turned.dtype)], -1)
    if interleaved:
        x = x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
    one, other = x.chunk(2, -1)
    return x * cos + torch.cat([-other, one], -1) * sin
