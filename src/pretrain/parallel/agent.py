"""torch's elastic agent, which starts the ranks of a machine, with a rule for when it starts them again.

An agent counts its restarts; a run of months has hundreds. Here they are counted from the last checkpoint on.
"""

import signal
from collections.abc import Sequence
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SubprocessContext
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from pretrain.parallel.launch import HUNG, INTERRUPTED, MISTAKE, Failure, Rule, host

GRACE_SECONDS = 5  # that ranks have to end in, once one of them has failed: what they wait for will not come


class Agent(LocalElasticAgent):
    """Starts all ranks again when one has failed, as a rule says: not after a mistake, nor after Ctrl-C."""

    def __init__(self, spec: WorkerSpec, rule: Rule) -> None:
        super().__init__(spec, DefaultLogsSpecs(), shutdown_timeout=int(rule.notice))
        self._rule, self._best = rule, rule.saved()
        self.failure: Failure | None = None

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        handler: Any = worker_group.spec.rdzv_handler
        # Else ranks share one store for all rounds, and gloo's take what those before them left there for an answer.
        handler._shared_tcp_store_server = handler._bootstrap_store_info = None
        super()._rendezvous(worker_group)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        self.failure = self._first(worker_group)
        if self.failure is None:
            return super()._monitor_workers(worker_group)
        code, rule = self.failure.exit_code, self._rule
        assert self._pcontext is not None, "ranks were started"
        self._pcontext.close(signal.SIGTERM, int(rule.notice) if code == INTERRUPTED else GRACE_SECONDS)
        several = (worker_group.group_world_size or 1) > 1  # then this machine's notice does not end what others do
        if code == MISTAKE or (code == INTERRUPTED and not several):
            self._remaining_restarts = 0
        elif (saved := rule.saved()) > self._best:
            self._best, self._remaining_restarts = saved, rule.restarts
        return super()._monitor_workers(worker_group)

    def _first(self, worker_group: WorkerGroup) -> Failure | None:
        """Of those that failed: one that a signal ended or that hung, since others then fail by what they wait for."""
        assert isinstance(self._pcontext, SubprocessContext), "ranks were started"
        codes = {local: one.proc.poll() for local, one in self._pcontext.subprocess_handlers.items()}
        failed = [(code > 0, code not in (MISTAKE, HUNG), local, code) for local, code in codes.items() if code]
        if not failed:
            return None
        *_, local, code = min(failed)
        return Failure(worker_group.workers[local].global_rank, host(), code)

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        if self.failure is not None:
            self._rule.told(self.failure)
        super()._restart_workers(worker_group)


def run(command: Sequence[str], processes: int, meeting: RendezvousParameters, rule: Rule) -> int:
    """Runs so many ranks of a command until they are done; 0, or the exit code of the first that failed for good."""
    program, *arguments = command
    spec = WorkerSpec(
        role="rank",
        local_world_size=processes,
        rdzv_handler=get_rendezvous_handler(meeting),
        entrypoint=program,
        args=tuple(arguments),
        max_restarts=rule.restarts,
        monitor_interval=0.1,
        local_addr=meeting.local_addr,
    )
    agent = Agent(spec, rule)
    result = agent.run()
    spec.rdzv_handler.shutdown()
    if not result.is_failed():
        return 0
    code = agent.failure.exit_code if agent.failure else 1
    return code if code in (MISTAKE, INTERRUPTED) else 1
