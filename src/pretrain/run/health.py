"""Before ranks train together, each device is held beside the others."""

import time

from pretrain.base.errors import MachineError
from pretrain.base.files import write
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Health, Notice
from pretrain.parallel import launch
from pretrain.parallel.health import Finding, judge, measure, summary
from pretrain.run.work import Work


def check_health(work: Work) -> None:
    """Says who is slow. Raises MachineError where one is wrong, or slow and the recipe says so."""
    asked = work.recipe.run.health
    if work.ranks.alone or asked == "skip":
        return
    start = time.monotonic()
    every = measure(launch.host(), work.device, work.policy.compute, launch.here())
    found = judge(every)
    took = time.monotonic() - start
    work.report(Notice("info", f"health: {len(every)} ranks in {took:.1f} s: {summary(every)}"))
    for one in found:
        work.report(Health(one.rank, list(one.hosts), one.device, one.what, one.state, one.value, one.usual, str(one)))
    stops = [one for one in found if one.state == "wrong" or asked == "stop"]
    if stops:
        if work.ranks.leads:
            keep_names(work.run, stops)
        more = f", and {len(stops) - 1} more" if stops[1:] else ""
        raise MachineError(f"health: {stops[0]}{more}")


def keep_names(run: RunDirectory, found: list[Finding]) -> None:
    """Adds their hosts to those that a launched job leaves out."""
    before = run.unhealthy.read_text() if run.unhealthy.exists() else ""
    write(run.unhealthy, before + "".join(f"{host} {one}\n" for one in found for host in one.hosts))
