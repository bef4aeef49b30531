// A grid of any length that holds only the tiles near the screen. Knows places, not jobs: a
// source says how many there are and what stands at each.

import { el } from "./dom.js";
import { tile } from "./tile.js";
import { typing } from "./shortcuts.js";

const GAP = 10; // pixels
const CAPTION = 40; // pixels below each picture
const OVER = 2; // rows beyond the screen on each side
const NODES = 150; // tiles at most, each of three nodes
const FLIGHT = 200; // pixels from frame to frame: the ground's pattern stands for what flies past
const CALM = 90; // milliseconds after which a flight is over

/** source: {known(), at(place), want(first, last)}. open(image, place): a tile was chosen.
 *  Returns {node, draw(), measure(), reveal(place, focus), free()}. */
export function grid(source, open, signal) {
  const node = el("div.grid", { role: "group", ariaLabel: "Images" });
  const tiles = new Map(); // place -> tile
  let least = 132; // pixels of a tile's width
  let columns = 1;
  let side = least;
  let height = 1; // of a row
  let active = 0; // the place that has, or will have, the focus
  let frame = null;
  let seen = 0; // where the page was at the last frame
  let landing = null; // ends a flight

  function measure() {
    const width = node.clientWidth || 1;
    columns = Math.max(2, Math.floor((width + GAP) / (least + GAP)));
    side = (width - GAP * (columns - 1)) / columns;
    height = side + CAPTION + GAP;
    node.style.setProperty("--side", `${side}px`);
    node.style.setProperty("--across", `${side + GAP}px`);
    node.style.setProperty("--down", `${height}px`);
    for (const [place, one] of tiles) stand(one, place);
    draw();
  }

  const stand = (one, place) => {
    const x = (place % columns) * (side + GAP);
    const y = Math.floor(place / columns) * height;
    one.node.style.transform = `translate(${x}px, ${y}px)`;
  };

  /** The places near the screen: [first, behind the last]. */
  function near() {
    const top = -node.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / height) - OVER);
    const rows = Math.ceil(innerHeight / height) + 2 * OVER;
    const most = Math.floor(NODES / columns);
    return [first * columns, Math.min(source.known(), (first + Math.min(rows, most)) * columns)];
  }

  function draw() {
    frame = null;
    if (signal.aborted) return;
    const known = source.known();
    node.style.height = `${Math.ceil(known / columns) * height}px`;
    const flying = Math.abs(scrollY - seen) > FLIGHT;
    seen = scrollY;
    clearTimeout(landing);
    node.classList.toggle("flying", flying);
    if (flying) { landing = setTimeout(draw, CALM); return; }
    const [first, end] = near();
    source.want(first, end);
    for (const [place, one] of tiles) {
      if (place >= first && place < end) continue;
      one.free();
      one.node.remove();
      tiles.delete(place);
    }
    for (let place = first; place < end; place += 1) put(place);
    const reached = tiles.get(active) ?? tiles.get(first);
    for (const one of tiles.values()) one.node.tabIndex = one === reached ? 0 : -1;
  }

  function put(place) {
    let one = tiles.get(place);
    if (!one) {
      one = tile();
      tiles.set(place, one);
      stand(one, place);
      node.append(one.node);
    }
    one.set(source.at(place), place, side);
  }

  const soon = () => { frame ??= requestAnimationFrame(draw); };

  /** Scrolls so far that a place is seen. */
  function reveal(place, focus = false) {
    active = Math.max(0, Math.min(source.known() - 1, place));
    const top = node.getBoundingClientRect().top + Math.floor(active / columns) * height;
    const head = parseFloat(getComputedStyle(node).scrollMarginTop) || 0;
    if (top < head) window.scrollBy(0, top - head);
    else if (top + height > innerHeight) window.scrollBy(0, top + height - innerHeight);
    seen = scrollY; // where it leads is looked at
    draw();
    if (focus) tiles.get(active)?.node.focus({ preventScroll: true });
  }

  node.addEventListener("click", (event) => {
    const place = Number(event.target.closest(".tile")?.dataset.place ?? NaN);
    const image = source.at(place);
    if (!image) return;
    active = place;
    open(image, place);
  });
  node.addEventListener("keydown", (event) => {
    if (typing(event)) return;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const place = { Home: 0, End: source.known() - 1 }[event.key] ?? (step && active + step);
    if (place === undefined || place < 0 || place >= source.known()) return;
    event.preventDefault();
    reveal(place, true);
  });
  node.addEventListener("focusin", (event) => {
    active = Number(event.target.closest(".tile")?.dataset.place ?? active);
  });
  window.addEventListener("scroll", soon, { passive: true, signal });
  const sized = new ResizeObserver(measure);
  sized.observe(node);
  signal.addEventListener("abort", () => {
    clearTimeout(landing);
    sized.disconnect();
    for (const one of tiles.values()) one.free();
  });

  return {
    node,
    draw: soon,
    reveal,
    size(pixels) { least = pixels; measure(); },
  };
}
