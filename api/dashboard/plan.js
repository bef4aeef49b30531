// The plan of a submission before it is one: how many images, how long, which prompts first.

import { el, fill } from "./dom.js";
import { bytes, count, duration, number } from "./format.js";

const few = 8;

function problems({ total, data }) {
  if (!total) return null;
  return el("div.trouble", {}, el("b", {}, count(total, "problem")),
    el("ul", {}, data.slice(0, few).map(({ line, field, message }) =>
      el("li", {}, line ? `Line ${line}: ` : "", message, line ? "" : ` (${field})`))));
}

/** {node, show(plan), fail(text), clear()}. */
export function planBox() {
  const node = el("section.plan.card", { ariaLabel: "Plan", "aria-live": "polite" });
  const clear = () => fill(node, el("div.empty", {}, el("h3", {}, "Plan"),
    el("p", {}, "What you write on the left is counted here before anything is rendered.")));
  clear();
  return {
    node,
    clear,
    fail: (text) => fill(node, el("h3", {}, "Plan"), el("div.trouble", {}, text)),
    show(plan) {
      const facts = [[number(plan.images), plan.images === 1 ? "image" : "images"],
        [plan.eta_seconds === null ? "–" : plan.eta_seconds < 1 ? "< 1 s" : `≈ ${duration(plan.eta_seconds)}`, plan.eta_seconds === null ? "no worker" : "if nothing waits"],
        [`≈ ${bytes(plan.bytes)}`, "stored"]];
      fill(node, el("h3", {}, "Plan"),
        el("div.figures", {}, facts.map(([value, name]) => el("div", {}, el("b", {}, value), el("span", {}, name)))),
        problems(plan.problems), problems(plan.warnings),
        plan.duplicates > 0 && el("p.hint", {}, `${count(plan.duplicates, "image")} equal to an earlier one`),
        el("ol.first", {}, plan.first.slice(0, few).map((item) => el("li", {}, el("span", {}, item.prompt),
          el("span.hint", {}, `seed ${item.seed}`)))),
        plan.images > few && el("p.hint", {}, `and ${number(plan.images - few)} more`));
    },
  };
}
