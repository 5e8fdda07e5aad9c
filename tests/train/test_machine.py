"""Tables: when steps are compiled, and what is said of it."""

import pytest

from pretrain.base.errors import UserError
from pretrain.train import machine

ABLE, UNABLE = (True, "there is one"), (False, "there is no C++ compiler")


@pytest.mark.parametrize(
    ("asked", "device", "seconds", "answer", "compiled", "said"),
    [
        ("auto", "cpu", 40.0, ABLE, False, ""),
        ("auto", "cpu", 3600.0, ABLE, True, "first step takes longer"),
        ("auto", "cuda", 1.0, ABLE, True, "first step takes longer"),
        ("auto", "cpu", 3600.0, UNABLE, False, "uncompiled: there is no C++ compiler"),
        ("always", "cpu", 1.0, ABLE, True, "first step takes longer"),
        ("never", "cuda", 1e9, ABLE, False, ""),
    ],
)
def test_compiled_where_it_pays(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    device: str,
    seconds: float,
    answer: tuple[bool, str],
    compiled: bool,
    said: str,
) -> None:
    monkeypatch.setattr(machine, "compiler_answer", lambda: answer)
    found, sentence = machine.compiles(asked, device, seconds)
    assert found is compiled and said in sentence and bool(said) == bool(sentence)


def test_compiling_that_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "compiler_answer", lambda: UNABLE)
    with pytest.raises(UserError, match="there is no C"):
        machine.compiles("always", "cpu", 1.0)
