// One job: its figures live, what failed and why, its pictures.

import { get } from "./api.js";
import { about, figures } from "./facts.js";
import { actions } from "./actions.js";
import { bar, FINAL, pill } from "./bar.js";
import { detail } from "./detail.js";
import { el, fill } from "./dom.js";
import { listen } from "./events.js";
import { failures } from "./failures.js";
import { filters, stretch } from "./filters.js";
import { grid } from "./grid.js";
import { complain } from "./notices.js";
import { pages, SPAN } from "./pages.js";

/** The pictures of a job: filters, the grid, what to say when there is none. */
function pictures(id, signal, codes, counts) {
  const none = el("p.hint.empty", { hidden: true });
  const source = pages(id, signal, { complain, changed() {
    tiles.draw();
    const known = source.known();
    none.hidden = known > 0 || !source.ended;
    none.textContent = source.filter.state ? "No image is in this state." : "This job has no images.";
    part.update({ base: source.base, known, total: counts().total, strewn: source.strewn });
  } });
  const open = (image) => { location.hash = `#/jobs/${id}/${image.index}`; };
  const tiles = grid(source, open, signal);
  const bars = filters({ codes, size: (pixels) => tiles.size(pixels), jump,
    choose: (chosen) => { source.choose({ ...chosen, all: counts().total }); settle(); } }, signal);
  const part = stretch((step) => {
    source.choose({ ...source.filter, all: counts().total, some: bars.some(), from: Math.max(0, source.base + step) });
    settle();
  });

  /** Not further down than the head of the grid. */
  function settle() {
    const top = bars.node.getBoundingClientRect().top;
    const stuck = parseFloat(getComputedStyle(bars.node).top) || 0;
    if (top <= stuck + 1) node.scrollIntoView();
    tiles.draw();
  }

  function jump(index) {
    const { total } = counts();
    const to = Math.min(index, Math.max(0, total - 1));
    const within = !source.strewn && to >= source.base && to < source.base + source.known();
    if (!within) {
      const from = source.strewn ? to : Math.floor(to / SPAN) * SPAN;
      source.choose({ ...source.filter, all: total, some: bars.some(), from });
    }
    tiles.reveal(source.strewn ? 0 : to - source.base, true);
  }

  const node = el("section.pictures", { ariaLabel: "Pictures" }, bars.node, part.node, none, tiles.node);
  return { node, source, bars, reveal: (place) => tiles.reveal(place, true) };
}

/** Where a model goes by steps: how far it is. */
function stepped(now) {
  if (!now) return "";
  const step = `step ${now.step} of ${now.steps}`;
  return now.measuring ? `Looking for the best batch shape, ${step}` : `Rendering, ${step}`;
}

export function jobView([id, index], signal) {
  const [meter, move] = bar();
  const title = el("h1", {}, "…");
  const state = el("span");
  const notice = el("p.warn", { hidden: true });
  const steps = el("p.steps", { hidden: true });
  const stats = figures();
  const facts = about();
  let job = null;
  const acts = actions(id, (now) => { take(now); follow(); });
  const failed = failures(id, { signal, take: (now) => { take(now); shown.source.stale(); follow(); },
    choose: (code) => shown.bars.pick("failed", code) });
  const shown = pictures(id, signal, () => failed.codes, () => job?.counts ?? { total: 0 });
  const looked = detail(id, { source: shown.source, complain,
    closed: (place) => { history.replaceState(null, "", `#/jobs/${id}`); shown.reveal(place); } }, signal);
  let following = false;
  let turns = 0;

  function take(news) {
    const first = job === null;
    job = { ...job, ...news };
    move(job);
    title.textContent = job.name || id;
    document.title = `${job.name || id} · promptmill`;
    fill(state, pill(job.state));
    notice.textContent = job.notice ?? job.error ?? "";
    notice.hidden = !notice.textContent;
    steps.textContent = stepped(job.rendering);
    steps.hidden = !steps.textContent;
    stats.update(job);
    facts.update(job);
    acts.offer(job);
    shown.bars.update(job.counts);
    if (first) shown.source.choose({ all: job.counts.total });
    failed.explain(job).then(() => shown.bars.update(job.counts)).catch(complain);
  }

  /** A change of state, or the first word of a stream: what was read before may be old, and so
   *  is what was asked before and answered late. */
  function turned(now) {
    if (now === "deleted") { location.hash = "#/"; return; }
    const turn = turns += 1;
    get(`/v1/jobs/${id}`, {}, signal).then((found) => { if (turn === turns) take(found); }).catch(complain);
    shown.source.stale();
  }

  async function follow() {
    if (following || FINAL.includes(job.state)) return;
    following = true;
    await listen(id, (event, data) => {
      if (event === "progress") take(data);
      else if (event === "state") turned(data.state);
      else if (event === "image") shown.source.put(data);
      else if (event === "resync") shown.source.stale();
    }, signal);
    following = false;
  }

  get(`/v1/jobs/${id}`, {}, signal).then((found) => { take(found); follow(); })
    .catch((error) => {
      if (error.status !== 404) { complain(error); return; }
      fill(node, el("div.empty", {}, el("h1", {}, "There is no such job"),
        el("p", {}, "It may have been deleted."), el("a.button", { href: "#/" }, "All jobs")));
    });
  const node = el("div.stack", {}, el("a.back", { href: "#/" }, "← All jobs"),
    el("div.row.between.titled", {}, el("div.row", {}, title, state), acts.node),
    notice, meter, steps, stats.node, failed.node, facts.node, shown.node);
  if (index !== undefined) looked.open(Number(index));
  return { node, title: id, go([other, at]) {
    if (other !== id) return false;
    if (at === undefined) looked.close();
    else looked.open(Number(at));
    return true;
  } };
}
