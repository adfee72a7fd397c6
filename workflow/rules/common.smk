# What all rules share. A rule declares one empty marker, `done`; its job reads settings and paths from the folder's spec.json.
from deconattn.errors import UserError
from deconattn.experiment.rules import DECONATTN as deconattn, Rules

try:
    rules_ = Rules(workflow)
except UserError as error:
    sys.exit(str(error))


wildcard_constraints:
    folder=r"(results|resources/mirror)/([^/]+/)+[^/]+",
    part=r"\d{4}",


onsuccess:
    rules_.refresh()


onerror:
    rules_.refresh()
