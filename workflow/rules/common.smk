# Settings, identity, what is finished, and the few names that all rules use.
import re
import shlex

from deconattn.errors import UserError
from deconattn.experiment import grid
from deconattn.experiment.identity import canonical
from deconattn.experiment.launch import Launch
from deconattn.experiment.settings import flag
from deconattn.experiment.standins import shown
from deconattn.experiment.states import FIGURE_KINDS, GATHERED, TABLE_KINDS, exhibit_record

try:
    # Snakemake leaves it text, and the text "false" would pass for true.
    given = workflow.config_settings.config
    if "partial" in given:
        given["partial"] = flag("partial", given["partial"])
    launch = Launch(workflow)
    settings, ident, states, partial = launch.settings, launch.ident, launch.states, launch.partial
    run_names = launch.run_names
    # Run → what is to be said of it. Under `partial`, a run that is not there is stood in for by a finished one of other settings or code.
    shown_runs = shown(ident, states, run_names, partial)
    analysed_runs = shown(ident, states, ident.analysed, partial)
except UserError as error:
    sys.exit(str(error))

python = shlex.quote(sys.executable)
deconattn = f"{python} -m deconattn"
part_names = [f"{part:04d}" for part in range(settings.corpus.parts)]
table_names = [name for name in settings.exhibits if name.startswith("table")]
figure_names = [name for name in settings.exhibits if name.startswith("figure")]


def there(paths):
    """Files that a table stands on: all of them, or those that are there."""
    return [path for path in paths if Path(path).is_file()] if partial else paths


def results_of(runs, *files):
    """Files of runs that a table stands on."""
    return there([ident.folder(run) / file for run in runs for file in files])


wildcard_constraints:
    part=r"\d{4}",
    run=r"[^/]+",
    task=r"[a-z_]+",
    version=r"\d[^/]*",
    mirror=r"(corpus|sidetext)-[^/]+",
    tasks=r"tasks-[^/]+",
