"""Twin: on every layout, modules that look ahead learn what one process's do, in float64."""

import torch

from parallel.test_apply import MODELS, deviations
from pretrain.parallel.layout import Layout
from ranks import ranks

MUTANTS = [
    ("src/pretrain/parallel/tensor.py", "module.later = partial(_later, module.later, group)", "pass"),
    ("src/pretrain/parallel/context.py", "module.later = partial(context.later, module.later)", "pass"),
    ("src/pretrain/parallel/context.py", "return self.own(later(whole, k))", "return self.own(whole)"),
    ("src/pretrain/model/ahead.py", 'for name in ("blocks", "ahead")]', 'for name in ("blocks",)]'),
    ("src/pretrain/order/batch.py", "array[..., columns]", "array[..., : len(columns)]"),
]
LAYOUTS = [Layout(tp=4), Layout(cp=4), Layout(cp=2, tp=2)]
DEEP = {**MODELS["deepseek_v3"], "num_nextn_predict_layers": 2}


@ranks(4)
def test_every_layout_takes_the_same_steps() -> None:
    MODELS["deepseek_v3"] = DEEP
    assert max(deviations("deepseek_v3", "adamw", torch.float64, 1, LAYOUTS, ahead=2)) <= 1e-11
    # A family that has none of its own.
    assert max(deviations("llama", "adamw", torch.float64, 1, [Layout(cp=2, shard=2)], ahead=1)) <= 1e-11
