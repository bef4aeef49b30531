// The models of the farm, asked for once in a while, and a choice among them.

import { get } from "./api.js";
import { el, fill } from "./dom.js";

const FRESH = 5000; // milliseconds
let asked = { at: 0, answer: null };

/** Those that are served come first. */
export function models() {
  if (Date.now() - asked.at > FRESH) {
    const answer = get("/v1/models").then(({ data }) =>
      [...data].sort((a, b) => (a.cold === false ? 0 : 1) - (b.cold === false ? 0 : 1)));
    answer.catch(() => { asked = { at: 0, answer: null }; });
    asked = { at: Date.now(), answer };
  }
  return asked.answer;
}

/** A <select> of models and one of the chosen one's sizes; `changed(model)` is called when
 *  the models are known and whenever another is chosen. */
export function choice(changed = () => {}) {
  const model = el("select", { name: "model", ariaLabel: "Model" });
  const size = el("select", { name: "size", ariaLabel: "Size" });
  let known = [];
  const now = () => known.find(({ id }) => id === model.value);
  const turn = () => {
    const before = size.value;
    const sizes = now()?.sizes ?? [];
    fill(size, sizes.map((text) => el("option", { value: text }, text.replace("x", " × "))));
    if (sizes.includes(before)) size.value = before;
    changed(now());
  };
  model.addEventListener("change", turn);
  const ready = models().then((found) => {
    known = found;
    fill(model, found.map(({ id, cold }) => el("option", { value: id }, cold ? `${id} (no worker)` : id)));
    turn();
  });
  return { model, size, now, ready, set(name, text) {
    if (known.some(({ id }) => id === name)) model.value = name;
    turn();
    if (text) size.value = text;
  } };
}
