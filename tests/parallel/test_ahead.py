"""Twin: on every layout, modules that look ahead learn what one process's do, in float64."""

import torch

from parallel.test_apply import MODELS, deviations
from pretrain.parallel.layout import Layout
from ranks import ranks

MUTANTS = [
    ("src/pretrain/parallel/tensor.py", "module.later = partial(_later, module.later, group)", "pass"),
    ("src/pretrain/parallel/tensor.py", "one.block if isinstance(one, Ahead) else one", "one"),
    ("src/pretrain/parallel/context.py", "module.later = partial(context.later, module.later)", "pass"),
    ("src/pretrain/parallel/context.py", "return self.own(later(whole, k))", "return self.own(whole)"),
    ("src/pretrain/model/ahead.py", 'for name in ("blocks", "ahead")]', 'for name in ("blocks",)]'),
    ("src/pretrain/parallel/pipeline.py", 'looked_up = ["embed.weight"] if', "looked_up = [] if"),
    (
        "src/pretrain/parallel/pipeline.py",
        "out, ahead = made.hidden.to(dtype), made.ahead",
        "out = made.hidden.to(dtype)",
    ),
    ("src/pretrain/objective/objective.py", "ahead = (hidden,) * objective.ahead", "pass"),
    ("src/pretrain/order/batch.py", "array[..., columns]", "array[..., : len(columns)]"),
]
# The embedding lies on the first stage and on the last; there it is the head as well.
TIED = {**MODELS["llama"], "num_hidden_layers": 4, "tie_word_embeddings": True}
LAYOUTS = [Layout(tp=4), Layout(cp=4), Layout(cp=2, tp=2), Layout(pp=2, tp=2), Layout(pp=2, cp=2)]
DEEP = {**MODELS["deepseek_v3"], "num_nextn_predict_layers": 2}


@ranks(4)
def test_every_layout_takes_the_same_steps() -> None:
    MODELS["deepseek_v3"] = DEEP
    assert max(deviations("deepseek_v3", "adamw", torch.float64, 1, LAYOUTS, ahead=2)) <= 1e-11
    # A family whose matrices stand in the block itself, and one whose stages have two runs of blocks.
    assert max(deviations("nimble", "adamw", torch.float64, 1, [Layout(cp=2, tp=2)], ahead=1)) <= 1e-11
    MODELS["llama"] = TIED
    layouts = [Layout(cp=2, shard=2), Layout(pp=2, chunks=2, shard=2)]
    assert max(deviations("llama", "adamw", torch.float64, 1, layouts, ahead=1)) <= 1e-11
