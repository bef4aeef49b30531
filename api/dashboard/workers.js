// Who renders: each worker with what it runs, how fast, and what it holds; and the models.

import { get } from "./api.js";
import { el, fill, regularly } from "./dom.js";
import { ago, bucket, bytes, count, number, rate } from "./format.js";
import { complain } from "./notices.js";

const EVERY = 2000; // milliseconds

const list = (facts) => el("dl.facts-list", {}, facts.filter(Boolean).map(([name, value]) =>
  [el("dt", {}, name), el("dd", {}, value instanceof Node ? value : String(value))]));

function card(worker) {
  const caps = Object.entries(worker.caps ?? {});
  const leases = worker.leases ?? [];
  return el("li.card.worker", {},
    el("div.row.between", {}, el("h2.mono", {}, worker.id), el(`span.pill.${worker.state ?? "idle"}`, {}, worker.state ?? "live")),
    el("div.figures", {},
      el("div", {}, el("b", {}, rate(worker.images_per_second)), el("span", {}, "now")),
      el("div", {}, el("b", {}, number(worker.images ?? 0)), el("span", {}, "images")),
      el("div", {}, el("b", {}, bytes(worker.memory_bytes)), el("span", {}, "peak memory"))),
    list([["Model", worker.model],
      ["Batch shape", worker.batch ? `${count(worker.batch, "image")}${worker.bucket ? ` of ${bucket(worker.bucket)}` : ""}` : "none yet"],
      ["Lease", leases.length ? el("span", {}, leases.map((each) => el("span.mono.block", {}, each))) : "none"],
      ["Caps", caps.length ? caps.map(([name, cap]) => `${bucket(name)}: ${cap}`).join("; ") : "as the model says"],
      worker.failed > 0 && ["Failed", number(worker.failed)],
      worker.fingerprint && ["Fingerprint", el("span.mono", {}, worker.fingerprint)],
      worker.started_at && ["Started", ago(worker.started_at)]]));
}

function modelRow(model) {
  return el("tr", {}, el("th", { scope: "row" }, model.id, el("span.hint.block", {}, model.description)),
    el("td", {}, model.cold === null ? "not known" : model.cold ? "no worker" : count(model.workers, "worker")),
    el("td", {}, model.sizes.map((size) => size.replace("x", " × ")).join(", ")),
    el("td", {}, number(model.max_batch)), el("td", {}, model.parameters.join(", ") || "seed",
      model.loras.length > 0 && el("span.hint.block", {}, `Adapters: ${model.loras.join(", ")}`)));
}

const none = () => el("div.empty", {}, el("h3", {}, "No worker is alive"),
  el("p", {}, "Jobs are kept, and begin as soon as one starts."),
  el("p.hint", {}, el("code", {}, "promptmill worker")));

export function workersView(_, signal) {
  const workers = el("ul.workers");
  const empty = el("div");
  const models = el("tbody");

  async function look() {
    const [{ data: live }, { data: known }] = await Promise.all([
      get("/v1/workers", {}, signal), get("/v1/models", {}, signal)]);
    fill(workers, live.map(card));
    if (live.length) fill(empty);
    else if (!empty.childElementCount) fill(empty, none());
    fill(models, known.map(modelRow));
  }

  regularly(EVERY, () => look().catch(complain), signal);
  const node = el("div.stack", {}, el("h1", {}, "Workers"), empty, workers,
    el("h2", {}, "Models"), el("div.card.wide-table", {}, el("table", {}, el("thead", {}, el("tr", {},
      ["Model", "Served by", "Sizes", "Batch", "Honours"].map((name) => el("th", { scope: "col" }, name)))), models)));
  return { node, title: "Workers" };
}
