"""The workflow's rule graph.

snakemake --rulegraph dot --config full_dag=1 --configfile config/paper.yaml | python docs/dag.py | dot -Tsvg > docs/workflow.svg
"""

import re
import sys

label: dict[str, str] = {}
edges: set[tuple[str, str]] = set()
for line in sys.stdin:
    if node := re.match(r'\s*(\d+)\[label = "(\w+)"', line):
        label[node[1]] = node[2]
    elif edge := re.match(r"\s*(\d+) -> (\d+)", line):
        edges.add((label[edge[1]], label[edge[2]]))
network = {"fetch", "mirror_part", "mirror_source"}
heavy = {"pretrain", "evaluate", "analyse", "measure"}
print('digraph { rankdir=LR; bgcolor="transparent"; nodesep=0.15; ranksep=0.35;')
print('node [shape=box, style="rounded,filled", color="#555555", fontname="Helvetica", fontsize=11, height=0.3];')
print('edge [color="#888888", arrowsize=0.6];')
for name in sorted(set(label.values()) - {"all"}):
    fill = "#cfe3f5" if name in network else "#f7d9c4" if name in heavy else "#f2f2f2"
    print(f'"{name}" [fillcolor="{fill}"];')
for tail, head in sorted(edges):
    if head != "all":
        print(f'"{tail}" -> "{head}";')
print("}")
