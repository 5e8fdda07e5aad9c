"""Ranks that hold the same part of a tensor hold the same bits: where they do not, a machine has computed wrongly.

Silent corruption is not rare at scale: six of Llama 3's 466 interruptions (Dubey et al. 2024, arXiv 2407.21783, table
5), and a model can learn on from wrong weights without a word. A digest is an exact sum on the device, so no rounding
hides a bit, and ranks exchange 16 bytes a tensor.
"""

import platform
from collections import defaultdict
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from pretrain.base.errors import MachineError
from pretrain.base.random import key
from pretrain.checkpoint.state import State
from pretrain.events.kinds import Corrupted, Event
from pretrain.model.weights import expand, held, local

HELD_TOGETHER = ("replicate", "fold", "tp")  # along these, ranks may hold the same part of a tensor
WORDS = 2**22  # of 8 bytes, digested at a time
MIX = (-7046029254386353131, -4658895280553007687)  # of splitmix64 (Steele et al. 2014, OOPSLA): odd
LOW = 2**32 - 1


def compare(state: State, report: Callable[[Event], None]) -> None:
    """Holds this rank's weights, their last gradients and the optimizer's moments against those of other copies.

    All ranks call it between steps. Raises MachineError on all of them, and names the ranks that differ from most.
    """
    ranks = state.ranks
    if ranks.alone:
        return
    ranks.fold(state.model)
    names, table = digests(state)
    wrong = False
    for name in HELD_TOGETHER:
        size = getattr(ranks.layout, name)
        if size > 1:
            every = [torch.empty_like(table) for _ in range(size)]
            dist.all_gather(every, table, group=ranks.group(name))
            parts, sums = torch.stack(every).unbind(1)
            wrong |= bool(((parts == table[0]) & (sums != table[1])).any())
    if ranks.any(wrong):
        told = _odd(names, table)
        report(Corrupted(state.step, *told))
        raise MachineError(sentence(state.step, *told))


def digests(state: State) -> tuple[list[str], Tensor]:
    """Names of tensors, and int64 [2, names]: which part of it this rank holds, as a number, and the digest of that."""
    weights = {weight.name: weight for weight in expand(state.rows) if weight.tied is None}
    tensors = {name: held(state.model, name) for name in weights}
    tensors |= {f"gradient.{name}": x.grad for name, x in tensors.items() if x.grad is not None}
    tensors |= {name: x for name, x in state.optimizer.state().items() if name.partition(".")[2] in weights}
    part = {name: key(0, *map(str, state.ranks.boxes(one, state.axes))) >> 1 for name, one in weights.items()}
    parts = [part[name if name in part else name.partition(".")[2]] for name in tensors]
    sums = torch.stack([digest(local(x)) for x in tensors.values()])
    return list(tensors), torch.stack([torch.tensor(parts, device=sums.device), sums])


@torch.no_grad()
def digest(x: Tensor) -> Tensor:
    """The sum, in 64 bits, of a tensor's words of 8 bytes, each after a one-to-one map of its place: int64 [].

    So one word that changes always changes the sum, and several do but by a rare accident.
    """
    flat = x.detach().contiguous().view(-1)
    if flat.numel() * flat.element_size() % 8 or flat.storage_offset() * flat.element_size() % 8:
        flat = pad(flat, (0, -flat.numel() % (8 // flat.element_size())))
    total = torch.zeros((), dtype=torch.int64, device=x.device)
    for number, words in enumerate(flat.view(torch.int64).split(WORDS)):
        place = torch.arange(number * WORDS, number * WORDS + len(words), device=x.device)
        mixed = words + place * MIX[0]
        mixed = (mixed ^ mixed >> 32 & LOW) * MIX[1]
        total += (mixed ^ mixed >> 32 & LOW).sum()
    return total


def _odd(names: list[str], table: Tensor) -> tuple[list[str], list[int], list[str], int]:
    """(tensors, ranks, places, holders): the ranks that differ from most of those that hold the same part of one of the
    tensors; all that hold it, where no bits are most of them's. `holders` are at least so many each time."""
    device = f"cuda {torch.cuda.current_device()}" if table.is_cuda else "cpu"
    every: list[tuple[str, list[str], list[list[int]]]] = [("", [], [])] * dist.get_world_size()
    dist.all_gather_object(every, (f"{platform.node()} {device}", names, table.tolist()))
    places, holders = list[str](), defaultdict[tuple[str, int], list[tuple[int, int]]](list)
    for rank, (place, own_names, (parts, sums)) in enumerate(every):
        places.append(place)
        for name, part, total in zip(own_names, parts, sums, strict=True):
            holders[name, part].append((total, rank))
    tensors, odd, fewest = list[str](), set[int](), len(places)
    for (name, _), found in holders.items():
        by = defaultdict[int, list[int]](list)
        for total, rank in found:
            by[total].append(rank)
        if len(by) > 1:
            most = max(by.values(), key=len)
            tensors.append(name)
            odd |= {rank for one in by.values() for rank in one if one is not most or 2 * len(most) <= len(found)}
            fewest = min(fewest, len(found))
    return tensors, sorted(odd), [places[rank] for rank in sorted(odd)], fewest


def sentence(step: int, tensors: list[str], ranks: list[int], places: list[str], holders: int) -> str:
    """What was found, in a line."""
    named = ", ".join(f"rank {rank} ({place})" for rank, place in zip(ranks, places, strict=True))
    which = ", ".join(tensors[:3]) + (f" and {len(tensors) - 3} more" if len(tensors) > 3 else "")
    against = "differs from the others" if len(ranks) == 1 else "differ from each other or from the others"
    return (
        f"at step {step}, {named} {against} in the bits of {which}, of which {holders} ranks or more hold the same "
        "part: start again without that machine, from the last checkpoint"
    )
