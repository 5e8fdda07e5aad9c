"""Ordeal: files and folders are whole or absent, whatever happens while they are written."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from pretrain.base import files
from pretrain.base.errors import DamagedError, DiskFullError
from pretrain.base.files import digest_file, digest_of, new_folder, read_manifest, verify, write

MUTANTS = [("src/pretrain/base/files.py", "name))[number::count]", "name))[number + 1 :: count]")]
KILLED = """
import os, signal, sys
from pathlib import Path
from pretrain.base import files
sync, left = os.fsync, int(sys.argv[2])
def fsync(handle):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(handle)
os.fsync = fsync
with files.new_folder(Path(sys.argv[1])) as partial:
    (partial / "a.bin").write_bytes(b"new" * 1000)
    (partial / "sub").mkdir()
    (partial / "sub" / "b.bin").write_bytes(b"b")
"""


@pytest.mark.parametrize("syncs", [0, 1, 2, 3, 4, 5])
def test_a_folder_is_whole_or_absent_after_sigkill_at_any_sync(tmp_path: Path, syncs: int) -> None:
    target = tmp_path / "folder"
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), str(syncs)])
    if target.exists():
        assert verify(target).keys() == {"a.bin", "sub/b.bin"}
    else:
        assert done.returncode == -signal.SIGKILL
    with new_folder(target) as partial:  # what the dead process left is in nobody's way
        (partial / "a.bin").write_bytes(b"second")
    assert (target / "a.bin").read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_fails_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    with new_folder(tmp_path / "x") as partial:
        (partial / "a").write_text("old")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "x") as partial:
        (partial / "a").write_text("new")
        raise RuntimeError
    assert (tmp_path / "x" / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_damage_is_named(tmp_path: Path) -> None:
    with new_folder(tmp_path / "x") as partial:
        (partial / "a").write_bytes(bytes(100))
        (partial / "b").write_bytes(bytes(100))
    assert read_manifest(tmp_path / "x")["a"]["bytes"] == 100
    file = tmp_path / "x" / "b"
    file.write_bytes(bytes(99) + b"\1")
    assert verify(tmp_path / "x", content=False)
    with pytest.raises(DamagedError, match=r"x/b: content differs"):
        verify(tmp_path / "x")
    file.write_bytes(bytes(99))
    with pytest.raises(DamagedError, match=r"x/b: holds 99 bytes; expected 100"):
        verify(tmp_path / "x", content=False)
    file.unlink()
    with pytest.raises(DamagedError, match=r"x/b: file is missing"):
        verify(tmp_path / "x", content=False)
    (tmp_path / "x" / "manifest.json").write_text("{")
    with pytest.raises(DamagedError, match="manifest"):
        verify(tmp_path / "x")


def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"a: the disk is full \([\d,]+ bytes free\)"):
        write(tmp_path / "a", "new")
    with pytest.raises(DiskFullError), new_folder(tmp_path / "folder") as partial:
        (partial / "x").write_text("x")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


@pytest.mark.parametrize("readers", [1, 2, 3, 9])
def test_several_readers_read_each_file_once(tmp_path: Path, readers: int) -> None:
    names = [f"{i}.bin" for i in range(5)]
    with new_folder(tmp_path / "x") as partial:
        for i, name in enumerate(names):
            write(partial / name, "text" * (i // 2))
    for name in names:
        whole = (tmp_path / "x" / name).read_bytes()
        (tmp_path / "x" / name).unlink()
        found = 0
        for number in range(readers):
            try:
                verify(tmp_path / "x", share=(number, readers))
            except DamagedError:
                found += 1
        assert found == 1, name
        (tmp_path / "x" / name).write_bytes(whole)


def test_digests_name_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert digest_file(tmp_path / "a") == files.digest(b"x" * 3_000_000)
    assert digest_of({"a": 1, "b": [1.5, "é"]}) == digest_of({"b": [1.5, "é"], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": "1"})


def test_a_full_disk_under_a_library_in_rust_is_known_too(tmp_path: Path) -> None:
    """In safetensors' words, as a run on a full tmpfs met them."""
    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(DiskFullError, match="the disk is full"), files.room_for(tmp_path / "a"):
        raise SafetensorError(full)
    with pytest.raises(SafetensorError, match="os error 2"), files.room_for(tmp_path / "a"):
        raise SafetensorError("No such file or directory (os error 2)")
