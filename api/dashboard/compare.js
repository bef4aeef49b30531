// Two pictures side by side: images of jobs, or the same prompt with two seeds or two models.

import { get } from "./api.js";
import { copyAs } from "./copyas.js";
import { el, fill } from "./dom.js";
import { choice } from "./models.js";
import { complain } from "./notices.js";
import { content, show } from "./pictures.js";
import { anySeed, render } from "./render.js";
import { ofImage } from "./snippets.js";

const SHOWN = [["Prompt", (p) => p.prompt], ["Negative prompt", (p) => p.negative_prompt || ""],
  ["Model", (p) => p.model], ["Seed", (p) => String(p.seed)], ["Size", (p) => p.size.replace("x", " × ")],
  ["Steps", (p) => p.steps ?? ""], ["Guidance", (p) => p.guidance ?? ""],
  ["Adapter", (p) => p.lora ?? ""], ["Fingerprint", (p) => p.fingerprint ?? ""], ["SHA-256", (p) => p.sha256 ?? ""],
  ["Took", (p) => (p.render_ms ? `${p.render_ms.toFixed(1)} ms` : "")]];

const sized = (image) => ({ ...image, size: `${image.width}x${image.height}` });

/** One of the two. `changed` is called when it shows something else. */
function side(name, changed, signal) {
  const chosen = choice();
  const seed = el("input", { inputMode: "numeric", placeholder: "Random", ariaLabel: `Seed ${name}` });
  const dice = el("button.icon", { type: "button", ariaLabel: `Another seed for ${name}`, title: "Another seed",
    onclick: () => { seed.value = anySeed(); node.closest("form").requestSubmit(); } }, "⚄");
  const canvas = el("div.canvas", {}, el("span.hint", {}, `${name}: write a prompt above`));
  const told = el("p.hint", { "aria-live": "polite" });
  const code = el("div");
  const node = el("section.card.side", { ariaLabel: `Picture ${name}` }, canvas,
    el("div.fields", {}, el("label", {}, "Model", chosen.model), el("label", {}, "Size", chosen.size),
      el("label", {}, "Seed", el("span.row.tight", {}, seed, dice))), told, code);
  chosen.model.setAttribute("aria-label", `Model ${name}`);
  let now = null;
  let drawn = null;

  function draw(picture, img) {
    now = picture;
    drawn = `${picture.model} ${picture.size} ${picture.seed}`;
    fill(canvas, img);
    seed.value = picture.seed;
    chosen.set(picture.model, picture.size);
    fill(code, copyAs(() => ofImage(picture)));
    told.textContent = picture.seconds ? `${picture.seconds.toFixed(2)} s from enter to picture` : "";
    changed();
  }

  return {
    node,
    get now() { return now; },
    ready: chosen.ready,
    async open(job, index) {
      const image = await get(`/v1/jobs/${job}/images/${index}`, {}, signal);
      await chosen.ready;
      const img = el("img", { alt: image.expanded_prompt });
      if (image.state === "done") show(img, content(image));
      draw(sized(image), image.state === "done" ? img : el("span.hint", {}, image.state));
      return image;
    },
    /** The same model and size, another seed. */
    async like(image) {
      await chosen.ready;
      chosen.set(image.model, `${image.width}x${image.height}`);
      seed.value = anySeed();
      fill(canvas, el("span.hint", {}, "Choose a seed or a model and press enter, or open another image and press Compare there."));
    },
    /** Renders `prompt`, unless this very picture is there. */
    async run(prompt, negative) {
      const asked = { prompt, model: chosen.model.value, size: chosen.size.value,
        seed: seed.value.trim() === "" ? null : Number(seed.value), negative_prompt: negative };
      if (now?.prompt === prompt && drawn === `${asked.model} ${asked.size} ${asked.seed}`) return;
      canvas.classList.add("busy");
      try {
        const made = await render(asked, signal);
        const image = await get(`/v1/jobs/${made.job}/images/0`, {}, signal);
        draw({ ...sized(image), seconds: made.seconds }, el("img", { src: made.url, alt: prompt }));
      } finally {
        canvas.classList.remove("busy");
      }
    },
  };
}

function differences(a, b) {
  if (!a || !b) return null;
  const rows = SHOWN.map(([name, of]) => [name, String(of(a)), String(of(b))]).filter(([, x, y]) => x || y);
  const same = a.sha256 && a.sha256 === b.sha256;
  return [el("h2", {}, same ? "The same bytes" : "What differs"), el("table.pairs", {},
    el("thead", {}, el("tr", {}, el("th", {}), el("th", {}, "A"), el("th", {}, "B"))),
    el("tbody", {}, rows.map(([name, x, y]) => el(x === y ? "tr" : "tr.differs", {},
      el("th", { scope: "row" }, name), el("td", {}, x), el("td", {}, y)))))];
}

export function compareView([jobA, indexA, jobB, indexB], signal) {
  const prompt = el("input", { name: "prompt", required: true, autocomplete: "off",
    placeholder: "One prompt for both", ariaLabel: "Prompt for both" });
  const table = el("section.card.stack", { hidden: true });
  const changed = () => {
    const rows = differences(a.now, b.now);
    table.hidden = rows === null;
    fill(table, rows);
  };
  const a = side("A", changed, signal);
  const b = side("B", changed, signal);
  const button = el("button.primary", {}, "Render both");

  async function run(event) {
    event.preventDefault();
    button.disabled = true;
    const negative = a.now?.negative_prompt ?? b.now?.negative_prompt;
    await Promise.all([a, b].map((each) => each.run(prompt.value, negative).catch(complain)));
    button.disabled = false;
  }

  async function begin() {
    const opened = [];
    if (jobA) opened.push(await a.open(jobA, indexA));
    if (jobB) opened.push(await b.open(jobB, indexB));
    if (opened.length) prompt.value = opened[0].expanded_prompt;
    if (opened.length === 1) await b.like(opened[0]);
  }
  // What is typed before the opened images fill the fields would be overwritten by them.
  const asked = el("fieldset.stack", { disabled: Boolean(jobA || jobB) },
    el("div.ask.card", {}, prompt, button), el("div.sides", {}, a.node, b.node));
  begin().catch(complain).finally(() => { asked.disabled = false; });
  for (const each of [a, b]) each.ready.catch(complain);
  const form = el("form.stack", { onsubmit: run }, asked, table);
  return { node: el("div.stack", {}, el("h1", {}, "Compare"), form), title: "Compare", prompt: () => prompt.focus() };
}
