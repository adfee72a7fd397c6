# Reads:  results/tables/<id>/*.parquet.
# Writes: results/exhibits/<exhibit>-<hash>/: a table as HTML, CSV, LaTeX and Parquet, a figure as PNG, SVG and PDF, each with a JSON
#         of what it was drawn from; one page of all of these, page.html. A launch shows them in results/reports/<config>.
# The picture or page is declared beside the marker, since `snakemake --report` asks for it.
from deconattn.exhibits import ANSWERS, EXHIBITS, PAGE_CAPTION


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


rule page:
    input:
        lambda w: rules_.inputs(f"results/exhibits/page-{w.id}"),
    output:
        report(
            "results/exhibits/page-{id}/page.html",
            caption="../report/caption.rst",
            category=ANSWERS,
            labels={"exhibit": "All results on one page"},
        ),
        "results/exhibits/page-{id}/done",
    localrule: True
    params:
        caption=PAGE_CAPTION,
        trained=False,
    shell:
        "{deconattn} page results/exhibits/page-{wildcards.id}"
