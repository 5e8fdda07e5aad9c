"""The benchmark's tokens through mosaicml-streaming: `write FOLDER` makes MDS, `read FOLDER SECONDS` measures."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

BATCH, ROW, PLACES = 16, 2048, (0.0, 0.01, 0.5, 0.99)


def loader(folder: Path) -> StreamingDataLoader:
    clean_stale_shared_memory()
    data = StreamingDataset(local=str(folder / "mds"), shuffle=True, batch_size=BATCH)
    return StreamingDataLoader(data, batch_size=BATCH, num_workers=0, drop_last=True)


def first(folder: Path, state: dict | None) -> float:
    start = time.perf_counter()
    batches = loader(folder)
    if state:
        batches.load_state_dict(state)
    one = next(iter(batches))["tokens"].to(torch.int64)
    one[:, :-1], one[:, 1:]
    return time.perf_counter() - start


def main(what: str, folder: Path, seconds: float) -> None:
    if what == "write":
        tokens = np.fromfile(folder / "train.bin", np.uint16)
        rows = tokens[: (len(tokens) - 1) // ROW * ROW]
        with MDSWriter(out=str(folder / "mds"), columns={"tokens": f"ndarray:uint16:{ROW + 1}"}) as out:
            for start in range(0, len(rows), ROW):
                out.write({"tokens": tokens[start : start + ROW + 1]})
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
        one = batch["tokens"].to(torch.int64)
        tokens += one[:, :-1].numel()
        if number == 0:
            tokens, start = 0, time.process_time()
        if number % 20 == 0 and time.process_time() > start + seconds:
            break
    print(json.dumps({"rate": tokens / (time.process_time() - start), "firsts": firsts}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
