"""Closed form: exit codes, one line for a mistake, the nearest name; public names import and are documented."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pretrain
from pretrain.cli.doctor import troubles
from pretrain.cli.main import COMMANDS, main
from pretrain.run.stages import STAGES

ROOT = Path(__file__).parents[2]
SMALL = [
    *("train.steps=100000", "train.batch=256", "train.sequence=32", "train.sample_every=0", "train.evaluate_every=0"),
    *("train.checkpoint_every=0", "model.hidden_size=32", "model.intermediate_size=32", "model.num_hidden_layers=1"),
    *("model.num_attention_heads=2", "model.num_key_value_heads=2", "evaluate.tasks=[]", "tokenizer.vocab_size=600"),
]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and line in shown for name, line in COMMANDS.items())
    for name in COMMANDS:
        with pytest.raises(SystemExit) as left:
            main([name, "--help"])
        assert left.value.code == 0
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert ", ".join(STAGES) in " ".join(capsys.readouterr().out.split())


def test_help_of_every_command_imports_nothing_heavy() -> None:
    code = (
        "import contextlib, io, sys\nfrom pretrain.cli.main import COMMANDS, main\n"
        "for name in COMMANDS:\n with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "  main([name, '--help'])\nprint(*{name.split('.')[0] for name in sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {*shown.split()} & {"torch", "numpy", "pyarrow", "fsspec", "tokenizers", "rich", "zstandard"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], r"no command 'rnu'; nearest: run"),
        (["run", "quikstart"], r"no recipe quikstart; .*nearest: quickstart"),
        (["quickstart", "train.stps=3"], r"command line: train\.stps: no such key; nearest: train\.steps"),
        (["run", "quickstart", "train.stps=3"], r"command line: train\.stps: no such key; nearest: train\.steps"),
        (["run", "quickstart", "--only", "tokeniser"], r"no stage 'tokeniser'; .*nearest: tokenizer"),
        (["run", "quickstart", "--from", "train", "--to", "tokens"], r"tokens comes before train"),
        (["run", "quickstart", "--only", "train", "--to", "train"], r"--only stands beside --from or --to"),
        (["run"], r"required: recipe; expected what pretrain run --help says$"),
        (["check"], r"required: recipe; expected"),
        (["run", "quickstart", "--drry"], r"^pretrain: no option --drry; .*nearest: --dry$"),
        (["run", "--onyl", "tokens", "quickstart"], r"no option --onyl; .*nearest: --only$"),
        (["sample", "x", "y", "z"], r"z is one argument too many"),
        (["sample", "x", "--tokens", "many"], r"argument --tokens: invalid int value: 'many'"),
        (
            ["run", "quickstart", "--only", "train"],
            r"corpus is not made yet; expected `--to corpus` first",
        ),
        (
            ["check", "quickstart", "model.hiden_size=3"],
            r"command line: model\.hiden_size: no such key; nearest: model\.",
        ),
        (["sample", "nowhere"], r"nowhere: no such folder; expected a run directory"),
        (["evaluate", "x", "--data", "missing.txt"], r"missing\.txt: no such file or directory"),
        (["run", "quickstart", "--ranks", "0"], "--ranks: 0 is no whole number above 0"),
        (["check", "quickstart", "--ranks", "64", "parallel.tp=64"], r"64 does not divide the \d+ attention heads"),
        (["run", "quickstart", "parallel.tp=2"], r"does not divide 1 rank; expected .*, or 2 ranks \(--ranks 2\)"),
        (["launch", "slurm", "quickstart", "parallel.tp=8"], "parallel.tp = 8 does not divide"),
        (["run", "quickstart", "run.checkpoints=/dev/null"], "/dev/null/quickstart: Not a directory; expected a place"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1, error


def test_check_shows_every_value_with_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "quickstart", "train.clip=3"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^clip = 3\.0 +# command line$", shown, re.M)
    assert re.search(r"^sequence = 256 +# pretrain/recipes/quickstart\.toml:\d+$", shown, re.M)
    assert re.search(r"^z_loss = 0\.0 +# default$", shown, re.M)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "src/pretrain/recipes").glob("*.toml")))
def test_what_check_prints_is_a_recipe_that_says_everything(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(*arguments: str) -> str:
        status, caught = main(["check", *arguments]), capsys.readouterr()
        missing = caught.err.splitlines()  # of the text that a recipe is for, none of which is here
        assert all("no file matches" in line for line in missing) and status == (2 if missing else 0), caught.err
        return caught.out

    printed = tmp_path / "printed.toml"
    printed.write_text(check(name))
    said = {key: one["value"] for key, one in json.loads(check(name, "--json"))["values"].items()}
    again = json.loads(check(str(printed), "--json"))["values"]
    paths = re.compile(r"corpus\.sources\.\d+\.(paths|exclude)")  # relative to the recipe's own folder
    assert {k: v for k, v in said.items() if not paths.fullmatch(k)} == {
        k: one["value"] for k, one in again.items() if not paths.fullmatch(k)
    }
    assert all(one["origin"].startswith(str(printed)) for k, one in again.items() if one["value"] is not None), again


def test_check_tells_all_mistakes_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["train.optimizer.momentun=0.5", "model.hidden_sise=3"]
    assert main(["check", "quickstart", *wrong]) == 2
    error = capsys.readouterr().err
    assert "nearest: train.optimizer.momentum" in error and "nearest: model.hidden_size" in error, error


def test_check_and_run_say_which_pattern_finds_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = '[[corpus.sources]]\nname = "a"\nread = "text"\n'
    (tmp_path / "a.toml").write_text(f'extends = "quickstart"\nrun.name = "a"\n{source}paths = ["*.md", "*.tex"]\n')
    for command in (["check", "a.toml"], ["run", "a.toml"], ["run", "a.toml", "--dry"]):
        assert main(command) == 2
        caught = capsys.readouterr()
        assert re.search(r"a\.toml:6: corpus.sources 'a': no file matches \S+/\*\.md nor \S+/\*\.tex;", caught.err)
        assert ("[[corpus.sources]]" in caught.out) == (command[0] == "check")
    (tmp_path / "a.tex").write_text("so it goes")
    (tmp_path / "a.md").write_text("so it goes")
    assert main(["check", "a.toml"]) == 0
    assert main(["check", "a.toml", 'corpus.sources.a.exclude=["*/a.*"]']) == 2
    assert "command line: corpus.sources 'a': every file is excluded" in capsys.readouterr().err
    assert main(["check", "a.toml", "tokens.from=memory://shards", 'corpus.sources.a.paths=["none/*"]']) == 0, (
        "none is read"
    )
    (tmp_path / "ranks").write_text("IQ== 0\nIg== 1\n" * 4)
    for said, message in (
        ("tokens.from=shards", r"shards: no token shards; expected a folder with catalogue\.json or \.bin files"),
        ("tokenizer.from=gone", r"gone: no tokenizer\.json, tokenizer\.model or \*\.tiktoken; expected one of them"),
        ("tokenizer.from=ranks", r"ranks: tiktoken ranks name no pattern that splits text; expected tokenizer\.split"),
    ):
        for command in (["check", "a.toml"], ["run", "a.toml", "--to", "corpus"]):
            assert main([*command, said]) == 2
            assert re.search(message, capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.md", "a.tex", "a.toml", "ranks"]


@pytest.mark.parametrize("wrong", ["model.hiden_size=3", "train.optimizer.lr=-1", "evaluate.tasks=['python_syntx']"])
def test_run_makes_nothing_of_a_recipe_with_a_mistake(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "quickstart", wrong, "--to", "train"]) == 2
    assert "pretrain: command line: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


FACTS = {
    "accelerators": ["a GPU"],
    "cores": 4,
    "threads": 4,
    "busy_cores": 0.0,
    "memory_bytes": 16 * 2**30,
    "disk_free_bytes": 100 * 2**30,
    "matmul_fp32_flops_per_second": 1e11,
    "matmul_bf16_flops_per_second": 4e11,
    "native_bf16": True,
    "can_compile": True,
    "compiler": "torch.compile has a C++ compiler here",
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"accelerators": []}, "No accelerator"),
        ({"native_bf16": False, "matmul_bf16_flops_per_second": 5e10}, "at 0.5 times the speed of float32"),
        ({"matmul_bf16_flops_per_second": 5e10}, "say train.precision=fp32"),
        ({"can_compile": False, "compiler": "there is none"}, "There is none."),
        ({"memory_bytes": 2**30}, "Less than 4 GiB of memory"),
        ({"disk_free_bytes": 2**30}, "Less than 5 GiB free"),
        ({"threads": 8}, "8 threads on 4 cores wait for each other: say run.threads=4."),
        ({"threads": 1, "accelerators": []}, "Only 1 of 4 cores would work"),
        ({"busy_cores": 3.0}, "Other work keeps 3.0 of 4 cores busy"),
    ],
)
def test_doctor_says_what_would_go_wrong(change: dict[str, object], sentence: str) -> None:
    assert troubles(FACTS) == []
    assert any(sentence in one for one in troubles({**FACTS, **change})), troubles({**FACTS, **change})


def test_doctor_measures(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["matmul_fp32_flops_per_second"] > 1e8 and facts["memory_bytes"] > 2**28 and "dev" in facts["extras"]
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"matmul fp32 +[\d.]+ [MGTP]FLOP/s", shown) and "disk write" in shown


def test_run_json_is_one_object_on_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("so it goes " * 500)
    (tmp_path / "a.toml").write_text(
        'extends = "quickstart"\nrun.name = "a"\n[[corpus.sources]]\nname = "a"\nread = "text"\npaths = ["text/*"]\n'
    )
    limits = {"--dry": ["skipped"], "--json": ["finished"]}
    for more, states in limits.items():
        assert main(["run", "a.toml", "--to", "corpus", "--json", *{more} - {"--json"}]) == 0
        caught = capsys.readouterr()
        done = json.loads(caught.out)
        assert done["run"] == str(tmp_path / "runs" / "a") and done["scores"] == []
        assert [one["state"] for one in done["stages"]] == states, done
        assert "corpus: " in caught.err


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m pretrain check quickstart | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pretrain", "run", "quickstart", *SMALL, "--to", "train"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "runs" / "quickstart" / "events" / "rank-00000.jsonl"
    while process.poll() is None and not (log.exists() and '"kind":"step"' in log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from what is saved: pretrain run quickstart train" in error
    saved = list((tmp_path / "runs" / "quickstart" / "checkpoints").glob("step-*"))
    assert len(saved) == 1 and '"kind":"saved"' in log.read_text()


def test_ctrl_c_while_a_command_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrain.cli.main.importlib.import_module", interrupted)
    assert main(["run", "quickstart"]) == 130
    assert capsys.readouterr().err.startswith("pretrain: interrupted; this goes on")


def test_public_names_are_there_and_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"^\| `(\w+)", page, re.M)) == set(pretrain.__all__)
    rooms = {path.name for path in (ROOT / "src" / "pretrain").iterdir() if path.is_dir()}
    assert not rooms & set(pretrain.__all__), "a room's name would be replaced by importing it"
    assert all(getattr(pretrain, name) for name in pretrain.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pretrain.nothing


def test_what_another_rank_alone_finds_wrong_is_said_by_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited = list[float]()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("pretrain.cli.main.time.sleep", waited.append)
    assert main(["check", "nowhere.toml"]) == 2
    assert "nowhere.toml" in capsys.readouterr().err and waited, "the leading rank, which ends this one, comes first"
