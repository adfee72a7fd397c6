// The table of runs, its filters, and the charts of the runs that are chosen in it.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const curves = new Map(data.curves.map((curve) => [curve.run, curve]));
const fixed = (digits) => (value) => value.toFixed(digits);
const COLUMNS = [
  // key, head, how a number is printed; a column that no run has a value for is left out
  ["model", "size"], ["variant", "variant"], ["layout", "layout"], ["seed", "seed", String], ["settings", "settings"],
  ["status", "status"], ["step", "step", String], ["loss", "held-out loss", fixed(4)], ["train_loss", "training loss", fixed(4)],
  ["quality", measures(), (value) => value.toPrecision(5)], ["delta", "Δ to standard", (value) => (value > 0 ? "+" : "") + value.toFixed(4)],
  ["low", "Δ at least", fixed(4)], ["high", "Δ at most", fixed(4)],
  ["tokens_per_second", "tokens/s", (value) => Math.round(value).toLocaleString("en")],
  ["mfu", "MFU, %", (value) => (100 * value).toFixed(1)], ["hours_left", "hours left", (value) => value.toPrecision(2)], ["gpu_hours", "GPU-hours", (value) => value.toPrecision(3)],
  ["note", "by whom, or why"],
].filter(([key]) => data.runs.some((run) => there(run[key])));
const FILTERS = ["model", "variant", "layout", "seed", "settings", "status"];
const MOST_AT_FIRST = 14;
const chosen = new Set(data.runs.filter((run) => curves.has(run.run)).slice(0, MOST_AT_FIRST).map((run) => run.run));
const sorted = { key: null, down: false };

function there(value) { return value !== null && value !== undefined && value !== ""; }
function measures() { return [...new Set(data.runs.map((run) => run.measure).filter(there))].join(" or ") || "quality"; }
function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// ---- filters and table
const words = make("input", { type: "search", id: "words" });
const filters = document.getElementById("filters");
filters.append(make("label", {}, "runs with", words));
const selects = FILTERS.flatMap((key) => {
  const values = [...new Set(data.runs.map((run) => run[key]).filter(there))];
  if (values.length < 2) return [];
  const options = [make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, String(value)))];
  const select = make("select", { id: "filter-" + key }, ...options);
  filters.append(make("label", {}, key === "model" ? "size" : key, select));
  return [[key, select]];
});
const all = make("button", { type: "button", id: "choose-shown" }, "draw those shown");
const none = make("button", { type: "button", id: "choose-none" }, "draw none");
filters.append(all, none);

