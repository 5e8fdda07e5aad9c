"""[model]: which family, how large, or from which published folder."""

from dataclasses import dataclass

from pretrain.recipe.schema import Leaf, key, leaf_key


@dataclass(frozen=True)
class Model:
    """[model]: a family's Config under the keys of its config.json; vocab_size is filled in from the tokenizer."""

    from_: str | None = key(
        "a released folder whose weights training starts from; its architecture and its tokenizer need not be said",
        None,
        path=True,
    )
    family: Leaf = leaf_key("the family: llama …", "model.families", use="llama", rest=True)
