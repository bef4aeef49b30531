// Above the grid: which images, how large, and from which number on.

import { el, fill } from "./dom.js";
import { number } from "./format.js";
import { SPAN } from "./pages.js";
import { typing } from "./shortcuts.js";

const STATES = [["", "All", "total"], ["done", "Done", "done"], ["failed", "Failed", "failed"],
  ["queued", "Waiting", "queued"]];
const SIZES = [["S", 84], ["M", 132], ["L", 220]];

/** choose({state, code, some, from}); jump(index); size(pixels). `codes()`: failed images by
 *  code, as far as they are known. */
export function filters({ choose, jump, size, codes }, signal) {
  let chosen = { state: "", code: "" };
  let counts = { total: 0 };
  const tabs = el("div.segments", { role: "group", ariaLabel: "Filter by state" }, STATES.map(([state, name], at) =>
    el("button", { type: "button", title: `${name} (${at + 1})`, onclick: () => pick(state) }, name, el("span.n"))));
  const code = el("select", { ariaLabel: "Filter by error code", hidden: true, onchange: () => pick("failed", code.value) });
  const sizes = el("div.segments.sizes", { role: "group", ariaLabel: "Size of the pictures" }, SIZES.map(([name, pixels]) =>
    el("button", { type: "button", ariaPressed: String(name === "M"), onclick: (event) => {
      for (const each of sizes.children) each.ariaPressed = String(each === event.currentTarget);
      size(pixels);
    } }, name)));
  const index = el("input", { type: "number", min: 0, placeholder: "Image no.", ariaLabel: "Go to image number" });
  const go = el("form.row.jump", { onsubmit(event) {
    event.preventDefault();
    if (index.value !== "") jump(Math.max(0, Math.floor(Number(index.value))));
  } }, index, el("button", {}, "Go"));

  const some = () => (chosen.code ? codes()[chosen.code] ?? null : counts[STATES.find(([state]) => state === chosen.state)[2]]);

  function pick(state, errorCode = "") {
    chosen = { state, code: errorCode };
    draw();
    choose({ ...chosen, some: some(), from: 0 });
  }

  function draw() {
    [...tabs.children].forEach((tab, at) => {
      const [state, , name] = STATES[at];
      tab.ariaPressed = String(state === chosen.state);
      tab.lastChild.textContent = counts[name] === undefined ? "" : number(counts[name]);
    });
    const known = Object.keys(codes());
    code.hidden = chosen.state !== "failed" || known.length === 0;
    if (code.dataset.known !== known.join()) {
      code.dataset.known = known.join();
      fill(code, el("option", { value: "" }, "Every reason"), known.map((each) => el("option", { value: each }, each)));
    }
    code.value = chosen.code;
  }

  document.addEventListener("keydown", (event) => {
    if (typing(event) || document.querySelector("dialog[open]")) return;
    const at = "1234".indexOf(event.key);
    if (at >= 0) pick(STATES[at][0]);
    else if (event.key === "i") { event.preventDefault(); index.focus(); }
  }, { signal });

  return {
    node: el("div.filters", {}, el("div.row", {}, tabs, code), el("div.row.right", {}, sizes, go)),
    pick,
    some,
    update(now) { counts = now; draw(); },
  };
}

/** Which part of a job that is longer than a grid is shown, and the way to the others. */
export function stretch(move) {
  const where = el("span");
  const back = el("button", { type: "button", onclick: () => move(-SPAN) }, "← Earlier");
  const onward = el("button", { type: "button", onclick: () => move(SPAN) }, "Later →");
  const node = el("nav.row.stretch", { ariaLabel: "Part of the job", hidden: true }, back, where, onward);
  return {
    node,
    update({ base, known, total, strewn }) {
      const whole = base === 0 && (strewn || known >= total);
      node.hidden = whole;
      if (whole) return;
      where.textContent = strewn ? `From image ${number(base)} on`
        : `Images ${number(base)} – ${number(Math.max(base, base + known - 1))} of ${number(total)}`;
      back.disabled = base === 0;
      onward.hidden = strewn;
      onward.disabled = base + known >= total;
    },
  };
}
