"""Kubernetes (batch/v1, 1.31 or later): an Indexed Job, a pod a node, and the Service by which they find each other."""

import json
import math
import re
from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.run.job import NOTICE, Job, told

FILE, SUBMIT = "job.yaml", "kubectl apply -f"
PORT = 29500
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")  # RFC 1123, and room for a pod's number in 63
TRIES = 20  # failures of each node that are borne

TEMPLATE = """\
# `pretrain launch k8s {words}` wrote this: {name} on {place}.
# kubectl apply -f {folder}/{file}; what its pods say: kubectl logs -f -l job-name={name} --prefix
apiVersion: v1
kind: Service # the pods' names, {name}-0.{name} and so on, by which they find each other
metadata:
  name: {name}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    job-name: {name}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
spec:
  completionMode: Indexed
  completions: {nodes}
  parallelism: {nodes}
  backoffLimit: {tries} # a node that fails takes the others down with it; all begin again at the last checkpoint
{deadline}  podFailurePolicy:
    rules:
      - action: FailJob # 2: a mistake in the recipe, which another try would find again
        onExitCodes:
          operator: In
          values: [2]
      - action: Ignore # 130: stopped with all others, and saved
        onExitCodes:
          operator: In
          values: [130]
      - action: Ignore # drained or preempted: saved and left, and no failure of its own
        onPodConditions:
          - type: DisruptionTarget
            status: "True"
  template:
    metadata:
      labels:
        app: {name}
    spec:
      subdomain: {name}
      restartPolicy: Never
      terminationGracePeriodSeconds: {grace} # {notice} s for saving after SIGTERM, and time to leave
{check}      containers:
        - name: train
{container}          command:
            - bash
            - -c
            - |
{setup}              set -uo pipefail
              export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={notice} # seconds for saving, of which torch gives 30
              mkdir -p {folder}/logs
              exec > >(tee -a "{folder}/logs/$HOSTNAME.txt") 2>&1
              log=$!
              pretrain run {words} \\
                --ranks {ranks} --nodes {fewest}:{nodes} --meet {name}-0.{name}:{port} &
              run=$!
              trap 'kill -TERM "$run"' TERM
              while kill -0 "$run" 2>/dev/null; do wait "$run"; code=$?; done
              exec >&- 2>&-
              wait "$log"
              exit "$code"
      volumes:
        - name: work
          persistentVolumeClaim:
            claimName: {claim}
        - name: shm # ranks of a pod talk through shared memory, of which a container has 64 MiB
          emptyDir:
            medium: Memory
"""

CHECK = """\
      initContainers: # the devices of a node beside each other; a node that fails is named by the pod
        - name: health
{container}          command:
            - bash
            - -c
            - |
{setup}              exec timeout 300 pretrain doctor --ranks {ranks}
"""

CONTAINER = """\
          image: {image}
          workingDir: /work
          env:
            - name: NODE_NAME # by which a health check calls the node
              valueFrom:
                fieldRef:
                  fieldPath: spec.nodeName
{debug}{resources}          volumeMounts:
            - name: work
              mountPath: /work
            - name: shm
              mountPath: /dev/shm
"""

DEBUG = """\
            - name: NCCL_DEBUG # a link that breaks is named in the logs; else NCCL says nothing of it
              value: WARN
"""


def write(job: Job) -> str:
    """The Service and the Job. Raises UserError where Kubernetes would refuse them."""
    launch = job.launch
    if not LABEL.fullmatch(job.name):
        near = re.sub("[^a-z0-9]+", "-", job.name.lower()).strip("-")[:52]
        raise UserError(f"run.name = {job.name!r} names no pod", expected="at most 52 of a-z, 0-9 and -", near=near)
    for key in ("image", "claim"):
        if not getattr(launch, key):
            raise UserError(f"launch.{key} is not said, and k8s needs it", expected=f"launch.{key}=NAME")
    container = CONTAINER.format(
        image=json.dumps(launch.image), debug=DEBUG if launch.device == "gpu" else "", resources=resources(job)
    )
    setup = "".join(f"              {line}\n" for one in launch.setup for line in one.splitlines())
    check = CHECK.format(container=container, setup=setup, ranks=launch.ranks)
    return TEMPLATE.format(
        words=job.words,
        name=job.name,
        place=job.place,
        folder=job.folder,
        file=FILE,
        nodes=launch.nodes,
        fewest=job.fewest,
        ranks=launch.ranks,
        tries=TRIES * launch.nodes,
        deadline=f"  activeDeadlineSeconds: {math.ceil(launch.time)}\n" if launch.time else "",
        notice=NOTICE,
        grace=NOTICE + 30,
        check="" if job.health == "skip" else check,
        container=container,
        setup=setup,
        port=PORT,
        claim=json.dumps(launch.claim),
    )


def resources(job: Job) -> str:
    """What a pod asks for."""
    asked = {
        "nvidia.com/gpu": job.launch.ranks if job.launch.device == "gpu" else None,
        "cpu": job.launch.cpus,
        "memory": job.launch.memory,
    }
    lines = [f"              {name}: {amount}\n" for name, amount in asked.items() if amount]
    return "".join(["          resources:\n", "            limits:\n", *lines]) if lines else ""


def submit(job: Job, path: Path) -> str:
    """Hands it over; the job's name."""
    told(["kubectl", "apply", "-f", str(path)])
    return job.name
