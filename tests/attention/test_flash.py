"""Twin: what FlashAttention is handed, by a stand-in that reads its arguments as its documentation says; and the rule
that chooses a backend. The kernels themselves run where there is a GPU: test_device.py."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from attention.masks import IDS, MASKS
from pretrain.attention import flash as room
from pretrain.attention.entrance import backend
from pretrain.attention.flash import flash
from pretrain.attention.mask import Causal, Documents, Full, Mask, Prefix, Window
from pretrain.attention.plain import plain

MUTANTS = [
    ("src/pretrain/attention/flash.py", "[0, *accumulate(lengths)]", "[0, *lengths]"),
    ("src/pretrain/attention/flash.py", "-1 if bound is None else bound", "bound or -1"),
    ("src/pretrain/attention/flash.py", "softcap=softcap or 0.0", "softcap=0.0"),
    ("src/pretrain/attention/flash.py", "found[0] if isinstance(found, tuple)", "found if isinstance(found, tuple)"),
    ("src/pretrain/attention/entrance.py", "flash.suits(q, k, v, mask, sinks)", "flash.kernel"),
    ("src/pretrain/attention/entrance.py", "not whole and not after_cache", "not whole"),
    ("src/pretrain/attention/entrance.py", 'q.device.type != "cuda"', "False"),
]


def stand_in(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
    softmax_scale: float, window_size: tuple[int, int], softcap: float,
) -> Tensor:  # fmt: skip
    """flash_attn_varlen_func as documented: [tokens, heads, width]; a window [i - left, i + right] with -1 for no
    bound, aligned to the last query and the last key; softcap 0 for none."""
    parts, longest = [], [0, 0]
    for i in range(len(cu_seqlens_q) - 1):
        one, keys, values = (
            tensor[bounds[i] : bounds[i + 1]].transpose(0, 1)[None]
            for tensor, bounds in ((q, cu_seqlens_q), (k, cu_seqlens_k), (v, cu_seqlens_k))
        )
        longest = [max(longest[0], one.shape[2]), max(longest[1], keys.shape[2])]
        left, right = (10**6 if bound < 0 else bound for bound in window_size)
        mask = Window(left, right)
        parts.append(plain(one, keys, values, mask, softmax_scale, softcap or None)[0].transpose(0, 1))
    assert longest == [max_seqlen_q, max_seqlen_k] and cu_seqlens_q.dtype is torch.int32
    return torch.cat(parts)


@pytest.mark.parametrize("name", [name for name in MASKS if name != "prefix"])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("version", [2, 3])
def test_it_is_handed_every_mask(
    name: str, softcap: float | None, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kernel(*tensors: Tensor, **more: object) -> Tensor | tuple[Tensor, None]:
        out = stand_in(*tensors, **more)  # type: ignore[arg-type]
        return out if version == 2 else (out, None)

    monkeypatch.setattr(room, "kernel", kernel)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 9, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    for queries in (9, 3):
        here = flash(q[:, :, -queries:], k, v, MASKS[name], 0.3, softcap)
        there = plain(q[:, :, -queries:], k, v, MASKS[name], 0.3, softcap)
        assert torch.allclose(here, there, atol=1e-12)


@pytest.mark.parametrize(
    ("mask", "more", "expected"),
    [
        (Causal(), {}, ("flash", "sdpa")),
        (Full(), {}, ("flash", "sdpa")),
        (Window(3), {}, ("flash", "flex")),
        (Documents(IDS), {}, ("flash", "flex")),
        (Prefix(torch.tensor([1, 2])), {}, ("flex", "flex")),
        (Causal(), {"softcap": 5.0}, ("flash", "flex")),
        (Causal(), {"sinks": torch.zeros(4)}, ("flex", "flex")),
        (Window(3), {"queries": 1}, ("flash", "sdpa")),
        (Causal(), {"queries": 4}, ("flash", "sdpa")),
        (Causal(), {"queries": 4, "learns": True}, ("flash", "flex")),
        (Full(), {"queries": 4, "learns": True}, ("flash", "sdpa")),
        (Window(3), {"queries": 4, "learns": True}, ("flash", "flex")),
        (Window(3), {"dtype": torch.float32}, ("flex", "flex")),
        (Window(3), {"dtype": torch.float64}, ("sdpa", "sdpa")),
        (Window(3), {"values": 32}, ("flex", "flex")),
        (Window(3), {"width": 8, "values": 8}, ("flash", "sdpa")),
        (Window(3), {"device": "cpu"}, ("sdpa", "sdpa")),
    ],
)
def test_the_rule(
    mask: Mask, more: dict, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:  # with FlashAttention, and without
    queries, width, values = more.get("queries", 9), more.get("width", 16), more.get("values", 16)
    found = []
    for kernel in (stand_in, None):
        monkeypatch.setattr(room, "kernel", kernel)
        with FakeTensorMode():
            made = {"device": more.get("device", "cuda"), "dtype": more.get("dtype", torch.bfloat16)}
            q, k, v = (torch.empty(2, 4, *size, **made) for size in ((queries, width), (9, width), (9, values)))
            q.requires_grad_(more.get("learns", False))
            found.append(backend(q, k, v, mask, more.get("softcap"), more.get("sinks")))
    assert tuple(found) == expected
