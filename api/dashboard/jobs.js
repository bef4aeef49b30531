// The first view: the submit box and the list of jobs, live by polling.

import { call, get } from "./api.js";
import { ago, duration, el, number, rate } from "./dom.js";

const EVERY = 1500; // milliseconds between two looks at the list
const PAGE = 25;

/** A bar whose parts are done, failed and cancelled. Returns [node, update(job)]. */
export function bar() {
  const parts = ["done", "failed", "cancelled"].map((name) => el(`span.${name}`));
  const node = el("div.bar", { role: "progressbar", ariaValueMin: "0", ariaValueMax: "100" }, parts);
  return [node, ({ counts, images_per_second: speed, state }) => {
    const total = counts.total || 1;
    parts.forEach((part) => { part.style.width = `${(100 * counts[part.className]) / total}%`; });
    node.setAttribute("aria-valuenow", Math.floor((100 * (counts.done + counts.failed)) / total));
    node.classList.toggle("moving", state === "running" && speed > 0);
  }];
}

export const pill = (state) => el(`span.pill.${state}`, {}, state);

function line(job) {
  const [node, update] = bar();
  const facts = el("span.facts");
  const state = el("span");
  const title = el("a.title", { href: `#/jobs/${job.id}` }, job.name || job.id);
  const row = el("li.card.job", { id: job.id }, el("div.head", {}, title, state), node, facts);
  return {
    row,
    update(now) {
      update(now);
      state.replaceChildren(pill(now.state));
      const { done, failed, total } = now.counts;
      const live = now.state === "running";
      facts.replaceChildren(
        el("span", {}, `${number(done)} of ${number(total)}`),
        failed ? el("span.bad", {}, `${number(failed)} failed`) : "",
        live && now.images_per_second ? el("span", {}, rate(now.images_per_second)) : "",
        live && now.eta_seconds !== null ? el("span", {}, `${duration(now.eta_seconds)} left`) : "",
        now.notice ? el("span.warn", {}, now.notice) : "",
        el("span.model", {}, now.model),
        el("time", {}, ago(now.created_at)),
      );
    },
  };
}

function submitBox(complain) {
  const prompts = el("textarea", { name: "prompts", rows: 4, required: true, ariaLabel: "Prompts",
    placeholder: "One prompt per line\na red heart\na slice of pizza" });
  const model = el("select", { name: "model", ariaLabel: "Model" });
  const size = el("select", { name: "size", ariaLabel: "Size" });
  const many = el("input", { name: "n", type: "number", min: 1, max: 1000, value: 1, ariaLabel: "Images per prompt" });
  const name = el("input", { name: "name", placeholder: "Name (optional)", ariaLabel: "Name" });
  const button = el("button.primary", {}, "Render");
  let models = [];
  const sizes = () => {
    const chosen = models.find((candidate) => candidate.id === model.value);
    size.replaceChildren(...(chosen?.sizes ?? []).map((text) => el("option", {}, text)));
  };
  model.addEventListener("change", sizes);
  get("/v1/models").then(({ data }) => {
    models = data;
    model.replaceChildren(...data.map((m) => el("option", { value: m.id }, m.cold ? `${m.id} (cold)` : m.id)));
    model.value = (data.find((m) => m.cold === false) ?? data[0])?.id ?? "";
    sizes();
  }).catch(complain);
  prompts.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  const form = el("form.card.submit", {
    async onsubmit(event) {
      event.preventDefault();
      button.disabled = true;
      try {
        const query = { model: model.value, size: size.value, name: name.value.trim() };
        if (Number(many.value) > 1) query.n = many.value;
        const job = await call("POST", "/v1/jobs", { query, text: prompts.value });
        location.hash = `#/jobs/${job.id}`;
      } catch (error) {
        complain(error);
      } finally {
        button.disabled = false;
      }
    },
  }, prompts, el("div.line", {}, el("label", {}, "Model", model), el("label", {}, "Size", size),
    el("label.few", {}, "Each", many), el("label.grow", {}, "Name", name), button));
  return form;
}

export function jobsView(signal, complain) {
  const lines = new Map();
  const list = el("ul.jobs");
  const empty = el("p.hint", { hidden: true }, "No jobs yet. Write a prompt above, or use ",
    el("code", {}, "promptmill submit"), ".");
  const more = el("button.quiet", { type: "button", hidden: true, onclick: () => { shown += PAGE; poll(); } }, "Older jobs");
  let shown = PAGE;

  async function poll() {
    const { data, has_more: rest } = await get("/v1/jobs", { limit: Math.min(shown, 1000) }, signal);
    const present = new Set(data.map((job) => job.id));
    for (const [id, old] of lines) if (!present.has(id)) { old.row.remove(); lines.delete(id); }
    data.forEach((job, at) => {
      if (!lines.has(job.id)) lines.set(job.id, line(job));
      const { row, update } = lines.get(job.id);
      update(job);
      if (list.children[at] !== row) list.insertBefore(row, list.children[at] ?? null);
    });
    empty.hidden = data.length > 0;
    more.hidden = !rest;
  }

  async function live() {
    while (!signal.aborted) {
      if (!document.hidden) await poll().catch(complain);
      await new Promise((wake) => setTimeout(wake, EVERY));
    }
  }
  live();
  return el("div.stack", {}, submitBox(complain), el("h2", {}, "Jobs"), empty, list, more);
}
