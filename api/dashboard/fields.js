// The settings of a submission beside its rows: those that the chosen model honours.

import { el, fill } from "./dom.js";
import { choice } from "./models.js";

const options = (values) => values.map((value) => el("option", { value }, value));

/** {node, more, ready, defaults()}; `changed` is called with every change. */
export function settings(changed) {
  const chosen = choice((model) => { offer(model); changed(); });
  const many = el("input", { name: "n", type: "number", min: 1, max: 1000, value: 1 });
  const name = el("input", { name: "name", maxLength: 200, placeholder: "Optional" });
  const seed = el("input", { name: "seed", inputMode: "numeric", placeholder: "Random" });
  const priority = el("select", { name: "priority" }, options(["normal", "bulk", "interactive"]));
  const format = el("select", { name: "format" }, options(["png", "webp", "jpeg"]));
  const packing = el("select", { name: "packing" },
    el("option", { value: "image" }, "one object each"), el("option", { value: "tar" }, "tar parts"));
  const negative = el("input", { name: "negative_prompt", placeholder: "What should not be there" });
  const steps = el("input", { name: "steps", type: "number" });
  const guidance = el("input", { name: "guidance", type: "number", step: "any" });
  const own = el("div.fields");

  function bound(input, { least, default: usual, most }) {
    Object.assign(input, { min: least, max: most, placeholder: String(usual) });
    return input;
  }

  function offer(model) {
    const honours = (field) => model?.parameters.includes(field);
    fill(own,
      honours("negative_prompt") && el("label.wide", {}, "Negative prompt", negative),
      honours("steps") && el("label", {}, "Steps", bound(steps, model.steps)),
      honours("guidance") && el("label", {}, "Guidance", bound(guidance, model.guidance)));
  }

  const value = (input) => (input.isConnected ? input.value.trim() : "");
  const numeric = (input) => (value(input) === "" ? null : Number(value(input)));
  const node = el("div.fields", {}, el("label", {}, "Model", chosen.model), el("label", {}, "Size", chosen.size),
    el("label.narrow", {}, "Each", many), el("label.wide", {}, "Name", name));
  const more = el("details.more", {}, el("summary", {}, "More settings"), own,
    el("div.fields", {}, el("label", {}, "Seed", seed), el("label", {}, "Priority", priority),
      el("label", {}, "Format", format), el("label", {}, "Stored as", packing)));
  for (const part of [node, more]) part.addEventListener("input", changed);
  return {
    node,
    more,
    ready: chosen.ready,
    /** What differs from the farm's own defaults, and model and size. */
    defaults: () => ({
      model: chosen.model.value,
      size: chosen.size.value,
      n: Number(many.value) > 1 ? Number(many.value) : null,
      name: name.value.trim(),
      seed: seed.value.trim() === "" ? null : Number(seed.value),
      priority: priority.value === "normal" ? null : priority.value,
      format: format.value === "png" ? null : format.value,
      packing: packing.value === "image" ? null : packing.value,
      negative_prompt: value(negative),
      steps: numeric(steps),
      guidance: numeric(guidance),
    }),
  };
}
