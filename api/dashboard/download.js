// What can be had of a job as files.

import { save } from "./api.js";
import { copy } from "./copyas.js";
import { dataset, heavy } from "./dataset.js";
import { dialog } from "./dialogs.js";
import { el } from "./dom.js";
import { bytes, count } from "./format.js";
import { complain } from "./notices.js";

export const saveFailed = (job, code = "") =>
  save(`/v1/jobs/${job.id}/failures/rows`, `${job.id}-failed.jsonl`, { code }).catch(complain);

function command(text) {
  const code = el("code", {}, text);
  return { node: el("div.command", {}, code,
    el("button", { type: "button", ariaLabel: "Copy the command", onclick: () => copy(code.textContent) }, "Copy")),
  say: (other) => { code.textContent = other; } };
}

const choice = (title, told, act, kind = "") => el("section.choice", {}, el("div", {}, el("h3", {}, title), el("p.hint", {}, told)),
  act && el(`button${kind}`, { type: "button", ariaLabel: `Save ${title}`, onclick: act }, "Save"));

export function downloads(job) {
  const { done, failed } = job.counts;
  const closing = new AbortController();
  const pictures = () => save(`/v1/jobs/${job.id}/archive`, `${job.id}.tar`, { whole: true }).catch(complain);
  const bring = command(`promptmill download ${job.id} ${job.id}-pictures/`);
  const make = command("");
  const box = dialog("Download", "medium",
    done > 0 && choice(count(done, "picture"), `One tar of about ${bytes(job.bytes + 1024 * done)}, named by index.`,
      heavy(job.bytes) ? null : pictures, ".primary"),
    failed > 0 && choice(count(failed, "failed row"), "JSON lines with their seeds, ready to be submitted again.",
      () => saveFailed(job)),
    dataset(job, { signal: closing.signal,
      chosen: (format) => make.say(`promptmill export ${job.id} ${job.id}-${format}/ --format ${format}`) }),
    el("details.more", { open: heavy(job.bytes) }, el("summary", {}, "From a terminal"),
      el("p.hint", {}, "What was cut off goes on where it was."), make.node, done > 0 && bring.node));
  box.addEventListener("close", () => closing.abort());
}
