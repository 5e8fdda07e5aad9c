"""Slurm (sbatch, srun, scontrol of version 21.08 or later): a batch script that checks, trains and is queued again."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.run.job import NOTICE, Job, told

FILE, SUBMIT = "job.sbatch", "sbatch"
PLAIN = re.compile(r"[\w.,:/@=+%-]+", re.ASCII)  # what may stand in a line for sbatch

SCRIPT = r"""
say() { echo "$(date -u +%FT%TZ) $*"; }

# A command on every node in $good, its output in $logs/JOB-NODE.txt; prints each node and its exit code. The first
# word says whether one that fails ends the others. A TERM is for the command: the bash around it waits for its end.
on_each_node() {
  # shellcheck disable=SC2016 # it is the node's bash that fills in
  exec srun --nodes="$count" --ntasks="$count" --ntasks-per-node=1 --nodelist="$(paste -sd, <<<"$good")" \
    --cpu-bind=none --kill-on-bad-exit="$1" bash -c '
      trap : TERM
      "$@" >>"$logs/$SLURM_JOB_ID-$SLURM_NODEID.txt" 2>&1
      code=$?
      echo "$SLURMD_NODENAME $code"
      exit $code' - "${@:2}"
}

# Nodes that a health check has named, here or in training. They come back when their lines are taken out.
unhealthy() { cut -d' ' -f1 "$run/unhealthy" 2>/dev/null | sort -u; }

leave_out_unhealthy() {
  good=$(comm -23 <(scontrol show hostnames "$SLURM_JOB_NODELIST" | sort -u) <(unhealthy))
  count=$(grep -c . <<<"$good")
  if ((count < fewest)); then
    bad=$(unhealthy | paste -sd,)
    say "$count of $nodes nodes are healthy, and $fewest are needed: another job takes over, without $bad"
    sbatch --exclude="$bad" --dependency="afterany:$SLURM_JOB_ID" "$run/job.sbatch"
    exit
  fi
}

# Who cancels a job means it: only one that is still running is queued again.
again() {
  if [[ $(squeue --noheader --format=%T --jobs="$SLURM_JOB_ID") == RUNNING ]]; then
    say "$1: queued again"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit
}

# What on_each_node does, with the exit codes in $codes. In the background, since bash hears no TERM while it waits for
# a command of its own.
codes=$logs/$SLURM_JOB_ID.codes step='' stopped=''
step_on_each_node() {
  on_each_node "$@" >"$codes" &
  step=$!
  while kill -0 "$step" 2>/dev/null; do wait "$step"; done
}
trap 'stopped=yes; say "time is up in $notice seconds: saving"; kill -TERM "$step" 2>/dev/null' TERM

# Each node by itself: one that fails, hangs or has a device that is slow or wrong is left out.
health() {
  say "health: each of $count nodes by itself"
  step_on_each_node 0 timeout --foreground 300 pretrain doctor --ranks "$ranks"
  [[ $stopped ]] && again "stopped"
  failed=$(grep -v ' 0$' "$codes")
  if ((count > 1 && $(grep -c . <<<"$failed") == count)); then
    say "the check fails on every node, so that it is none of them: see $logs"
    exit 1
  elif [[ $failed ]]; then
    while read -r node code; do
      echo "$node the check of the node by itself: exit code $code"
    done <<<"$failed" | tee -a "$run/unhealthy"
    leave_out_unhealthy
  fi
}

train() {
  say "training on $count of $nodes nodes"
  meet=$(head -n 1 <<<"$good"):$((29500 + SLURM_JOB_ID % 500)) # two jobs on a node do not meet
  step_on_each_node 1 pretrain run "${recipe[@]}" --ranks "$ranks" --nodes "$fewest:$count" --meet "$meet"
  if [[ $(grep -c ' 0$' "$codes") == "$count" ]]; then
    say "done"
    exit
  elif grep -q ' 2$' "$codes"; then
    say "a mistake in the recipe, which another try would find again: see $logs"
    exit 2
  elif [[ $stopped ]] || grep -q ' 130$' "$codes"; then
    again "saved and stopped"
  fi
  saved=("$run"/checkpoints/step-*)
  echo "${saved[-1]}" >>"$logs/failures"
  say "failed, with exit codes $(paste -sd, "$codes")"
  if (($(tail -n 3 "$logs/failures" | grep -cxF "${saved[-1]}") == 3)); then
    say "three failures with nothing saved between them: see $logs"
    exit 1
  fi
}

command -v pretrain >/dev/null || { say "there is no pretrain on the PATH: see launch.setup"; exit 2; }
mkdir -p "$logs"
rm -f "$logs/failures"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=$notice # seconds for saving after SIGTERM, of which torch gives 30
while :; do # until it is done, or the time is up, or trying again is in vain
  leave_out_unhealthy
  [[ $check == skip ]] || health
  train
done
"""


def write(job: Job) -> str:
    """The script. Raises UserError where a word would break it."""
    said = [*filter(None, (job.launch.partition, job.launch.account)), *job.launch.options, job.name]
    for word in said:
        if not PLAIN.fullmatch(word):
            raise UserError(f"{word!r} cannot stand in a line for sbatch", expected="letters, digits and . , : / = -")
    lines = [
        "#!/bin/bash",
        f"# `pretrain launch slurm {job.words}` wrote this: {job.name} on {job.place}.",
        f"# To be submitted in the folder that holds runs/ and store/: sbatch {job.folder / FILE}",
        *(f"#SBATCH {line}" for line in options(job)),
        *job.launch.setup,
        "set -uo pipefail",
        "",
        f"recipe=({job.words})",
        f"nodes={job.launch.nodes} fewest={job.fewest} ranks={job.launch.ranks} notice={NOTICE} check={job.health}",
        f"run={job.folder}",
        f"export logs={job.folder}/logs",
    ]
    if job.launch.device == "gpu":
        lines.append("export NCCL_DEBUG=WARN # a link that breaks is named in the logs; else NCCL says nothing of it")
    return "\n".join([*lines, SCRIPT])


def options(job: Job) -> Iterator[str]:
    """The lines for sbatch."""
    launch = job.launch
    yield f"--job-name={job.name}"
    yield f"--nodes={launch.nodes}"
    yield "--ntasks-per-node=1"
    if launch.device == "gpu":
        yield f"--gpus-per-node={launch.ranks}"
    yield f"--cpus-per-task={launch.cpus}" if launch.cpus else "--exclusive"
    yield f"--mem={math.ceil(launch.memory / 2**20) if launch.memory else 0}"
    if launch.time:
        yield f"--time={math.ceil(launch.time / 60)}"
    yield from (f"--{name}={value}" for name in ("partition", "account") if (value := getattr(launch, name)))
    yield from launch.options
    yield f"--output={job.folder}/logs/%j.txt"
    yield "--open-mode=append"
    yield f"--signal=B:TERM@{NOTICE}"
    yield "--requeue"


def submit(job: Job, path: Path) -> str:
    """Hands it over, without the nodes that are known to be unhealthy; the job's number."""
    named = path.parent / "unhealthy"
    bad = sorted({line.split()[0] for line in named.read_text().splitlines() if line}) if named.exists() else []
    without = [f"--exclude={','.join(bad)}"] if bad else []
    return told(["sbatch", "--parsable", *without, str(path)]).partition(";")[0]
