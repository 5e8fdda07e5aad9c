"""Writes the job that runs a recipe on an existing cluster, and submits it if asked."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain launch`."""
    parser.add_argument("scheduler", help="slurm or k8s")
    parser.add_argument("recipe", help="a file or the name of a recipe that ships; its [launch] says on what it runs")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="such as launch.nodes=4")
    parser.add_argument("--submit", action="store_true", help="hand it to sbatch or kubectl, and print the job")


def run(arguments: argparse.Namespace) -> int:
    """Checks the recipe, writes the job into the run's folder, submits it."""
    from pretrain.base.extension import find
    from pretrain.base.files import write
    from pretrain.recipe.bind import bind_all
    from pretrain.recipe.read import load
    from pretrain.run.job import job_of

    scheduler = find("run.schedulers", arguments.scheduler)
    recipe = load(arguments.recipe, arguments.overrides)
    bind_all(recipe)
    job = job_of(recipe, (arguments.recipe, *arguments.overrides))
    path = job.folder / scheduler.FILE
    write(path, scheduler.write(job))
    (job.folder / "logs").mkdir(exist_ok=True)  # a scheduler opens its log there before the job begins
    print(f"written: {path} ({job.place})")
    if arguments.submit:
        print(f"submitted: {scheduler.submit(job, path)}")
    else:
        print(f"to submit it, from this folder: {scheduler.SUBMIT} {path}")
    return 0
