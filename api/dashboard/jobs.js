// The list of jobs, live by polling.

import { get } from "./api.js";
import { bar, FINAL, pill } from "./bar.js";
import { el, fill, regularly } from "./dom.js";
import { ago, count, duration, number, percent, rate } from "./format.js";
import { complain } from "./notices.js";
import { show, thumbnail } from "./pictures.js";

const EVERY = 1500; // milliseconds between two looks
const PAGE = 20;
const MOST = 1000;
const SAMPLES = 4; // pictures beside each job
const FILTERS = [["All", []], ["Running", ["queued", "paused", "cancelling"]],
  ["Completed", ["completed"]], ["Ended early", ["cancelled", "expired", "failed"]]];

/** A few pictures of a job, once it has that many or has ended. */
function samples(signal) {
  const node = el("div.samples", { "aria-hidden": "true" });
  let asked = false;
  return {
    node,
    look(job) {
      const enough = job.counts.done >= SAMPLES || (job.counts.done > 0 && FINAL.includes(job.state));
      if (asked || !enough) return;
      asked = true;
      get(`/v1/jobs/${job.id}/images`, { state: "done", limit: SAMPLES }, signal).then(({ data }) => {
        fill(node, data.map((image) => {
          const img = el("img", { alt: "", loading: "lazy", width: 40, height: 40 });
          show(img, thumbnail(image, 40));
          return img;
        }));
      }).catch(() => { asked = false; }); // the next look tries again
    },
  };
}

function line(signal) {
  const [meter, move] = bar();
  const facts = el("span.facts");
  const state = el("span");
  const title = el("a.title");
  const pictures = samples(signal);
  const row = el("li.card.job", {}, pictures.node,
    el("div.body", {}, el("div.head", {}, title, state), meter, facts));
  return {
    row,
    update(job) {
      const { done, failed, total, cancelled } = job.counts;
      const live = job.state === "running";
      title.textContent = job.name || job.id;
      title.href = `#/jobs/${job.id}`;
      move(job);
      fill(state, pill(job.state));
      fill(facts,
        el("span", {}, total === done ? count(total, "image") : `${number(done)} of ${number(total)}${FINAL.includes(job.state) ? "" : ` · ${percent(done + failed, total)}`}`),
        failed > 0 && el("span.bad", {}, `${number(failed)} failed`),
        cancelled > 0 && el("span", {}, `${number(cancelled)} never rendered`),
        live && job.images_per_second > 0 && el("span", {}, rate(job.images_per_second)),
        live && job.eta_seconds !== null && el("span", {}, `${duration(job.eta_seconds)} left`),
        job.notice && el("span.warn", {}, job.notice),
        el("span.later", {}, job.model), el("time", {}, ago(job.created_at)));
      pictures.look(job);
    },
  };
}

const nothing = () => el("div.empty", {},
  el("img", { src: "/dashboard/favicon.svg", alt: "", width: 56, height: 56 }),
  el("h3", {}, "No jobs yet"),
  el("p", {}, "Try a prompt above, or make a job of many: from a list, a template or a file."),
  el("a.button.primary", { href: "#/new" }, "New job"),
  el("p.hint", {}, "From a terminal: ", el("code", {}, "promptmill submit prompts.jsonl --watch")));

export function jobsList(signal) {
  const lines = new Map();
  const list = el("ul.jobs");
  const empty = el("div");
  const more = el("button.ghost", { type: "button", hidden: true, onclick: () => { shown += PAGE; poll().catch(complain); } }, "Older jobs");
  let shown = PAGE;
  let states = [];
  const tabs = el("div.segments", { role: "group", ariaLabel: "Which jobs" }, FILTERS.map(([name, chosen]) =>
    el("button", { type: "button", ariaPressed: String(!chosen.length), onclick: (event) => {
      for (const tab of tabs.children) tab.ariaPressed = String(tab === event.currentTarget);
      states = chosen;
      poll().catch(complain);
    } }, name)));

  /** As many as are shown; the farm lists MOST of them at once. */
  async function listed(chosen) {
    const data = [];
    let rest = true;
    while (rest && data.length < shown) {
      const query = new URLSearchParams(chosen.map((each) => ["state", each]));
      query.set("limit", Math.min(shown - data.length, MOST));
      if (data.length) query.set("after", data.at(-1).id);
      const page = await get(`/v1/jobs?${query}`, {}, signal);
      data.push(...page.data);
      rest = page.has_more && page.data.length > 0;
    }
    return { data, rest };
  }

  async function poll() {
    const asked = states;
    const { data, rest } = await listed(asked);
    if (asked !== states) return;
    const there = new Set(data.map((job) => job.id));
    for (const [id, old] of lines) if (!there.has(id)) { old.row.remove(); lines.delete(id); }
    data.forEach((job, at) => {
      if (!lines.has(job.id)) lines.set(job.id, line(signal));
      const { row, update } = lines.get(job.id);
      update(job);
      if (list.children[at] !== row) list.insertBefore(row, list.children[at] ?? null);
    });
    if (data.length) fill(empty);
    else if (states.length) fill(empty, el("p.hint.empty", {}, "No such jobs."));
    else if (!empty.childElementCount) fill(empty, nothing());
    more.hidden = !rest;
  }

  regularly(EVERY, () => poll().catch(complain), signal);
  return el("section.stack", {}, el("div.row.between", {}, el("h1", {}, "Jobs"), tabs), empty, list, more);
}
