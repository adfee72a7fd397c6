# Reads:  results/reports/<name>/tables/*.parquet.
# Writes: tables as Parquet, CSV, LaTeX and HTML; figures as SVG, PDF and PNG, each with a JSON of what it was drawn from.
from deconattn.report.catalogue import CATEGORY, TITLE


def drawn_from(exhibit):
    """Tables that an exhibit reads."""
    if exhibit in grid.COSTED:
        return [ident.report / "tables" / f"{name}.parquet" for name in ("costs", "cost_differences")]
    names = ["runs", "evaluation", "training", "gaps"]
    if exhibit in grid.ANALYSED:
        names += ["attention", "scores", "analysis_gaps"]
    return ["deconattn/report/published_results.csv"] + [ident.report / "tables" / f"{name}.parquet" for name in names]


def options(exhibit):
    """What the settings say of an exhibit."""
    return canonical(getattr(settings.exhibits, exhibit).model_dump(mode="json"))


for exhibit in table_names:

    rule:
        name:
            exhibit
        input:
            drawn_from(exhibit),
        output:
            report(
                ident.report / "tables" / f"{exhibit}.html",
                caption=f"../report/{exhibit}.rst",
                category=CATEGORY[exhibit],
                labels={"exhibit": TITLE[exhibit]},
            ),
            [ident.report / "tables" / f"{exhibit}.{kind}" for kind in ("csv", "tex", "parquet")],
        params:
            exhibit=exhibit,
            options=options(exhibit),
            code=code_digest("deconattn.report.exhibits", f"deconattn.report.{exhibit}", "deconattn.report.table_html", "deconattn.report.table_latex", "deconattn.report.table_text"),
        localrule: True
        shell:
            "{deconattn} draw {params.exhibit} {params.options:q} " + f"{ident.report}/tables {ident.report}/tables"


for exhibit in figure_names:

    rule:
        name:
            exhibit
        input:
            drawn_from(exhibit),
        output:
            report(
                ident.report / "figures" / f"{exhibit}.png",
                caption=f"../report/{exhibit}.rst",
                category=CATEGORY[exhibit],
                labels={"exhibit": TITLE[exhibit]},
            ),
            [ident.report / "figures" / f"{exhibit}.{kind}" for kind in ("svg", "pdf", "json")],
        params:
            exhibit=exhibit,
            options=options(exhibit),
            code=code_digest("deconattn.report.exhibits", f"deconattn.report.{exhibit}", "deconattn.report.style"),
        localrule: True
        shell:
            "{deconattn} draw {params.exhibit} {params.options:q} " + f"{ident.report}/tables {ident.report}/figures"
