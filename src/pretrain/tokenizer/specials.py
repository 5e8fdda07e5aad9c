"""The ids at the end of every vocabulary that we train: named ones, the user's own, and numbered ones for later."""

from collections.abc import Sequence

from pretrain.base.errors import UserError

DOCUMENT_END = "<|document_end|>"
PAD = "<|pad|>"
MASK = "<|mask|>"
NAMED = (
    *(DOCUMENT_END, PAD, MASK, "<|user|>", "<|assistant|>", "<|system|>", "<|tool_call|>", "<|tool_result|>"),
    *("<|think|>", "<|/think|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|image|>", "<|audio|>", "<|video|>"),
)


def specials(
    vocab_size: int, reserved: int, *, own: Sequence[str] = (), multiple: int = 1, named: Sequence[str] = NAMED
) -> list[str]:
    """Names of the last ids: named ones, `own`, then numbers up to `reserved`, and on to the next `multiple` of ids.

    Where little is reserved the named ones give way to the user's own, all but the end of a document. Raises UserError.
    """
    twice = [name for i, name in enumerate(own) if name in own[:i] or name in named or not name]
    if twice:
        raise UserError(f"tokenizer.specials: {twice[0]!r} is there already", expected="names of your own, each once")
    if len(own) >= reserved:
        what = f"{reserved} reserved ids have no room for {len(own)} specials and the end of a document"
        raise UserError(what, expected=f"tokenizer.reserved = {len(own) + 1} or more")
    names = [*named[: reserved - len(own)], *own]
    count = reserved + -vocab_size % multiple
    return [*names, *(f"<|reserved_{i}|>" for i in range(len(names), count))]
