"""The house stands as docs/architecture.md draws it: floors, nevers, and who may print."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pretrain"
PLAN = (ROOT / "docs" / "architecture.md").read_text()
FLOOR = {
    room: int(floor)
    for floor, rooms in re.findall(r"^\| (\d+) \| (.+) \|$", PLAN, re.M)
    for room in re.findall(r"`(\w+)`", rooms)
}
NO_TORCH = {room for room, floor in FLOOR.items() if floor <= 3} | {"trace"}
NO_DISTRIBUTED = ("attention", "precision", "model", "objective")
FOREIGN = {"transformers", "accelerate", "lightning", "wandb", "deepspeed", "megatron"}
LEAVES = re.compile(
    r"pretrain\.(model\.families|corpus\.(read|filters|dedup)|evaluate\.tasks|run\.schedulers|(objective|optimizer)\.kinds)\."
)
MAY_PRINT = re.compile(r"cli/|base/progress\.py|watch/console\.py")
MAY_ASK = re.compile(r"cli/|parallel/launch\.py")  # the environment


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, also those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def faults(path: Path) -> Iterator[tuple[int, str]]:
    """What a file does that its room may not."""
    inside = path.relative_to(SOURCE)
    room, tree = inside.parts[0], ast.parse(path.read_text())
    for line, module in imports(tree):
        top, _, rest = module.partition(".")
        other = rest.split(".")[0]
        if top == "pretrain" and other in FLOOR and other != room and FLOOR[other] >= FLOOR[room]:
            yield line, f"{room} may not import {other}"
        if LEAVES.match(module):
            yield line, f"{module} is a leaf: find it by name"
        if top == "torch" and room in NO_TORCH:
            yield line, f"{room} never imports torch"
        if module.startswith("torch.distributed") and room in NO_DISTRIBUTED:
            yield line, f"{room} never imports torch.distributed"
        if top in FOREIGN:
            yield line, f"{top} is for tests only"
        if top == "pickle":
            yield line, "nothing from a file is executed"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "print" and not MAY_PRINT.match(str(inside)):
                yield node.lineno, "only cli, base.progress and watch/console.py print"
        elif isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and not MAY_ASK.match(str(inside)):
            yield node.lineno, "the environment is read in cli and parallel/launch.py only"


def test_imports_go_down_and_nevers_hold() -> None:
    files = [path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE]
    wrong = [f"{path.relative_to(ROOT)}:{line}: {what}" for path in files for line, what in faults(path)]
    assert not wrong, "\n".join(wrong)
    assert len(files) > 60


def test_the_table_names_the_rooms_that_stand() -> None:
    assert {p.name for p in SOURCE.iterdir() if (p / "__init__.py").exists()} == set(FLOOR)


def loaded(code: str) -> set[str]:
    """Top-level modules after running some code in a fresh Python."""
    show = "; import sys; print(*{m.split('.')[0] for m in sys.modules})"
    return set(
        subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, check=True).stdout.split()
    )


def test_what_must_be_fast_imports_nothing_heavy() -> None:
    assert not loaded("import pretrain") & {"torch", "numpy", "rich", "pyarrow"}
    help_ = "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n "
    assert not loaded(help_ + "from pretrain.cli.main import main; main(['--help'])\nNone") & {"torch", "numpy", "rich"}


def test_the_lower_floors_run_without_torch() -> None:
    files = [p for p in SOURCE.rglob("*.py") if p.relative_to(SOURCE).parts[0] in NO_TORCH]
    modules = [".".join(p.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__") for p in files]
    assert "torch" not in loaded(f"import {', '.join(modules)}")
