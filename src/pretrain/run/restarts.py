"""What is lost where ranks are started again, as a run's own log and files tell it."""

import time

from pretrain.checkpoint.save import step_of
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Hung, Restarted, Saved, Stage, Started, Step
from pretrain.events.log import Log
from pretrain.events.read import read
from pretrain.parallel.agent import Failure


def saved_step(run: RunDirectory) -> int:
    """The step of the newest checkpoint, -1 before there is one."""
    return max((step_of(path) for path in run.checkpoints.glob("step-*")), default=-1)


def restarted(run: RunDirectory, failure: Failure) -> Restarted:
    """Writes into the log of the rank that failed, which has no other writer now, what is done again from here."""
    saved, step, stage, since, hung = saved_step(run), 0, "", 0.0, ""
    for event in read(run):
        match event:
            case Saved(step=at) if at == saved:
                since = event.time
            case Started():
                since, stage = event.time, ""  # what came before it was lost before
            case Stage(state="started"):
                stage = event.name
            case Step():
                step, since = event.step, since or event.time
            case Hung(text=text):
                hung = text
            case Restarted():
                hung = ""
    text, again = f"{failure}, after step {step}", f"go on from {f'step {saved}' if saved >= 0 else 'the beginning'}"
    if stage != "train":
        text, again = f"{failure}, in {stage or 'the beginning'}", "begin that again"
    text += f": {hung}" if hung else ""
    lost = time.time() - since if since else 0.0
    text += f"; all ranks {again}, {lost:.0f} s are lost"
    event = Restarted(failure.rank, failure.node, failure.exit_code, step, saved, lost, text)
    run.events.mkdir(parents=True, exist_ok=True)
    with Log(run, failure.rank) as log:
        log.write(event)
    return event
