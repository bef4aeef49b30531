// What a job is and how it goes: figures that move, and everything else on request.

import { FINAL } from "./bar.js";
import { copy } from "./copyas.js";
import { el, fill } from "./dom.js";
import { bytes, duration, moment, number, rate } from "./format.js";

export function figures() {
  const node = el("dl.stats");
  return {
    node,
    update(job) {
      const { done, failed, queued, total } = job.counts;
      const over = FINAL.includes(job.state);
      const took = job.finished_at && job.started_at ? job.finished_at - job.started_at : null;
      const facts = [["Done", number(done), "good"], ["Failed", number(failed), failed ? "bad" : ""],
        ["Waiting", number(queued), ""], ["Total", number(total), ""], ["Rate", rate(job.images_per_second), ""],
        over ? ["Took", duration(took), ""] : ["Left", duration(job.eta_seconds), ""], ["Stored", bytes(job.bytes), ""]];
      fill(node, facts.map(([name, value, kind]) => el("div", {}, el("dt", {}, name),
        el(kind ? `dd.${kind}` : "dd", {}, value))));
    },
  };
}

const plain = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
const filled = (value) => value && Object.keys(value).length > 0;

export function about() {
  const list = el("dl.about");
  const node = el("details.more", {}, el("summary", {}, "About this job"), list);
  return {
    node,
    update(job) {
      const facts = [["Id", el("button.link", { type: "button", title: "Copy", onclick: () => copy(job.id) }, job.id)],
        ["Model", job.model], ["Priority", job.priority], ["Seed", job.seed],
        ["Stored as", `${job.output.format}, ${job.output.packing === "tar" ? "tar parts" : "one object each"}`],
        job.fingerprint && ["Pinned to", job.fingerprint],
        filled(job.defaults) && ["Defaults", plain(job.defaults)],
        job.recipe && ["Template", plain(job.recipe)],
        filled(job.metadata) && ["Metadata", plain(job.metadata)],
        job.webhook && ["Webhook", job.webhook],
        job.generation > 0 && ["Retried", `${job.generation} ×`],
        ["Submitted", moment(job.created_at)], job.started_at && ["Started", moment(job.started_at)],
        job.finished_at && ["Finished", moment(job.finished_at)], job.expires_at && ["Expires", moment(job.expires_at)]];
      fill(list, facts.filter(Boolean).map(([name, value]) => [el("dt", {}, name),
        el("dd", {}, value instanceof Node ? value : String(value))]));
    },
  };
}