function shownRuns() {
  const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = data.runs.filter((run) =>
    asked.every((word) => run.run.toLowerCase().includes(word)) &&
    selects.every(([key, select]) => select.value === "" || String(run[key]) === select.value));
  if (sorted.key) {
    const sign = sorted.down ? -1 : 1;
    found.sort(({ [sorted.key]: a }, { [sorted.key]: b }) => {
      if (!there(a) || !there(b)) return there(b) - there(a);  // what is not known stands last, either way
      return sign * (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
    });
  }
  return found;
}

const head = document.querySelector("#runs thead tr");
head.append(make("th", { scope: "col" }, "draw"));
for (const [key, name, print] of COLUMNS) {
  const button = make("button", { type: "button" }, name);
  button.addEventListener("click", () => {
    sorted.down = sorted.key === key && !sorted.down;
    sorted.key = key;
    for (const cell of head.children) cell.removeAttribute("aria-sort");
    button.parentNode.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    fill();
  });
  head.append(make("th", { scope: "col", className: print ? "" : "word" }, button));
}

function fill() {
  const runs = shownRuns();
  document.querySelector("#runs tbody").replaceChildren(...runs.map((run) => {
    const box = make("input", { type: "checkbox", checked: chosen.has(run.run), disabled: !curves.has(run.run) });
    box.setAttribute("aria-label", "draw " + run.run);
    box.addEventListener("change", () => { box.checked ? chosen.add(run.run) : chosen.delete(run.run); draw(); });
    const cells = COLUMNS.map(([key, , print]) => {
      const value = run[key];
      return make("td", { className: print ? "" : "word" }, there(value) ? (print ? print(value) : String(value)) : "");
    });
    return make("tr", { title: run.run }, make("th", { scope: "row" }, box), ...cells);
  }));
  document.getElementById("shown").textContent = `${runs.length} of ${data.runs.length} runs are shown.`;
}

// ---- charts
const NAMED = { field: "variant", type: "nominal", title: "variant" };
function spec(rows, label, scale, symmetric) {
  const value = symmetric ? { type: "symlog", constant: 0.05 } : { zero: false };
  const x = { field: "tokens", type: "quantitative", title: "training tokens", scale: { type: scale, nice: false }, axis: { format: "~s" } };
  const colours = { domain: data.variants, range: data.colours };
  const encoding = {
    x,
    y: { field: "value", type: "quantitative", title: label, scale: value },
    color: { ...NAMED, scale: colours },
    detail: { field: "run" },
    tooltip: [{ field: "run" }, { field: "tokens", format: "," }, { field: "value", title: label, format: ".4f" }],
  };
  const dash = { field: "hybrid", type: "nominal", title: "layout", legend: { columns: 1 }, scale: { domain: ["uniform", "hybrid"], range: [[1, 0], [5, 3]] } };
  const shape = { ...NAMED, scale: { domain: data.variants, range: data.shapes } };
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v5.json", width: "container", height: 280, data: { values: rows },
    description: `${label} over training tokens of ${new Set(rows.map((row) => row.run)).size} runs`,
    layer: [
      { mark: { type: "line", strokeWidth: 1.5 }, encoding: { ...encoding, strokeDash: dash },
        params: [{ name: "zoom", select: "interval", bind: "scales" }] },
      { transform: [{ filter: "datum.marked" }], mark: { type: "point", size: 45, strokeWidth: 1.5 }, encoding: { ...encoding, shape } },
    ],
    config: { view: { stroke: null }, legend: { orient: innerWidth < 700 ? "bottom" : "right", columns: innerWidth < 700 ? 2 : 1 }, axis: { gridColor: "#e4e4e2" }, font: "system-ui, sans-serif" },
  };
}

async function draw() {
  const scale = document.getElementById("scale").value;
  const from = Number(document.getElementById("from").value) || 0;
  const to = Number(document.getElementById("to").value) || Infinity;
  const runs = data.runs.filter((run) => chosen.has(run.run) && curves.has(run.run));
  for (const [place, label] of [["loss", "training loss, nats a token"], ["delta", "Δ of the loss to standard"]]) {
    const rows = runs.flatMap((run, order) => {
      const curve = curves.get(run.run), every = Math.max(1, Math.floor(curve.tokens.length / 5));
      return curve[place] === undefined ? [] : curve[place].map((value, at) => ({
        run: run.run, variant: run.variant, hybrid: run.layout === "uniform" ? "uniform" : "hybrid", tokens: curve.tokens[at], value,
        marked: (at + 7 * order) % every === every >> 1,
      })).filter((row) => row.value !== null && row.tokens >= from && row.tokens <= to);
    });
    const chart = document.getElementById(place);
    if (rows.length === 0) chart.textContent = `${label}: nothing to draw of the runs chosen`;
    else await vegaEmbed(chart, spec(rows, label, scale, place === "delta"), { renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false } });
  }
}

for (const control of [words, ...selects.map(([, select]) => select)]) control.addEventListener("input", fill);
for (const name of ["from", "to", "scale"]) document.getElementById(name).addEventListener("change", draw);
all.addEventListener("click", () => { for (const run of shownRuns()) if (curves.has(run.run)) chosen.add(run.run); fill(); draw(); });
none.addEventListener("click", () => { chosen.clear(); fill(); draw(); });
fill();
draw();
