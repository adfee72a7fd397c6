"""The schema as a whole: any data at all, the committed configs, the page of settings, the time it takes."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deconattn.experiment import reference
from deconattn.experiment.schema import Settings
from deconattn.experiment.settings import ConfigError, load_settings
from deconattn.experiment.sources import Section, sections
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Paths of a config are seen from the working directory."""
    monkeypatch.chdir(ROOT)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3000),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["even", "tiny", "hub"]),
)
ODD = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
)


def ways(data: object) -> list[tuple]:
    """Ways to all values inside."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [way for key, value in pairs for way in [(key,), *((key, *rest) for rest in ways(value))]]


BASE = yaml.safe_load((ROOT / "config" / "test.yaml").read_text().replace("4e-3", "0.004"))


@given(st.lists(st.tuples(st.sampled_from(ways(BASE)), ODD, st.booleans()), min_size=1, max_size=3))
@example([(("grid", 0, "variants"), [["standard"]], False)])
@example([(("models",), ["tiny"], False), (("exhibits",), ["table1"], False)])
@example([(("tasks", "kind"), ["hub"], False)])
@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@pytest.mark.parametrize("name", ["demo", "paper", "test"])
def test_the_committed_configs_are_right(name):
    assert load_settings([f"config/{name}.yaml"]).name == name


def all_sections(section: type[Section], found: set[type[Section]]) -> set[type[Section]]:
    found.add(section)
    for field in section.model_fields.values():
        for inner in sections(field.annotation):
            if inner not in found:
                all_sections(inner, found)
    return found


def test_every_setting_is_described():
    for section in all_sections(Settings, set()):
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description and field.description.endswith("."), (section, name)


def test_the_page_of_settings_is_the_schema():
    assert (ROOT / "docs" / "settings.md").read_text() == reference.render(), (
        "docs/settings.md is not what the schema says: python -m deconattn.experiment.reference docs/settings.md"
    )
    for section in all_sections(Settings, set()):
        for name in section.model_fields:
            assert f"| `{name}` |" in reference.render()


def test_loading_settings_imports_nothing_heavy_and_is_quick():
    code = (
        "import sys, time; start = time.process_time(); from deconattn.experiment.settings import load_settings; "
        "from deconattn.experiment import grid; print(len(grid.runs(load_settings(['config/paper.yaml'])))); "
        "print({'torch', 'pandas', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)); "
        "print(time.process_time() - start)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[:2] == ["65", "set()"]
    assert float(out[2]) < 0.5
