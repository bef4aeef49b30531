// What can be done to a job, as buttons: those that its state allows.

import { call } from "./api.js";
import { FINAL } from "./bar.js";
import { confirmed } from "./dialogs.js";
import { downloads } from "./download.js";
import { el, fill } from "./dom.js";
import { complain } from "./notices.js";
import { count } from "./format.js";

/** took(job): the farm answered with the job as it is now. */
export function actions(id, took) {
  const node = el("div.row.actions");
  let offered = "";

  async function act(verb) {
    for (const button of node.children) button.disabled = true;
    try {
      took(await call("POST", `/v1/jobs/${id}/${verb}`));
    } catch (error) {
      complain(error);
    } finally {
      for (const button of node.children) button.disabled = false;
    }
  }

  async function cancel(job) {
    const left = count(job.counts.queued, "image");
    if (await confirmed("Cancel this job?", `${left} will never be rendered. What is done stays.`, "Cancel the job")) act("cancel");
  }

  async function remove(job) {
    if (!await confirmed("Delete this job?", `${count(job.counts.done, "picture")} and all its rows will be gone.`, "Delete")) return;
    await call("DELETE", `/v1/jobs/${id}`).then(() => { location.hash = "#/"; }).catch(complain);
  }

  return {
    node,
    offer(job) {
      const open = ["queued", "running"].includes(job.state);
      const now = `${job.state} ${job.counts.done > 0} ${job.counts.failed > 0}`;
      if (now === offered) return;
      offered = now;
      const button = (kind, text, onclick) => el(`button${kind}`, { type: "button", onclick }, text);
      fill(node,
        open && button("", "Pause", () => act("pause")),
        job.state === "paused" && button(".primary", "Resume", () => act("resume")),
        (job.counts.done > 0 || job.counts.failed > 0) && button("", "Download", () => downloads(job)),
        (open || job.state === "paused") && button(".danger", "Cancel", () => cancel(job)),
        FINAL.includes(job.state) && button(".danger", "Delete", () => remove(job)));
    },
  };
}
