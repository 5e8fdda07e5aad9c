"""Property and closed form: layouts multiply to their ranks or are refused with what would do; boxes tile a weight."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.model.weights import Weight
from pretrain.parallel.layout import Layout, asked, refuse, settle
from pretrain.parallel.pieces import boxes, divided, paste, ranges
from pretrain.recipe.parallel import Parallel

AXES = {"embed": (12, 1), "q": (4, 3), "kv": (2, 3), "mlp": (8, 1), "vocab": (10, 1)}
MUTANTS = [
    ("src/pretrain/parallel/pieces.py", "start + rank * share, start", "rank * share, start"),
    ("src/pretrain/parallel/pieces.py", "low + begin - at, begin - first", "low + begin - at, begin"),
    ("src/pretrain/parallel/layout.py", "if layout.fold % n == 0]", "]"),
    ("src/pretrain/parallel/pieces.py", "low - first for low,", "low for low,"),
    ("src/pretrain/parallel/layout.py", "if rows % layout.data:", "if rows % layout.shard:"),
]


@given(st.integers(1, 64), *[st.integers(1, 4)] * 4, st.integers(1, 8))
def test_a_layout_uses_every_rank_or_says_what_does_not_fit(
    ranks: int, replicate: int, tp: int, cp: int, pp: int, ep: int
) -> None:
    others = replicate * tp * cp * pp
    if ranks % others:
        with pytest.raises(UserError, match=f"= {others} does not divide {ranks} rank") as told:
            settle(ranks, replicate, None, tp, cp=cp, pp=pp)
        near = dict(part.split() for part in told.value.expected.partition(",")[0].split(" · "))
        sizes = {name: int(size) for name, size in near.items()}
        assert settle(ranks, **sizes).ranks == ranks
    elif ranks // others * cp % ep:
        with pytest.raises(UserError, match=f"ep = {ep} does not divide shard {ranks // others} · cp {cp}"):
            settle(ranks, replicate, None, tp, cp=cp, pp=pp, ep=ep)
    else:
        found = settle(ranks, replicate, None, tp, cp=cp, pp=pp, ep=ep)
        assert found.ranks == ranks and found.expert_shard * ep == found.fold


def test_the_nearest_layout_has_sizes_that_divide_those_asked_for() -> None:
    with pytest.raises(UserError) as told:
        settle(24, 1, None, 16, pp=2)
    assert told.value.expected.startswith("pp 2 · replicate 1 · shard 3 · tp 4,")
    with pytest.raises(UserError) as told:
        settle(12, 1, None, 2, cp=4)
    assert told.value.expected == "replicate 1 · shard 3 · cp 2 · tp 2, the nearest that does"


def test_what_a_model_cannot_be_divided_into_is_refused_with_what_it_can() -> None:
    with pytest.raises(UserError, match=r"tp = 4 does not divide the 2 heads of keys and values") as told:
        refuse(Layout(tp=4), {"q": (4, 3), "kv": (2, 3)}, rows=8, sequence=16)
    assert told.value.expected == "1 or 2"
    with pytest.raises(UserError, match="3 data ranks do not divide a batch of 8") as told:
        refuse(Layout(replicate=3), {}, rows=8, sequence=16)
    assert told.value.expected.startswith("2 of them")
    with pytest.raises(UserError, match="tp = 2 does not divide a sequence of 15"):
        refuse(Layout(tp=2), {}, rows=8, sequence=15)
    with pytest.raises(UserError, match=r"cp = 4 · 2 = 8 does not divide a sequence of 12") as told:
        refuse(Layout(cp=4), {}, rows=8, sequence=12)
    assert told.value.expected == "1 or 2 or 3 or 6"
    with pytest.raises(UserError, match=r"cp = 2 · 4 = 8 does not divide a sequence of 12") as told:
        refuse(Layout(cp=2, tp=4), {}, rows=8, sequence=12)
    assert told.value.expected == "1 or 3"
    refuse(Layout(cp=2, tp=3), {}, rows=8, sequence=12)
    refuse(Layout(shard=4, tp=2), AXES, rows=8, sequence=16)
    with pytest.raises(UserError, match="ep = 4 does not divide 6 experts") as told:
        refuse(Layout(shard=8, ep=4), {"expert": (6, 1)}, rows=8, sequence=16)
    assert told.value.expected == "1 or 2"
    with pytest.raises(UserError, match="ep = 2, and the model has no experts"):
        refuse(Layout(shard=2, ep=2), AXES, rows=8, sequence=16)
    refuse(Layout(shard=4, ep=2), {"expert": (6, 1)}, rows=8, sequence=16)


def test_a_recipe_says_how_many_ranks_share_the_experts() -> None:
    assert str(asked(Parallel(ep=4, tp=2), 16)) == "replicate 1 · shard 8 · tp 2 · ep 4"


@given(
    st.sampled_from(["embed", "q+kv+kv embed", "embed q", "vocab embed", "mlp embed"]),
    st.integers(1, 5),
    st.integers(0, 7),
)
def test_the_boxes_of_all_ranks_tile_a_weight(axes: str, shard: int, cut: int) -> None:
    weight = Weight("w", "w", axes)
    shape = weight.shape(AXES)
    whole = torch.arange(1, 1 + torch.Size(shape).numel()).view(shape)
    seen, dim = torch.zeros_like(whole), divided(weight)
    for rank in range(2 if dim is not None else 1):
        parts = [] if dim is None else ranges(weight, AXES, dim, rank, 2)
        own = whole if dim is None else torch.cat([whole.narrow(dim, low, high - low) for low, high in parts], dim)
        each = -(-len(own) // shard)
        for place in range(shard):
            first, last = min(place * each, len(own)), min((place + 1) * each, len(own))
            piece, blocks = own[first:last], boxes(shape, dim, parts, first, last)
            filled = torch.zeros_like(piece)
            for part in (slice(0, cut), slice(cut, shape[0] - 1), shape[0] - 1):
                paste(filled, blocks, shape, (part,), partial(whole.__getitem__, part))
            assert torch.equal(filled, piece)
            for box in blocks:
                assert torch.equal(box.of_whole(whole), box.of_own(piece))
                box.of_whole(seen).add_(1)
    assert (seen == 1).all()
