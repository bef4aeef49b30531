// A job as a dataset: a format is chosen, the farm builds it while one looks on, and it is saved.

import { call, get, key, save } from "./api.js";
import { el, fill, regularly } from "./dom.js";
import { bytes, count, number } from "./format.js";
import { complain } from "./notices.js";

const FORMATS = {
  webdataset: ["WebDataset", "Tar shards with a picture, its caption and a JSON each: streams into training."],
  imagefolder: ["ImageFolder", "Folders of pictures beside a metadata.parquet: every viewer opens them."],
  parquet: ["Parquet", "Tables with the pictures inside: for Hugging Face, DuckDB and pandas."],
};
const EVERY = 1000; // milliseconds between two looks at what is being built
export const IN_A_TAB = 500_000_000; // bytes that a browser is asked to hold before it saves them

/** Whether it is more than a page with a key can save: a link cannot send the key. */
export const heavy = (size) => Boolean(key.get()) && size > IN_A_TAB;

const settled = ({ images, failed, total }) => `${number(images + failed)} of ${count(total, "image")}`;
const shards = ({ sealed, shards: planned, planned: upto, total }) =>
  (upto < total ? `${count(sealed, "shard")} sealed` : `${number(sealed)} of ${count(planned, "shard")} sealed`);

function progress(now) {
  const share = now.total ? (100 * (now.images + now.failed)) / now.total : 0;
  const part = el("span.done");
  part.style.width = `${share}%`;
  return el("div.bar.moving", { role: "progressbar", ariaLabel: "Dataset", ariaValueMin: "0", ariaValueMax: "100",
    ariaValueNow: String(Math.floor(share)) }, part);
}

/** `chosen(format)` is called whenever another is shown. */
export function dataset(job, { chosen, signal }) {
  const made = {}; // the newest export of each format
  let format = Object.keys(FORMATS)[0];
  let known = false; // what the farm has of this job
  let shown = "";
  const hint = el("p.hint");
  const state = el("div.state", { "aria-live": "polite" });
  const tabs = el("div.segments", { role: "group", ariaLabel: "Format of the dataset" }, Object.entries(FORMATS).map(
    ([name, [title]]) => el("button", { type: "button", data: { name }, onclick: () => choose(name) }, title)));

  function choose(name) {
    format = name;
    for (const tab of tabs.children) tab.ariaPressed = String(tab.dataset.name === format);
    hint.textContent = FORMATS[format][1];
    chosen(format);
    draw();
  }

  async function build() {
    for (const button of state.querySelectorAll("button")) button.disabled = true;
    const wanted = format;
    try {
      made[wanted] = await call("POST", `/v1/jobs/${job.id}/exports`, { json: { format: wanted }, signal });
    } catch (error) {
      complain(error);
    }
    shown = ""; // the buttons again, whatever came of it
    draw();
  }

  const bring = (now) => save(`/v1/exports/${now.id}/archive`, `${job.id}-${now.format}.tar`).catch(complain);
  const button = (kind, text, act) => el(`button${kind}`, { type: "button", onclick: act }, text);

  function ready(now) {
    const lost = now.failed ? `, ${count(now.failed, "row")} without one` : "";
    return el("div.row.between", {},
      el("p", {}, el("b.good", {}, "Ready"), ` · ${count(now.images, "picture")}${lost} · ${count(now.shards, "shard")}, ${bytes(now.bytes)}`),
      heavy(now.bytes) ? el("p.hint", {}, "Too large for a tab that sends a key: use the command below.")
        : button(".primary", "Save dataset", () => bring(now)));
  }

  function building(now) {
    const whole = now.images + now.failed >= now.total;
    return [progress(now), el("div.row.between", {},
      el("p.hint", {}, whole ? "The last: card, statistics, duplicates…" : `${settled(now)} · ${shards(now)}`),
      now.sealed > 0 && !whole && !heavy(now.bytes) && button(".small", "Save what is sealed", () => bring(now)))];
  }

  function draw() {
    const now = made[format];
    const told = `${format} ${now && JSON.stringify(now)}`;
    if (!known || told === shown) return;
    shown = told;
    if (!now) fill(state, button(".primary", "Build dataset", build));
    else if (now.state === "completed") fill(state, ready(now));
    else if (now.state === "building") fill(state, building(now));
    else fill(state, el("p.bad", {}, now.error ?? "It could not be built."), button("", "Build again", build));
  }

  async function look() {
    if (known && made[format]?.state !== "building") return;
    try {
      const { data } = await get(`/v1/jobs/${job.id}/exports`, { limit: 100 }, signal);
      for (const each of data.reverse()) made[each.format] = each;
      known = true;
      draw();
    } catch (error) {
      complain(error);
    }
  }

  const node = el("section.dataset", {}, el("h3", {}, "A dataset"), tabs, hint, state);
  choose(format);
  regularly(EVERY, look, signal);
  return node;
}
