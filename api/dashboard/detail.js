// One image, large, with all that is known of it; the one before and the next by arrow keys.

import { get } from "./api.js";
import { copy, copyAs } from "./copyas.js";
import { dialog } from "./dialogs.js";
import { el, fill } from "./dom.js";
import { bytes, moment, number } from "./format.js";
import { compareWith } from "./pair.js";
import { content, show } from "./pictures.js";
import { pill } from "./bar.js";
import { typing } from "./shortcuts.js";
import { ofImage } from "./snippets.js";

const text = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
const copied = (value) => el("button.link.mono", { type: "button", title: "Copy", onclick: () => copy(value) }, value);

function parameters(image) {
  return [
    ["Seed", copied(String(image.seed))], ["Size", `${image.width} × ${image.height}`], ["Model", image.model],
    image.steps > 0 && ["Steps", image.steps], image.guidance > 0 && ["Guidance", image.guidance],
    image.task !== "text2image" && ["Task", image.task],
    image.lora && ["Adapter", image.lora],
    image.source && ["Source", el("span.mono", {}, image.source)],
    image.custom_id && ["Its id", image.custom_id],
    ["Place", `image ${number(image.index)}, row ${number(image.row)}${image.sample ? `, sample ${image.sample}` : ""}`],
    ...Object.entries(image.metadata).map(([name, value]) => [name, text(value)]),
  ];
}

function provenance(image) {
  return [
    ["Attempts", image.attempts],
    image.worker && ["Worker", el("span.mono", {}, image.worker)],
    image.render_ms && ["Rendered in", `${number(Math.round(image.render_ms * 10) / 10)} ms`],
    image.finished_at && ["Finished", moment(image.finished_at)],
    image.bytes && ["Bytes", bytes(image.bytes)],
    image.score !== null && ["Score", image.score.toFixed(3)],
    image.fingerprint && ["Fingerprint", el("span.mono", {}, image.fingerprint)],
    image.sha256 && ["SHA-256", copied(image.sha256)],
    ["Image id", copied(image.id)],
  ];
}

const list = (facts) => el("dl.facts-list", {}, facts.filter(Boolean).map(([name, value]) =>
  [el("dt", {}, name), el("dd", {}, value instanceof Node ? value : String(value))]));

/** Other images with the same bytes, once they are known. */
function twins(image, signal) {
  const node = el("p.hint");
  if (!image.sha256) return node;
  get("/v1/provenance", { sha256: image.sha256, limit: 6 }, signal).then(({ data, has_more: more }) => {
    const others = data.filter(({ id }) => id !== image.id);
    if (others.length) fill(node, "The same bytes: ", others.map((other, at) => [at ? ", " : "",
      el("a", { href: `#/jobs/${other.job_id}/${other.index}` }, other.id)]), more ? ", …" : "");
  }).catch(() => fill(node));
  return node;
}

/** closed(place): the dialog was closed by the person, at the tile of that place. */
export function detail(jobId, { source, complain, closed }, signal) {
  let box = null;
  let at = null;
  const stage = el("div.stage");
  const side = el("div.side");

  function draw(image) {
    const picture = el("img", { alt: image.expanded_prompt });
    if (image.state === "done") show(picture, content(image));
    fill(stage, image.state === "done" ? el("a.canvas", { href: image.url ?? content(image), target: "_blank", rel: "noopener", title: "Open the file" }, picture)
      : el(`div.canvas.none.${image.state}`, {}, image.error ? [el("b", {}, image.error.code), el("p", {}, image.error.message)] : image.state));
    fill(side,
      el("div.row.between", {}, pill(image.state), el("div.row", {},
        el("button.ghost.icon", { type: "button", ariaLabel: "The image before", title: "Before (←)", onclick: () => step(-1) }, "←"),
        el("button.ghost.icon", { type: "button", ariaLabel: "The next image", title: "Next (→)", onclick: () => step(1) }, "→"))),
      el("p.said", {}, image.prompt),
      image.expanded_prompt !== image.prompt && el("p.hint", {}, `Rendered as: ${image.expanded_prompt}`),
      image.negative_prompt && el("p.hint", {}, `Not: ${image.negative_prompt}`),
      list(parameters(image)),
      image.state === "done" && el("div.row", {}, el("button", { type: "button", onclick: compare }, "Compare")),
      copyAs(() => ofImage(image)),
      el("details.more", { open: true }, el("summary", {}, "Provenance"), list(provenance(image)), twins(image, signal)));
  }

  const compare = () => { leave(); compareWith(jobId, at); };

  function leave() {
    const open = box;
    box = null;
    open?.close();
  }

  function place() {
    const near = at - source.base;
    if (!source.strewn) return near;
    for (let each = 0; each < source.known(); each += 1) if (source.at(each)?.index === at) return each;
    return 0;
  }

  function step(by) {
    const next = source.strewn ? source.at(place() + by)?.index : at + by;
    if (next === undefined || next < 0) return;
    history.replaceState(null, "", `#/jobs/${jobId}/${next}`);
    open(next);
  }

  function open(index) {
    const before = at;
    at = index;
    get(`/v1/jobs/${jobId}/images/${index}`, {}, signal).then((image) => {
      if (at !== index) return;
      if (!box) {
        box = dialog("Image", "picture", el("div.split", {}, stage, side));
        box.addEventListener("close", () => { if (box && !signal.aborted) { box = null; closed(place()); } });
        box.addEventListener("keydown", (event) => {
          if (typing(event)) return;
          if (event.key === "ArrowLeft") step(-1);
          else if (event.key === "ArrowRight") step(1);
          else if (event.key === "c") compare();
        });
      }
      box.querySelector("h2").textContent = `Image ${number(index)}`;
      draw(image);
    }).catch((error) => {
      if (error.status === 404 && before !== null) { at = before; history.replaceState(null, "", `#/jobs/${jobId}/${before}`); }
      else complain(error);
    });
  }

  signal.addEventListener("abort", leave);
  return { open, close: leave };
}
