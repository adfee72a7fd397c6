# Settings, identity, and the few names that all rules use.
from deconattn.errors import UserError
from deconattn.experiment import grid
from deconattn.experiment.identity import Identity, canonical, code_digest
from deconattn.experiment.settings import load_settings

try:
    settings = load_settings(workflow.configfiles, workflow.config_settings.config)
except UserError as error:
    sys.exit(str(error))
ident = Identity(settings)

deconattn = f"{sys.executable} -m deconattn"
part_names = [f"{part:04d}" for part in range(settings.corpus.parts)]
table_names = [name for name in settings.exhibits if name.startswith("table")]
figure_names = [name for name in settings.exhibits if name.startswith("figure")]


wildcard_constraints:
    part=r"\d{4}",
    run=r"[^/]+",
    task=r"[a-z_]+",
    version=r"\d[^/]*",
    mirror=r"(corpus|sidetext)-[^/]+",
