// The second view: one job, its numbers live, its pictures page by page.

import { call, get, listen, show } from "./api.js";
import { ago, bytes, duration, el, number, rate } from "./dom.js";
import { bar, pill } from "./jobs.js";

const PAGE = 96;
const CALM = 1000; // milliseconds between two reloads of a page that lost its events
const FILTERS = [["", "All"], ["done", "Done"], ["failed", "Failed"], ["queued", "Waiting"]];
const FINAL = ["completed", "cancelled", "failed", "expired"];

/** The grid: a page of tiles, by cursor. Memory holds one page whatever the job's size. */
function grid(jobId, signal, complain) {
  const tiles = new Map();
  const box = el("div.grid");
  const none = el("p.hint", { hidden: true }, "Nothing here.");
  const back = el("button.quiet", { type: "button", onclick: () => turn(-1) }, "← Earlier");
  const onward = el("button.quiet", { type: "button", onclick: () => turn(1) }, "Later →");
  const where = el("span.where");
  const jump = el("input", { type: "number", min: 0, placeholder: "Image no.", ariaLabel: "Go to image number" });
  const go = el("form.line", { onsubmit(event) { event.preventDefault(); leap(); } }, jump, el("button.quiet", {}, "Go"));
  let trail = [null]; // the cursors of the pages up to this one
  let filter = "";
  let code = "";
  let last = null;
  let reload = null;

  async function load() {
    const query = { limit: PAGE, after: trail.at(-1), state: filter, code };
    const page = await get(`/v1/jobs/${jobId}/images`, query, signal);
    draw(page.data);
    last = page.last_id;
    none.hidden = page.data.length > 0;
    back.disabled = trail.length === 1;
    onward.disabled = !page.has_more;
    const [first, end] = [page.data[0], page.data.at(-1)];
    where.textContent = first ? `${number(first.index)} – ${number(end.index)}` : "";
  }

  function draw(images) {
    const present = new Set(images.map((image) => image.index));
    for (const [index, old] of tiles) if (!present.has(index)) { old.node.remove(); tiles.delete(index); }
    images.forEach((image, at) => {
      put(image);
      const { node } = tiles.get(image.index);
      if (box.children[at] !== node) box.insertBefore(node, box.children[at] ?? null);
    });
  }

  function put(image) {
    const old = tiles.get(image.index);
    if (old && old.image.state === image.state) return;
    const node = tile(image);
    old?.node.replaceWith(node);
    tiles.set(image.index, { node, image });
  }

  function turn(step) {
    if (step < 0) trail.pop(); else trail.push(last);
    load().catch(complain);
  }

  function leap() {
    const index = Math.max(0, Math.floor(Number(jump.value)));
    trail = index ? [null, String(index - 1)] : [null];
    load().catch(complain);
  }

  return {
    node: el("section.stack", {}, none, box, el("nav.pages.line", { ariaLabel: "Pages" }, back, where, onward, go)),
    load,
    choose(state, errorCode = "") {
      [filter, code, trail] = [state, errorCode, [null]];
      return load();
    },
    /** An image event: shown at once where it stands on this page. */
    take(image) {
      if (tiles.has(image.index) && (filter === "" || filter === image.state)) put(image);
      else this.stale();
    },
    /** Some tile may be out of date: reads the page again, not too often. */
    stale() {
      reload ??= setTimeout(() => { reload = null; if (!signal.aborted) load().catch(complain); }, CALM);
    },
  };
}

function tile(image) {
  const label = el("span.caption", {}, image.expanded_prompt);
  if (image.state === "done") {
    const picture = el("img", { alt: image.expanded_prompt, loading: "lazy", decoding: "async",
      width: image.width, height: image.height });
    show(picture, image);
    return el("button.tile", { type: "button", title: image.expanded_prompt, onclick: () => enlarge(image) }, el("span.frame", {}, picture), label);
  }
  if (image.state === "failed") {
    return el("button.tile.bad", { type: "button", title: image.error?.message ?? "", onclick: () => enlarge(image) },
      el("span.frame", {}, el("b", {}, image.error?.code ?? "failed"), el("span.why", {}, image.error?.message ?? "")), label);
  }
  return el("div.tile.waiting", { title: image.expanded_prompt }, el("span.frame"), label);
}

