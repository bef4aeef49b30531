// How far a job is: its bar and its state.

import { el } from "./dom.js";

/** A bar whose parts are done, failed and cancelled. Returns [node, update(job)]. */
export function bar() {
  const parts = ["done", "failed", "cancelled"].map((name) => el(`span.${name}`));
  const node = el("div.bar", { role: "progressbar", ariaLabel: "Progress", ariaValueMin: "0", ariaValueMax: "100" }, parts);
  return [node, ({ counts, images_per_second: speed, state }) => {
    const total = counts.total || 1;
    parts.forEach((part) => { part.style.width = `${(100 * counts[part.className]) / total}%`; });
    node.setAttribute("aria-valuenow", Math.floor((100 * (counts.done + counts.failed)) / total));
    node.classList.toggle("moving", state === "running" && speed > 0);
  }];
}

export const pill = (state) => el(`span.pill.${state}`, {}, state);

export const FINAL = ["completed", "cancelled", "failed", "expired"];
