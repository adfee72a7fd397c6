"""The schema as a whole: any data at all, the committed configs, the page of settings, the time it takes."""

from __future__ import annotations

import copy
import json
import math
import runpy

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deconattn.experiment.load import ConfigError, load_settings
from deconattn.experiment.schema import Settings
from deconattn.experiment.section import Section, sections
from deconattn.experiment.yaml_lines import data_of
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Paths of a config are seen from the working directory."""
    monkeypatch.chdir(ROOT)


WORDS = st.sampled_from(["even", "tiny", "hub"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3000), st.floats(), st.text(max_size=5), WORDS)
ODD = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
)


def ways(data: object) -> list[tuple]:
    """Ways to all values inside."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [way for key, value in pairs for way in [(key,), *((key, *rest) for rest in ways(value))]]


BASE = yaml.safe_load((ROOT / "config/test.yaml").read_text().replace("4e-3", "0.004"))
SCHEMA = (ROOT / "config/schema.json").read_text(encoding="utf-8")


@given(st.lists(st.tuples(st.sampled_from(ways(BASE)), ODD, st.booleans()), min_size=1, max_size=3))
@example([(("grid", 0, "variants"), [["standard"]], False)])
@example([(("models",), ["tiny"], False), (("exhibits",), ["table1"], False)])
@example([(("tasks", "kind"), ["hub"], False)])
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_there_is_settings_or_lines(changes):
    data = copy.deepcopy(BASE)
    for way, value, remove in changes:
        inside = data
        try:
            for key in way[:-1]:
                inside = inside[key]
            if remove:
                del inside[way[-1]]
            else:
                inside[way[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue
    try:
        settings = load_settings([], data)
    except ConfigError as error:
        assert error.problems
        assert all(line.startswith("command line: ") and line.isprintable() for line in error.problems)
    else:
        assert math.isfinite(settings.training.eps)


def all_sections(section: type[Section]) -> set[type[Section]]:
    inner = [each for field in section.model_fields.values() for each in sections(field.annotation)]
    return {section}.union(*map(all_sections, inner))


def test_every_setting_is_described_and_the_page_and_the_schema_for_editors_are_current():
    script = runpy.run_path(str(ROOT / "docs/settings.py"))
    page = script["render"]()
    stale = "is not what the settings say: python docs/settings.py"
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == page, f"docs/settings.md {stale}"
    assert SCHEMA == script["json_schema"](), f"config/schema.json {stale}"
    for section in all_sections(Settings):
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description and field.description.endswith("."), (section, name)
            assert f"| `{name}` |" in page


BLOCK = {
    "models": ["tiny"],
    "variants": ["mlp"],
    "layouts": ["mine"],
    "training": {"peak_learning_rate": [1e-3, 2e-3], "betas": [0.9, 0.95]},
    "overrides": {"mlp": {"training": {"betas": [[0.9, 0.95], [0.9, 0.99]], "steps": 24}}},
}
SAID: list[tuple[dict[str, object], list[str]]] = [
    ({"layouts": {"mine": [1, 3]}, "grid": [BLOCK]}, []),
    ({"evaluation": {"tasks": ["copa"], "limit": {"copa": 3, "default": None}}}, []),
    ({"training": {"stesp": 12}}, ["training"]),
    ({"training": {"steps": 0}}, ["training.steps"]),
    ({"grid": [{**BLOCK, "training": {"eps": ["fast"]}}]}, ["grid.0.training.eps"]),
    ({"exhibits": {"figure1": {"model": "tiny", "form": "pie"}}}, ["exhibits.figure1"]),
]


@pytest.mark.parametrize(("change", "said"), SAID)
def test_an_editor_says_what_is_wrong_and_of_nothing_else(change, said):
    """What the package allows, the schema allows."""
    data = {**copy.deepcopy(BASE), **change}
    found = jsonschema.Draft202012Validator(json.loads(SCHEMA)).iter_errors(data)
    assert [".".join(map(str, error.absolute_path)) for error in found] == said
    if not said:
        load_settings([], data)


@pytest.mark.parametrize("name", ["demo", "paper", "small", "test"])
def test_the_committed_configs_are_right_and_name_the_schema_that_they_hold_to(name):
    assert load_settings([f"config/{name}.yaml"]).name == name
    text = (ROOT / f"config/{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    jsonschema.validate(data_of(text), json.loads(SCHEMA))