function enlarge(image) {
  const dialog = document.getElementById("picture");
  const facts = [
    ["Prompt", image.prompt],
    image.expanded_prompt !== image.prompt ? ["Rendered as", image.expanded_prompt] : null,
    image.negative_prompt ? ["Not", image.negative_prompt] : null,
    image.error ? ["Error", `${image.error.code}: ${image.error.message}`] : null,
    ["Image", `${number(image.index)} (row ${number(image.row)}, sample ${image.sample})`],
    ["Seed", String(image.seed)], ["Size", `${image.width} × ${image.height}`],
    ["Model", image.model], ["Bytes", bytes(image.bytes)], ["Attempts", String(image.attempts)],
    image.render_ms ? ["Rendering", `${image.render_ms.toFixed(1)} ms`] : null,
    image.sha256 ? ["SHA-256", image.sha256] : null,
    image.fingerprint ? ["Fingerprint", image.fingerprint] : null,
  ].filter(Boolean);
  const picture = el("img", { alt: image.expanded_prompt });
  if (image.state === "done") show(picture, image);
  dialog.replaceChildren(
    image.state === "done" ? picture : "",
    el("dl", {}, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    el("form", { method: "dialog" }, el("button.primary", {}, "Close")));
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  dialog.showModal();
}

export function jobView(id, signal, complain) {
  const [node, fill] = bar();
  const title = el("h1", {}, id);
  const state = el("span");
  const notice = el("p.warn", { hidden: true });
  const about = el("p.facts.about");
  const stats = el("dl.stats");
  const actions = el("div.actions.line");
  const failures = el("div.failures.line");
  const pictures = grid(id, signal, complain);
  const tabs = el("div.tabs", { role: "group", ariaLabel: "Filter" }, FILTERS.map(([value, text]) =>
    el("button", { type: "button", ariaPressed: String(value === ""), onclick: (event) => {
      for (const tab of tabs.children) tab.ariaPressed = String(tab === event.currentTarget);
      pictures.choose(value).catch(complain);
    } }, text)));
  let job = null;
  let offered = "";
  let failed = 0;

  const act = (verb) => async (event) => {
    event.currentTarget.disabled = true;
    try {
      take(await call("POST", `/v1/jobs/${id}/${verb}`));
      if (verb === "retry") { follow(); pictures.stale(); }
    } catch (error) {
      complain(error);
      offered = "";
      if (job) take(job);
    }
  };

  async function remove() {
    if (!window.confirm("Delete this job with all its pictures?")) return;
    await call("DELETE", `/v1/jobs/${id}`).then(() => { location.hash = "#/"; }).catch(complain);
  }

  function offer() {
    const open = ["queued", "running"].includes(job.state);
    const retry = job.state === "completed" && job.counts.failed > 0;
    const now = `${open}${retry}${job.state}`;
    if (now === offered) return;
    offered = now;
    const button = (text, verb, kind = "") => el(`button${kind}`, { type: "button", onclick: act(verb) }, text);
    actions.replaceChildren(...[
      open ? button("Pause", "pause") : null,
      job.state === "paused" ? button("Resume", "resume", ".primary") : null,
      open || job.state === "paused" ? button("Cancel", "cancel", ".danger") : null,
      retry ? button("Retry failed", "retry", ".primary") : null,
      FINAL.includes(job.state) ? el("button.danger", { type: "button", onclick: remove }, "Delete") : null,
    ].filter(Boolean));
  }

  async function explain() {
    const { codes } = await get(`/v1/jobs/${id}/failures`, {}, signal);
    failures.replaceChildren(...Object.entries(codes).map(([code, count]) =>
      el("span.chip", {}, `${code} × ${number(count)}`)));
  }

  function take(news) {
    job = { ...job, ...news };
    const { counts } = job;
    fill(job);
    title.textContent = job.name || id;
    document.title = `${job.name || id} · promptmill`;
    state.replaceChildren(pill(job.state));
    about.replaceChildren(...[job.model, job.priority, counts.done ? bytes(job.bytes) : null,
      `submitted ${ago(job.created_at)}`].filter(Boolean).map((text) => el("span", {}, text)));
    notice.textContent = job.notice ?? job.error ?? "";
    notice.hidden = !notice.textContent;
    const facts = [["Done", number(counts.done)], ["Failed", number(counts.failed)],
      ["Waiting", number(counts.queued)], ["Total", number(counts.total)],
      ["Rate", rate(job.images_per_second)], ["Left", duration(job.eta_seconds)]];
    stats.replaceChildren(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    if (counts.failed !== failed) { failed = counts.failed; explain().catch(complain); }
    offer();
  }

  /** A change of state, or the first word of a stream: what was loaded before may be old. */
  function turned(now) {
    if (now === "deleted") { location.hash = "#/"; return; }
    get(`/v1/jobs/${id}`, {}, signal).then(take).catch(complain);
    pictures.stale();
  }

  function follow() {
    listen(id, (event, data) => {
      if (event === "progress") take(data);
      else if (event === "state") turned(data.state);
      else if (event === "image") pictures.take(data);
      else if (event === "resync") pictures.stale();
    }, signal);
  }

  get(`/v1/jobs/${id}`, {}, signal).then((found) => { take(found); follow(); }).catch(complain);
  pictures.load().catch(complain);
  return el("div.stack", {}, el("a.back", { href: "#/" }, "← All jobs"),
    el("div.head", {}, title, state), about, notice, node, stats, actions, failures, tabs, pictures.node);
}
