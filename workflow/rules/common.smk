# Settings, identity, and the few names that all rules use.
import os
import re
import shlex
from pathlib import Path

from deconattn.errors import UserError
from deconattn.experiment import grid
from deconattn.experiment.identity import Identity, canonical, code_digest
from deconattn.experiment.settings import load_settings

overrides = dict(workflow.config_settings.config)
# --config partial=true (as profiles/figures has it): draw what is there, list the gaps, wait for no run.
partial = bool(overrides.pop("partial", False))
# Snakemake gives absolute paths; a message names a file as the user does.
configfiles = [Path(os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file) for file in workflow.configfiles]
try:
    settings = load_settings(configfiles, overrides)
    ident = Identity(settings)
    run_names = list(ident.specs)
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
