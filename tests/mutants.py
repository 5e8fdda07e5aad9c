"""Breaks the code as the MUTANTS of the test files say, one at a time, and demands that the file's tests fail.

python tests/mutants.py [--sample N] [FILE ...]
"""

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOO_LONG = 300  # seconds for a file's tests


def mutants(test: Path) -> list[tuple[str, str, str]]:
    """(source file, text, what replaces it) of a test file."""
    for node in ast.parse(test.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MUTANTS":
            return list(ast.literal_eval(node.value))
    return []


def survives(test: Path, source: str, text: str, instead: str) -> bool:
    """Whether the tests of a file pass although the code is broken."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src", Path(folder) / "src")
        broken = Path(folder) / source
        content = broken.read_text()
        assert content.count(text) == 1, f"{test.name}: {source} holds {text!r} {content.count(text)} times"
        broken.write_text(content.replace(text, instead))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        command += ["--hypothesis-profile", "mutants", str(test)]
        environment = {**os.environ, "PYTHONPATH": f"{folder}/src"}
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as tests:
            try:
                return tests.wait(timeout=TOO_LONG) == 0
            except subprocess.TimeoutExpired:  # a loop that no longer ends is seen, too
                os.killpg(tests.pid, signal.SIGKILL)
                return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--sample", type=int, help="only so many, drawn by a fixed seed")
    arguments = parser.parse_args()
    files = [path.resolve() for path in arguments.files] or sorted((ROOT / "tests").rglob("test_*.py"))
    every = [(test, *mutant) for test in files for mutant in mutants(test)]
    if arguments.sample:
        every = random.Random(1).sample(every, min(arguments.sample, len(every)))
    alive = 0
    for test, source, text, instead in every:
        lives = survives(test, source, text, instead)
        alive += lives
        sys.stdout.write(f"{'SURVIVES' if lives else 'caught':<9} {test.name}: {source}: {text!r} -> {instead!r}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(every) - alive} of {len(every)} mutants caught\n")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
