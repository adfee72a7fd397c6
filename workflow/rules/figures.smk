# Reads:  results/reports/<name>/tables/*.parquet.
# Writes: tables as Parquet, CSV, LaTeX and HTML; figures as SVG, PDF and PNG; beside each a JSON of what it was drawn from, and one
#         page of all of these, provenance.html.
from deconattn.report.catalogue import CATEGORY, PROVENANCE, TITLE

exhibit_names = [*table_names, *figure_names]


def options(exhibit):
    """What the settings say of an exhibit."""
    return canonical(getattr(settings.exhibits, exhibit).model_dump(mode="json"))


def drawing(exhibit):
    """Whether an exhibit is up to date."""
    if exhibit in grid.COSTED:
        return states.drawing(exhibit, options(exhibit), [gathering_costs(states, partial)])
    gatherings = [states.gathering("aggregate", shown_runs, partial)]
    if exhibit in grid.ANALYSED:
        gatherings.append(states.gathering("aggregate_analysis", analysed_runs, partial))
    return states.drawing(exhibit, options(exhibit), gatherings)


def drawn_from(exhibit):
    """Tables that an exhibit reads; none for one whose record says that it is up to date."""
    names = [*GATHERED["aggregate"], *(GATHERED["aggregate_analysis"] if exhibit in grid.ANALYSED else [])]
    if exhibit in grid.COSTED:
        names = ["costs.parquet", "cost_differences.parquet"]
    tables = [ident.report / "tables" / name for name in names]
    return lambda w: launch.needed(lambda: drawing(exhibit), exhibit_record(ident.report, exhibit), {"tables": tables})


for exhibit in exhibit_names:

    rule:
        name:
            exhibit
        input:
            unpack(drawn_from(exhibit)),
        output:
            report(
                exhibit_record(ident.report, exhibit).with_suffix(".html" if exhibit in table_names else ".png"),
                caption=f"../report/{exhibit}.rst",
                category=CATEGORY[exhibit],
                labels={"exhibit": TITLE[exhibit]},
            ),
            [exhibit_record(ident.report, exhibit).with_suffix(f".{kind}") for kind in (TABLE_KINDS if exhibit in table_names else FIGURE_KINDS)[1:]],
        params:
            exhibit=exhibit,
            options=options(exhibit),
            folder=exhibit_record(ident.report, exhibit).parent,
        localrule: True
        shell:
            "{deconattn} draw {params.exhibit} {params.options:q} " + f"{ident.report}/tables {{params.folder}}"


rule provenance:
    input:
        unpack(
            lambda w: launch.needed(
                lambda: states.provenance(exhibit_names, map(drawing, exhibit_names)),
                ident.report / "provenance.html",
                {"records": [exhibit_record(ident.report, exhibit) for exhibit in exhibit_names]},
            )
        ),
    output:
        report(
            ident.report / "provenance.html",
            caption="../report/provenance.rst",
            category=PROVENANCE,
            labels={"exhibit": "All tables and figures"},
        ),
        ident.report / "provenance.json",
    params:
        exhibits=canonical(exhibit_names),
    localrule: True
    shell:
        "{deconattn} provenance {params.exhibits:q} " + str(ident.report)
