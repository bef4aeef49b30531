// The images behind a grid, a page at a time: any of them by its place while all are shown,
// one after the other where a filter leaves some out. Memory holds a few pages.

import { get } from "./api.js";

const PAGE = 120; // images in one request
const KEPT = 24; // pages
const AHEAD = 40; // places beyond those on the screen that are asked for, too
const PACE = 60; // milliseconds between two looks at what is wanted
const CALM = 1000; // milliseconds between two readings of pages that may be old
export const SPAN = 120_000; // places of one grid: a taller one than browsers can lay out

export function pages(jobId, signal, { changed, complain }) {
  let filter = { state: "", code: "" };
  let base = 0; // the index that the first place stands for
  let total = 0; // images of the job
  let strewn = false; // whether the filter leaves some out
  let cursors = []; // of strewn pages: the index behind which each begins
  let end = null; // of strewn pages: how many places there are, once that is known
  let held = new Map(); // page number -> images, most recent last
  let asked = new Map(); // page number -> what ends its request
  let wanted = [0, 0];
  let timer = null;
  let again = null;

  const known = () => (strewn ? Math.min(end ?? cursors.length * PAGE, SPAN)
    : Math.max(0, Math.min(total - base, SPAN)));
  const after = (page) => (strewn ? cursors[page] : base + page * PAGE - 1);

  function* missing() {
    const last = Math.min(wanted[1], known() - 1);
    for (let page = Math.floor(Math.max(0, wanted[0]) / PAGE); page * PAGE <= last; page += 1) {
      if (!held.has(page) && (!strewn || page < cursors.length)) yield page;
    }
  }

  function look() {
    timer = null;
    const needed = new Set(missing());
    for (const [page, ending] of asked) if (!needed.has(page)) { ending.abort(); asked.delete(page); }
    for (const page of needed) if (!asked.has(page)) load(page);
  }

  async function load(page) {
    const ending = new AbortController();
    const stop = () => ending.abort();
    signal.addEventListener("abort", stop, { once: true });
    asked.set(page, ending);
    try {
      const from = after(page);
      const query = { limit: PAGE, after: from < 0 ? null : from, ...filter };
      const { data, has_more: more } = await get(`/v1/jobs/${jobId}/images`, query, ending.signal);
      if (ending.signal.aborted) return;
      keep(page, data);
      if (strewn) {
        if (more) { cursors[page + 1] = data.at(-1).index; end = null; }
        else end = page * PAGE + data.length;
      }
      changed();
    } catch (error) {
      if (!ending.signal.aborted) complain(error);
    } finally {
      signal.removeEventListener("abort", stop);
      if (asked.get(page) === ending) asked.delete(page);
    }
  }

  function keep(page, images) {
    held.delete(page);
    held.set(page, images);
    for (const old of held.keys()) if (held.size > KEPT && old !== page) held.delete(old);
  }

  function restart() {
    for (const ending of asked.values()) ending.abort();
    held = new Map();
    asked = new Map();
    cursors = [base - 1];
    end = null;
    wanted = [0, AHEAD];
    changed();
    look();
  }

  return {
    known,
    get base() { return base; },
    get strewn() { return strewn; },
    get ended() { return strewn ? end !== null : true; },
    get filter() { return filter; },
    /** The image at a place; undefined while it is not known. */
    at: (place) => held.get(Math.floor(place / PAGE))?.[place % PAGE],
    /** Places that are, or are about to be, on the screen. */
    want(first, last) {
      wanted = [first - AHEAD, last + AHEAD];
      if (!timer && missing().next().value !== undefined) timer = setTimeout(look, PACE);
    },
    /** all: how many images the job has; some: how many pass the filter, if known. */
    choose({ state = "", code = "", all = total, some = null, from = 0 }) {
      filter = { state, code };
      total = all;
      base = from;
      strewn = state !== "" && some !== all;
      restart();
    },
    /** An image that has just finished: shown at once where its place is known. */
    put(image) {
      if (strewn) { this.stale(); return; }
      const place = image.index - base;
      const page = held.get(Math.floor(place / PAGE));
      if (place < 0 || !page?.[place % PAGE]) return;
      page[place % PAGE] = image;
      changed();
    },
    /** What is held may be old: it is read again, not too often. */
    stale() {
      again ??= setTimeout(() => {
        again = null;
        if (signal.aborted) return;
        const first = Math.floor(Math.max(0, wanted[0]) / PAGE);
        const last = Math.floor(wanted[1] / PAGE);
        for (const page of held.keys()) if (page < first || page > last) held.delete(page);
        if (strewn) { cursors.length = Math.min(cursors.length, first + 1); end = null; }
        for (let page = first; page <= last && page * PAGE < known(); page += 1) {
          if (!asked.has(page)) load(page);
        }
      }, CALM);
    },
  };
}
