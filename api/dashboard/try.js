// The box for trying: type a prompt, press enter, see a picture.

import { copyAs } from "./copyas.js";
import { el, fill } from "./dom.js";
import { choice } from "./models.js";
import { complain } from "./notices.js";
import { anySeed, render } from "./render.js";

const KEPT = 8;
const made = []; // the last pictures, as long as the page is open

export function tryBox(signal) {
  const prompt = el("input", { name: "prompt", type: "text", required: true, autocomplete: "off",
    maxLength: 32000, placeholder: "Describe a picture and press enter", ariaLabel: "Prompt to try" });
  const chosen = choice();
  const button = el("button.primary", {}, "Try");
  const stage = el("div.stage");
  const strip = el("div.strip", { role: "group", ariaLabel: "Tried before" });
  let running = null;

  async function run(asked) {
    running?.abort();
    const mine = running = new AbortController();
    const stop = () => mine.abort();
    signal.addEventListener("abort", stop, { once: true });
    stage.ariaBusy = "true";
    stage.classList.add("busy");
    if (!stage.childElementCount) fill(stage, el("div.canvas"), el("p.hint", {}, "Rendering…"));
    try {
      const picture = await render(asked, mine.signal);
      made.unshift(picture);
      made.length = Math.min(made.length, KEPT);
      draw(picture);
    } catch (error) {
      if (!mine.signal.aborted) fill(stage);
      complain(error);
    } finally {
      signal.removeEventListener("abort", stop);
      if (running === mine) { stage.classList.remove("busy"); stage.ariaBusy = "false"; }
    }
  }

  const once = (seed) => run({ prompt: prompt.value, model: chosen.model.value, size: chosen.size.value, seed });

  function draw(picture) {
    const asked = { rows: [{ prompt: picture.prompt, seed: picture.seed, size: picture.size }],
      defaults: { model: picture.model } };
    fill(stage,
      el("div.canvas", {}, el("img", { src: picture.url, alt: picture.prompt })),
      el("div.told", {},
        el("p.said", {}, picture.prompt),
        el("p.facts", {}, el("span", {}, `${picture.seconds.toFixed(2)} s`), el("span", {}, picture.model),
          el("span", {}, picture.size.replace("x", " × ")), el("span", {}, `seed ${picture.seed}`)),
        el("div.row", {},
          el("button", { type: "button", onclick: () => once(anySeed()) }, "Another seed"),
          el("a.button", { href: `#/compare/${picture.job}/0` }, "Compare"),
          el("a.button", { href: `#/jobs/${picture.job}/0` }, "Details")),
        copyAs(() => asked)));
    fill(strip, made.length > 1 && made.map((old) => el("button", { type: "button", title: old.prompt,
      ariaLabel: `Show again: ${old.prompt}`, ariaPressed: String(old === picture), onclick: () => draw(old) },
    el("img", { src: old.url, alt: "" }))));
  }

  const form = el("form.try.card", { onsubmit(event) { event.preventDefault(); once(null); } },
    el("div.ask", {}, prompt, button),
    el("div.row.small", {}, el("label.inline", {}, "Model", chosen.model),
      el("label.inline", {}, "Size", chosen.size),
      el("span.hint.grow", {}, "One picture, before all bulk work")),
    stage, strip);
  chosen.ready.catch(complain);
  if (made.length) draw(made[0]);
  return { node: form, focus: () => prompt.focus() };
}
