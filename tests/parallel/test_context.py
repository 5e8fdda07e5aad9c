"""Twin: ranks' chunks give what the formula gives for the whole, whatever the mask; and chunks make a sequence."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parallel.test_apply import MODELS, deviations
from pretrain.attention.entrance import attention
from pretrain.attention.mask import Causal, Documents, Full, Mask, Prefix, Window
from pretrain.attention.plain import plain
from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.model.folder import make
from pretrain.parallel.apply import Ranks
from pretrain.parallel.context import columns, in_order, of_chunks
from pretrain.parallel.layout import Layout
from ranks import ranks

MUTANTS = [
    ("src/pretrain/parallel/context.py", "place * length, (2", "place * length, 0 * (2"),
    ("src/pretrain/parallel/context.py", "chunks[[place, -1 - place]]", "chunks[[place, -2 + place]]"),
    ("src/pretrain/parallel/context.py", "late.flip(1)", "late"),
    ("src/pretrain/parallel/context.py", "max(start - before, 0)", "max(start - before + 1, 0)"),
    ("src/pretrain/parallel/context.py", "min(end + after, keys)", "end"),
    ("src/pretrain/parallel/context.py", "mask.before + high - end", "mask.before"),
    ("src/pretrain/parallel/context.py", "mask.after - (high - end)", "mask.after"),
    ("src/pretrain/parallel/context.py", "if reach(mask.inside)[1] != 0:", "if False:"),
    ("src/pretrain/parallel/context.py", "start + inside, rest", "start, rest"),
    ("src/pretrain/parallel/context.py", "module.sequence = context.sum", "pass"),
    ("src/pretrain/parallel/context.py", "return whole[:, torch", "return whole.flip(1)[:, torch"),
    ("src/pretrain/objective/objective.py", "moved(batch.columns[None]", "moved(0 * batch.columns[None]"),
    ("src/pretrain/train/step.py", "len(batch.tokens) / ranks.layout.cp", "len(batch.tokens)"),
    ("src/pretrain/train/step.py", "routed[:, places]", "routed[:, : len(places)]"),
]  # fmt: skip


@st.composite
def cut(draw: st.DrawFn) -> tuple[int, int, Mask]:
    """Ranks, places in a chunk, and a mask over two rows of 2 · ranks · places."""
    size, length = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    seq = 2 * size * length
    reach = st.integers(0, seq)
    window = Window(draw(reach), draw(reach))
    steps = draw(st.lists(st.integers(0, 1), min_size=2 * seq, max_size=2 * seq))
    ids = torch.tensor(steps).view(2, seq).cumsum(1)
    kinds = [Full(), Causal(), window, Window(window.before), Prefix(torch.tensor([draw(reach), draw(reach)]))]
    kinds += [Documents(ids), Documents(ids, causal=False), Documents(ids, window=Window(window.before))]
    return size, length, draw(st.sampled_from([*kinds, Documents(ids, causal=False, window=window)]))


@given(cut(), st.sampled_from([None, 1.5]), st.booleans())
@example((2, 4, Window(3, 2)), None, False)
@settings(max_examples=150, deadline=None)
def test_chunks_see_what_the_whole_sees(drawn: tuple[int, int, Mask], softcap: float | None, with_sinks: bool) -> None:
    size, length, mask = drawn
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, 2 * size * length, 4) for heads in (4, 2, 2)]
    one = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    two = [tensor.detach().clone().requires_grad_() for tensor in one]
    sinks = torch.randn(4, generator=generator, dtype=torch.float64) if with_sinks else None
    whole = plain(*one, mask, 0.5, softcap, sinks)
    weight = torch.randn(whole.shape, generator=generator, dtype=torch.float64)
    (whole * weight).sum().backward()
    attend = partial(attention, scale=0.5, softcap=softcap, sinks=sinks)
    for place in range(size):
        own = columns(2 * size * length, place, size)
        out = of_chunks(attend, two[0][:, :, own], *two[1:], mask, place, size)
        assert torch.allclose(out, whole[:, :, own], atol=1e-12)
        (out * weight[:, :, own]).sum().backward()  # ranks' gradients of keys and values add up
    assert all(torch.allclose(a.grad, b.grad, atol=1e-12) for a, b in zip(one, two, strict=True))  # type: ignore[arg-type]


@given(st.integers(1, 6), st.integers(1, 5))
def test_ranks_chunks_fall_into_order(size: int, length: int) -> None:
    held = np.concatenate([columns(2 * size * length, place, size) for place in range(size)])
    assert torch.equal(in_order(torch.from_numpy(held)[None], size)[0], torch.arange(2 * size * length))
    under_diagonal = columns(2 * size * length, 0, size).sum()
    assert all(columns(2 * size * length, place, size).sum() == under_diagonal for place in range(size))


@ranks(2)
def test_without_documents_places_are_counted_over_the_whole() -> None:
    for family in ("gpt_oss", "gpt2", "bert", "nimble"):
        assert max(deviations(family, "adamw", torch.float64, 2, [Layout(cp=2)], documents=False)) <= 1e-11


@ranks(2)
def test_what_cannot_see_the_other_parts_is_refused() -> None:
    module = find("model.families", "llama")
    config = module.Config(**MODELS["llama"])
    model = make(module, config)
    del model.blocks[1].attention.exchange
    with pytest.raises(UserError, match=r"blocks\.1 has no attention that sees the other parts of a sequence"):
        Ranks.of(Layout(cp=2), "cpu").apply(model, module.weights(config), config.axes())
