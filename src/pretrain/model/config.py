"""config.json, in the words of transformers 4 and 5 both, to a family's Config and back.

A key is read only if we would write the same again: so a word that changes the arithmetic, and that the family does not
know, is refused by name.
"""

import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from pretrain.base.errors import DamagedError, UserError, nearest
from pretrain.base.extension import find, names
from pretrain.model.layers.rope import RopeScaling
from pretrain.model.tensor_files import Tensors

CONFIG = "config.json"
IS_CAUSAL = "is_causal"  # false where every token sees every other: no Config holds it, who calls the model says it
ROPE = {"rope_theta", "rope_scaling", "rope_parameters"}  # one thing in several words: read together
# Keys that no logit depends on: how a model was made, is run, is fine-tuned or draws its samples.
INERT = {
    "_attn_implementation_autoset", "_from_model_config", "_name_or_path", "add_cross_attention", "architectures",
    "attention_dropout", "attn_pdrop", "bad_words_ids", "begin_suppress_tokens", "bos_token_id", 
    "chunk_size_feed_forward", "classifier_dropout", "decoder_start_token_id", "dtype", "embd_pdrop", "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing", "hidden_dropout", "id2label", "initializer_range", "is_decoder", "is_encoder_decoder",
    "label2id", "max_length", "max_position_embeddings", "model_type", "output_attentions", "output_hidden_states",
    "pad_token_id", "prefix", "pretraining_tp", "problem_type", "resid_pdrop", "return_dict", "sep_token_id",
    "task_specific_params", "torch_dtype", "transformers.js_config", "transformers_version",
    "unsloth_version", "use_cache",
}  # fmt: skip


def to_json(family: ModuleType, config: Any, dtype: str) -> dict[str, object]:
    """The table of config.json; `written` of the family, where it has one, has the last word."""
    table = dataclasses.asdict(config)
    if "rope_theta" in table:
        scaling = scaling_words(config.rope_scaling) if "rope_scaling" in table else None
        table["rope_scaling"] = scaling
        table["rope_parameters"] = {"rope_type": "default", **(scaling or {}), "rope_theta": config.rope_theta}
    if hasattr(config, "head_size"):
        table["head_dim"] = config.head_size
    table = {
        "architectures": [family.ARCHITECTURE],
        "model_type": family.MODEL_TYPE,
        **table,
        **family.FIXED,
        "torch_dtype": dtype,
        "dtype": dtype,
    }
    return table | family.written(config) if hasattr(family, "written") else table


def scaling_words(scaling: RopeScaling | None) -> dict[str, object] | None:
    """The keys that are said."""
    if scaling is None:
        return None
    return {name: value for name, value in vars(scaling).items() if value is not None}


def read_config(folder: Path) -> tuple[ModuleType, Any]:
    """The family module and Config of a released folder. Raises UserError."""
    path = folder / CONFIG
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError("no config.json", where=str(folder), expected="a released model") from None
    except ValueError:
        raise DamagedError("cannot be read", where=str(path), expected="JSON") from None
    if "auto_map" in table:
        what = "auto_map asks for code that comes with the folder, and nothing of a folder is executed"
        raise UserError(what, where=str(path), expected="an architecture that pretrain has")
    if quantized := table.get("quantization_config"):
        what = (
            f"quantization_config: weights in {quantized.get('quant_method', 'few bits')}, which pretrain does not read"
        )
        raise UserError(what, where=str(path), expected="a folder written in bfloat16 or float32")
    family = _family(table, path)
    if hasattr(family, "fitted") and list(folder.glob("*.safetensors*")):
        table = family.fitted(table, Tensors(folder).keys())
    return family, from_json(family, table, path)


def _family(table: dict[str, Any], path: Path) -> ModuleType:
    known = {find("model.families", name).ARCHITECTURE: name for name in names("model.families")}
    wanted = str((table.get("architectures") or ["?"])[0])
    if wanted not in known:
        what = f"architecture {wanted} is not known"
        near = nearest(wanted, known)
        raise UserError(what, where=str(path), expected="" if near else " or ".join(sorted(known)), near=near)
    return find("model.families", known[wanted])


def from_json(family: ModuleType, table: dict[str, Any], path: Path) -> Any:
    """A family's Config of the table of a config.json; `path` is where it lies. Raises UserError."""
    said = {ours: table[other] for other, ours in getattr(family, "OTHERWISE", {}).items() if other in table} | table
    said = {**getattr(family, "UNSAID", {}), **said}
    nulls = {name for name, value in said.items() if value is None} - ROPE
    said = {name: value for name, value in said.items() if value is not None}
    fields = {field.name for field in dataclasses.fields(family.Config)}
    try:
        if hasattr(family, "read"):
            said = family.read(said)
        elif "rope_theta" in fields:
            said |= rope(
                said.get("rope_parameters") or said.get("rope_scaling") or {}, said.get("rope_theta", 10_000.0)
            )
            if "rope_scaling" not in fields and said["rope_scaling"] is not None:
                raise ValueError("rope_scaling is not supported")
        config = family.Config(**_values(family, said, nulls))
    except (TypeError, ValueError) as error:
        raise UserError(str(error), where=str(path), expected=f"a config.json of {family.ARCHITECTURE}") from None
    again = json.loads(json.dumps(to_json(family, config, "")))
    inert = INERT | ROPE | {IS_CAUSAL} | set(getattr(family, "INERT", ()))
    for name, value in table.items():
        if name in inert or value is None:
            continue
        if name in again and again[name] != value:
            raise UserError(f"{name} = {value!r} is not supported", where=str(path), expected=repr(again[name]))
        if name not in again and value not in (False, [], {}):  # what is off changes nothing
            raise UserError(
                f"{name} = {value!r} is not known to the family", where=str(path), near=nearest(name, again)
            )
    return config


def _values(family: ModuleType, said: dict[str, Any], nulls: set[str]) -> dict[str, Any]:
    """The fields of Config that are said, null where it may be. Raises ValueError for the first that is missing."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(family.Config):
        if field.name in said:
            value = said[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
        elif field.name in nulls:
            if type(None) not in get_args(field.type):
                raise ValueError(f"{field.name} = null is not supported")
            values[field.name] = None
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{field.name} is not said")
    return values


def rope(said: dict[str, Any], theta: float) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` of a table in the words of either age. Raises TypeError, ValueError."""
    words = {name: value for name, value in said.items() if value is not None}
    theta = words.pop("rope_theta", theta)
    kind = words.pop("type", "default")
    kind = words.setdefault("rope_type", kind)
    if words.get("partial_rotary_factor") == 1.0:
        del words["partial_rotary_factor"]
    return {"rope_theta": theta, "rope_scaling": None if kind == "default" else RopeScaling(**words)}
