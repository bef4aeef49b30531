// Where a submission's rows come from: a list of prompts, a template, a file. Each source is
// {node, submission(defaults)}: null while there is nothing to send.

import { el, fill } from "./dom.js";
import { bytes } from "./format.js";
import { type } from "./snippets.js";

export function promptList() {
  const prompts = el("textarea", { name: "prompts", rows: 7, ariaLabel: "Prompts", spellcheck: false,
    placeholder: "One prompt a line\na red heart\na slice of pizza" });
  return {
    node: el("div.stack", {}, prompts),
    submission(defaults) {
      if (!prompts.value.trim()) return null;
      const rows = prompts.value.split("\n").map((text) => text.trim()).filter(Boolean);
      return { rows: rows.map((prompt) => ({ prompt })), defaults,
        send: { query: defaults, body: prompts.value, type: "text/plain; charset=utf-8" } };
    },
  };
}

/** `color: red, green` a line, or with values that hold commas one value a line below it. */
export function variables(text) {
  const found = {};
  let last = null;
  for (const line of text.split("\n")) {
    const match = /^\s*([A-Za-z_][\w-]*)\s*[:=](.*)$/.exec(line);
    if (match) {
      last = match[1];
      found[last] = match[2].split(",").map((value) => value.trim()).filter(Boolean);
    } else if (last && line.trim()) found[last].push(line.trim());
  }
  return found;
}

export function template() {
  const text = el("textarea", { name: "template", rows: 2, ariaLabel: "Template", spellcheck: false,
    placeholder: "a {color} {animal}, {sunny|rainy}" });
  const lists = el("textarea", { name: "variables", rows: 4, ariaLabel: "Variables", spellcheck: false,
    placeholder: "color: red, green, blue\nanimal: cat, dog" });
  const some = el("input", { name: "count", type: "number", min: 1, placeholder: "All" });
  return {
    node: el("div.stack", {}, el("label", {}, "Template", text), el("label", {}, "Variables", lists),
      el("label.narrow", {}, "Draw at random", some),
      el("p.hint", {}, "{name} stands for each value of a variable, {a|b} for one of several. ",
        "All combinations are rendered, or so many drawn at random.")),
    submission(defaults) {
      if (!text.value.trim()) return null;
      const document = { template: text.value.trim(), variables: variables(lists.value) };
      if (some.value) Object.assign(document, { sampling: "random", count: Number(some.value) });
      const kept = Object.fromEntries(Object.entries(defaults).filter(([, value]) => value !== null && value !== ""));
      return { document, defaults, send: { body: JSON.stringify({ ...document, ...kept }), type: "application/json" } };
    },
  };
}

export function file(changed) {
  const input = el("input.offscreen", { type: "file", ariaLabel: "File of rows",
    accept: ".jsonl,.ndjson,.csv,.txt,.parquet,.json,.gz" });
  const told = el("span", {}, "Choose a file, or drop it here");
  const zone = el("label.drop", {}, input, told,
    el("span.hint", {}, "JSON lines, CSV, text, Parquet; also gzipped. Failed rows that you downloaded fit, too."));
  let chosen = null;
  const take = (found) => {
    chosen = found ?? chosen;
    if (chosen) fill(told, el("b", {}, chosen.name), ` · ${bytes(chosen.size)}`);
    changed();
  };
  input.addEventListener("change", () => take(input.files[0]));
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  return {
    node: el("div.stack", {}, zone),
    submission: (defaults) => chosen && { file: chosen.name, bytes: chosen.size, defaults,
      send: { query: defaults, body: chosen, type: type(chosen.name), gzipped: /\.gz$/i.test(chosen.name) } },
  };
}
