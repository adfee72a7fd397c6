# Reads:  results/tables/<id>/*.parquet.
# Writes: results/exhibits/<exhibit>-<hash>/: a table as HTML, CSV, LaTeX and Parquet, a figure as PNG, SVG and PDF, each with a JSON
#         of what it was drawn from; one page of all of these, provenance.html. A launch shows them in results/reports/<config>.
# The picture or page is declared beside the marker, since `snakemake --report` asks for it.
from deconattn.exhibits import EXHIBITS, ORIGIN, ORIGIN_CAPTION


rule figure:
    input:
        lambda w: rules_.inputs(f"results/exhibits/{w.exhibit}-{w.id}"),
    output:
        report(
            "results/exhibits/{exhibit}-{id}/{exhibit}.png",
            caption="../report/caption.rst",
            category=lambda w: EXHIBITS[w.exhibit].category,
            labels=lambda w: {"exhibit": EXHIBITS[w.exhibit].title},
        ),
        "results/exhibits/{exhibit}-{id}/done",
    wildcard_constraints:
        exhibit="figure[^/-]*",
    localrule: True
    params:
        caption=lambda w: EXHIBITS[w.exhibit].caption,
        trained=lambda w: not EXHIBITS[w.exhibit].costed,
    shell:
        "{deconattn} exhibit results/exhibits/{wildcards.exhibit}-{wildcards.id}"


use rule figure as table with:
    output:
        report(
            "results/exhibits/{exhibit}-{id}/{exhibit}.html",
            caption="../report/caption.rst",
            category=lambda w: EXHIBITS[w.exhibit].category,
            labels=lambda w: {"exhibit": EXHIBITS[w.exhibit].title},
        ),
        "results/exhibits/{exhibit}-{id}/done",
    wildcard_constraints:
        exhibit="table[^/-]*",
    localrule: True


rule provenance:
    input:
        lambda w: rules_.inputs(f"results/exhibits/provenance-{w.id}"),
    output:
        report(
            "results/exhibits/provenance-{id}/provenance.html",
            caption="../report/caption.rst",
            category=ORIGIN,
            labels={"exhibit": "All tables and figures"},
        ),
        "results/exhibits/provenance-{id}/done",
    localrule: True
    params:
        caption=ORIGIN_CAPTION,
        trained=False,
    shell:
        "{deconattn} provenance results/exhibits/provenance-{wildcards.id}"
