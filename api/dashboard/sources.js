// Where a submission's rows come from: a list of prompts, a template, a file. Each source is
// {node, submission(defaults)}: null while there is nothing to send.

import { el, fill } from "./dom.js";
import { bytes } from "./format.js";
import { given, type } from "./snippets.js";

const JSON_TYPE = "application/json";

/** A JSON document that says the defaults, too: such a body takes no query. The rest of it stays
 *  as it is written: JavaScript would round its large integers. */
function documented(text, defaults) {
  const added = JSON.stringify(Object.fromEntries(given(defaults))).slice(1, -1);
  const [, before, rest] = /^([^{]*\{)\s*(.*)$/s.exec(text);
  const comma = added && !rest.startsWith("}") ? "," : "";
  return { body: `${before}${added}${comma}${rest}`, type: JSON_TYPE };
}

/** {text, document} of a .json; null where it is none: the farm says what is wrong with it. */
async function read(file) {
  const stream = /\.gz$/i.test(file.name) ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  try {
    const text = await new Response(stream).text();
    const document = JSON.parse(text);
    return document && typeof document === "object" && !Array.isArray(document) ? { text, document } : null;
  } catch {
    return null;
  }
}

/** Of the defaults those that a document does not give. */
function lacking({ defaults, output, ...document }, all) {
  const told = { ...document, ...defaults, ...output };
  if ("negative" in told) told.negative_prompt = told.negative;
  return Object.fromEntries(Object.entries(all).filter(([name]) => !(name in told)));
}

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
      return { document, defaults, send: documented(JSON.stringify(document), defaults) };
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
  let held = null; // of a .json
  let latest = null;
  async function take(found) {
    if (found) {
      latest = found;
      const holds = type(found.name) === JSON_TYPE ? await read(found) : null;
      if (latest !== found) return;
      [chosen, held] = [found, holds];
      fill(told, el("b", {}, chosen.name), ` · ${bytes(chosen.size)}`);
    }
    changed();
  }
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
    submission(defaults) {
      if (!chosen) return null;
      const made = { file: chosen.name, bytes: chosen.size };
      if (held) {
        const added = lacking(held.document, defaults);
        return { ...made, document: held.document, defaults: added, send: documented(held.text, added) };
      }
      const send = { body: chosen, type: type(chosen.name), gzipped: /\.gz$/i.test(chosen.name) };
      if (send.type === JSON_TYPE) return { ...made, defaults: {}, send };
      return { ...made, defaults, send: { ...send, query: defaults } };
    },
  };
}
