"""The benchmark's tokens through litdata: `write FOLDER` makes its chunks, `read FOLDER SECONDS` measures."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset, TokensLoader, optimize

BATCH, ROW, PLACES = 16, 2048, (0.0, 0.01, 0.5, 0.99)


def piece(job: tuple[str, int, int]) -> Iterator[torch.Tensor]:
    path, start, stop = job
    yield torch.from_numpy(np.fromfile(path, np.uint16, stop - start, offset=2 * start).astype(np.int32))


def loader(folder: Path) -> StreamingDataLoader:
    data = StreamingDataset(str(folder / "litdata"), item_loader=TokensLoader(ROW + 1), shuffle=True, drop_last=True)
    return StreamingDataLoader(data, batch_size=BATCH, num_workers=0)


def first(folder: Path, state: dict | None) -> float:
    start = time.perf_counter()
    batches = loader(folder)
    if state:
        batches.load_state_dict(state)
    one = next(iter(batches)).long()
    one[:, :-1], one[:, 1:]
    return time.perf_counter() - start


def main(what: str, folder: Path, seconds: float) -> None:
    if what == "write":
        path, size = str(folder / "train.bin"), (folder / "train.bin").stat().st_size // 2
        jobs = [(path, start, min(start + 2**20, size)) for start in range(0, size, 2**20)]
        optimize(
            piece, jobs, str(folder / "litdata"), chunk_size=(ROW + 1) * 8192, item_loader=TokensLoader(), num_workers=1
        )
        return
    first(folder, None)
    count, firsts = len(loader(folder)), [first(folder, None)]
    for place in PLACES[1:]:
        batches = loader(folder)
        for number, _ in enumerate(batches):
            if number >= int(count * place):
                break
        firsts.append(first(folder, batches.state_dict()))
    tokens, start = 0, time.process_time()
    for number, batch in enumerate(loader(folder)):
        one = batch.long()
        tokens += one[:, :-1].numel()
        if number == 0:
            tokens, start = 0, time.process_time()
        if number % 20 == 0 and time.process_time() > start + seconds:
            break
    print(json.dumps({"rate": tokens / (time.process_time() - start), "firsts": firsts}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
