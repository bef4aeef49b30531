// Why images of a job failed, and what to do about it: retry, look, download, by error code.

import { call, get } from "./api.js";
import { saveFailed } from "./download.js";
import { el, fill } from "./dom.js";
import { count, number } from "./format.js";
import { complain, say } from "./notices.js";

const MEANING = {
  render_failed: "the generator could not render it, even alone",
  out_of_memory: "it does not fit into memory, even alone",
  worker_crashed: "three workers died while they rendered it alone",
  fingerprint_unavailable: "the job asks for weights that this farm does not run",
  rejected: "a filter of this farm refused the prompt",
  internal_error: "an error of promptmill itself, three times alone",
};

/** take(job, true): it was retried. choose(code): these are to be seen. */
export function failures(id, { take, choose, signal }) {
  const node = el("section.failures.card", { hidden: true, ariaLabel: "Failed images" });
  let shown = "";

  async function retry(codes) {
    for (const button of node.querySelectorAll("button")) button.disabled = true;
    try {
      const job = await call("POST", `/v1/jobs/${id}/retry`, { json: { codes } });
      say(`${count(job.retried, "image")} queued again.`);
      take(job, true);
    } catch (error) {
      complain(error);
      shown = "";
    }
  }

  function line(job, code, many) {
    const ended = job.state === "completed";
    return el("li", {}, el("div.code", {}, el("b", {}, code), el("span.hint", {}, MEANING[code] ?? "")),
      el("span.many", {}, number(many)),
      el("div.row", {}, el("button.small", { type: "button", onclick: () => choose(code) }, "Show"),
        el("button.small", { type: "button", ariaLabel: `Save the rows that failed with ${code}`, onclick: () => saveFailed(job, code) }, "Rows"),
        ended && el("button.small", { type: "button", ariaLabel: `Retry those that failed with ${code}`, onclick: () => retry([code]) }, "Retry")));
  }

  return {
    node,
    codes: {},
    async explain(job) {
      const now = `${job.counts.failed} ${job.state} ${job.generation}`;
      if (now === shown) return;
      shown = now;
      node.hidden = job.counts.failed === 0;
      if (node.hidden) { this.codes = {}; return; }
      const { codes } = await get(`/v1/jobs/${id}/failures`, {}, signal);
      this.codes = codes;
      const ended = job.state === "completed";
      fill(node,
        el("div.row.between", {},
          el("h2", {}, `${count(job.counts.failed, "image")} failed`),
          el("div.row", {},
            el("button", { type: "button", onclick: () => saveFailed(job) }, "Download failed rows"),
            ended && el("button.primary", { type: "button", onclick: () => retry(null) }, "Retry failed"))),
        el("ul.codes", {}, Object.entries(codes).sort((a, b) => b[1] - a[1]).map(([code, many]) => line(job, code, many))),
        !ended && ["queued", "running", "paused"].includes(job.state)
          && el("p.hint", {}, "They can be retried once the job has completed."));
    },
  };
}
