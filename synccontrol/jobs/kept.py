"""Pictures that are there already: are they what would be made now?"""

from synccontrol.errors import InputError
from synccontrol.files import metadata
from synccontrol.jobs.plan import Job
from synccontrol.jobs.recipe import Recipe, picture_of

# Sizes follow from the guide, batches change nothing, and of files the content counts, not the name.
UNCOMPARED = ("width", "height", "window_batch", "guide", "control_map", "ip_image")


def differences(job: Job, recipe: Recipe) -> list[str]:
    """Returns in what the picture at a job's output differs from what would be made, as names of settings.

    What an older picture does not say is not compared. A file without settings differs in all of them.
    """
    try:
        stored = metadata.read_settings(job.output)
    except InputError:
        return ["all settings"]
    wanted = picture_of(job, recipe, height=1, width=1).settings()
    uncompared = (*UNCOMPARED, "anchor") if recipe.anchor is not None else UNCOMPARED
    compared = [name for name in wanted if name in stored and name not in uncompared]
    found = [name.removesuffix("_sha256") for name in compared if stored[name] != wanted[name]]
    sizes = {"width": job.width, "height": job.height}
    return found + [name for name, size in sizes.items() if size not in (None, stored.get(name))]
