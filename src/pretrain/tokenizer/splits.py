"""Published patterns by which text is cut before merges are learned or applied, and other rules for their digits."""

SPLITS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
NUMBERS = {"gpt2": r" ?\p{N}+", "llama3": r"\p{N}{1,3}", "o200k": r"\p{N}{1,3}"}  # the part of each that takes digits


def pattern(split: str, digits: str | int = "pattern") -> str:
    """A published pattern; with a number, digits go in groups of at most so many, from the left, without a space.

    `llama3` also serves cl100k's ranks (its pattern cuts alike), and with `digits` = 1 Qwen 2's.
    """
    rule = {"pattern": NUMBERS[split], 1: r"\p{N}"}.get(digits, rf"\p{{N}}{{1,{digits}}}")
    return SPLITS[split].replace(NUMBERS[split], rule)
