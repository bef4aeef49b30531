// What can be had of a job as files.

import { key, save } from "./api.js";
import { copy } from "./copyas.js";
import { dialog } from "./dialogs.js";
import { el } from "./dom.js";
import { bytes, count } from "./format.js";
import { complain } from "./notices.js";

const IN_A_TAB = 500_000_000; // bytes that a browser is asked to hold before it saves them

export const saveFailed = (job, code = "") =>
  save(`/v1/jobs/${job.id}/failures/rows`, `${job.id}-failed.jsonl`, { code }).catch(complain);

function command(text) {
  return el("div.command", {}, el("code", {}, text),
    el("button", { type: "button", onclick: () => copy(text) }, "Copy"));
}

export function downloads(job) {
  const { done, failed } = job.counts;
  const heavy = Boolean(key.get()) && job.bytes > IN_A_TAB;
  const choice = (title, told, act) => el("section.choice", {}, el("div", {}, el("h3", {}, title),
    el("p.hint", {}, told)), act && el("button.primary", { type: "button", onclick: act }, "Save"));
  dialog("Download", "medium",
    done > 0 && choice(count(done, "picture"), `One tar of about ${bytes(job.bytes + 1024 * done)}, named by index.`,
      heavy ? null : () => save(`/v1/jobs/${job.id}/archive`, `${job.id}.tar`, { whole: true }).catch(complain)),
    failed > 0 && choice(count(failed, "failed row"), "JSON lines with their seeds, ready to be submitted again.",
      () => saveFailed(job)),
    el("section", {}, el("h3", {}, "With metadata, from a terminal"),
      el("p.hint", {}, "Pictures, metadata.jsonl and failures.jsonl; stops and goes on where it was."),
      command(`promptmill download ${job.id} pictures/`)));
}
