// The view that makes a job of many images, with its plan beside it while one types.

import { call, checked, headers, url } from "./api.js";
import { copyAs } from "./copyas.js";
import { el, fill, quietly } from "./dom.js";
import { settings } from "./fields.js";
import { count } from "./format.js";
import { complain, words } from "./notices.js";
import { planBox } from "./plan.js";
import { file, promptList, template } from "./sources.js";

const QUIET = 300; // milliseconds without a change until the plan is asked for
const PREVIEWED = 20_000_000; // bytes of a file that are sent for a plan without being asked

async function post(send, query, signal) {
  if (!send.gzipped) return call("POST", "/v1/jobs", { ...send, query: { ...send.query, ...query }, signal });
  const options = { method: "POST", body: send.body, signal,
    headers: headers({ "content-type": send.type, "content-encoding": "gzip" }) };
  return (await checked(await fetch(url("/v1/jobs", { ...send.query, ...query }), options))).json();
}

export function composeView(_, signal) {
  const plan = planBox();
  const button = el("button.primary", { disabled: true }, "Render");
  const changed = () => { button.disabled = true; soon(); };
  const kinds = { Prompts: promptList(), Template: template(), File: file(() => changed()) };
  let kind = "Prompts";
  let planning = null;
  const options = settings(() => changed());
  const place = el("div");
  const tabs = el("div.segments", { role: "group", ariaLabel: "Where the rows come from" },
    Object.keys(kinds).map((name) => el("button", { type: "button", onclick: () => choose(name) }, name)));
  const now = () => kinds[kind].submission(options.defaults());

  function choose(name) {
    kind = name;
    for (const tab of tabs.children) tab.ariaPressed = String(tab.textContent === name);
    fill(place, kinds[name].node);
    changed();
  }

  async function preview() {
    planning?.abort();
    const submission = now();
    button.textContent = "Render";
    if (!submission) { plan.clear(); return; }
    if (submission.bytes > PREVIEWED) {
      plan.fail("A file of this size is counted when it is sent.");
      button.disabled = false;
      return;
    }
    planning = new AbortController();
    try {
      const answer = await post(submission.send, { dry_run: true }, planning.signal);
      plan.show(answer);
      button.disabled = !answer.valid;
      if (answer.valid) button.textContent = `Render ${count(answer.images, "image")}`;
    } catch (error) {
      if (error.name === "AbortError") return;
      plan.fail(words(error));
      if (error.status === 401) complain(error);
    }
  }
  const soon = quietly(QUIET, () => { if (!signal.aborted) preview(); });

  async function submit(event) {
    event.preventDefault();
    const submission = now();
    if (!submission || button.disabled) return;
    button.disabled = true;
    try {
      const job = await post(submission.send, {});
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      complain(error);
      button.disabled = false;
    }
  }

  const form = el("form.card.stack", { onsubmit: submit, oninput: changed, onkeydown(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
  } }, tabs, place, options.node, options.more, el("div.row.end", {}, button));
  choose("Prompts");
  options.ready.catch(complain);
  signal.addEventListener("abort", () => planning?.abort());
  const node = el("div.stack", {}, el("h1", {}, "New job"),
    el("div.halves", {}, el("div.stack", {}, form, copyAs(() => now() ?? { rows: [], defaults: options.defaults() })), plan.node));
  return { node, title: "New job", prompt: () => place.querySelector("textarea, input")?.focus() };
}
