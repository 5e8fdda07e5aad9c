"""Connected components over shared buckets (union-find, Tarjan 1975)."""

from collections.abc import Iterable, Sequence


def clusters(ids: Sequence[str], buckets: Iterable[Iterable[object]]) -> list[str]:
    """The cluster of each document, named by its least id: connected components over shared buckets, in any order."""
    parent = list(range(len(ids)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[object, int] = {}
    for i, keys in enumerate(buckets):
        for bucket in keys:
            one, other = root(first.setdefault(bucket, i)), root(i)
            if one != other:
                low, high = sorted((one, other), key=lambda j: ids[j])
                parent[high] = low
    return [ids[root(i)] for i in range(len(ids))]
