// The frame: which view is shown, the key, the theme, the state of the farm.

import { get, key } from "./api.js";
import { compareView } from "./compare.js";
import { composeView } from "./compose.js";
import { fill } from "./dom.js";
import { count } from "./format.js";
import { homeView } from "./home.js";
import { jobView } from "./job.js";
import { keyForm } from "./keyform.js";
import { onLocked } from "./notices.js";
import { help, install } from "./shortcuts.js";
import { workersView } from "./workers.js";

const VIEWS = { new: composeView, jobs: jobView, compare: compareView, workers: workersView };
const FARM = 10_000; // milliseconds between two looks at the farm
const THEMES = { auto: ["◐", "Theme: as the system"], light: ["☀", "Theme: light"], dark: ["☾", "Theme: dark"] };

const view = document.getElementById("view");
const farm = document.getElementById("farm");
const forget = document.getElementById("forget");
const themeButton = document.getElementById("theme");
let leaving = null; // ends what the present view started
let shown = null; // the present view
let locked = false; // whether the farm asks for a key

/** The parts of the address; none where it is no address of this page. */
function parts() {
  try {
    return location.hash.split("/").map(decodeURIComponent);
  } catch {
    return [];
  }
}

function route(anew = false) {
  const [, kind = "", ...args] = parts();
  if (!anew && shown?.kind === kind && shown.go?.(args)) return;
  leaving?.abort();
  leaving = new AbortController();
  locked = false;
  forget.hidden = !key.get();
  const made = (kind === "jobs" && !args[0] ? homeView : VIEWS[kind] ?? homeView)(args, leaving.signal);
  const first = shown === null;
  shown = { ...made, kind };
  document.title = made.title ? `${made.title} · promptmill` : "promptmill";
  for (const link of document.querySelectorAll("[data-view]")) {
    const here = link.dataset.view === (kind === "jobs" ? "" : kind);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  fill(view, made.node);
  window.scrollTo(0, 0);
  if (!first) view.focus({ preventScroll: true });
  look();
}

function askForKey() {
  if (locked) return;
  locked = true;
  leaving?.abort();
  forget.hidden = true;
  const form = keyForm(() => route(true));
  fill(view, form);
  form.querySelector("input").focus();
}

async function look() {
  try {
    const { data } = await get("/v1/models");
    const workers = data.reduce((sum, model) => sum + model.workers, 0);
    const known = data.every((model) => model.cold !== null);
    farm.textContent = !known ? "queue out of reach" : workers ? count(workers, "worker") : "no worker";
    farm.className = `farm ${workers ? "alive" : "asleep"}`;
  } catch (error) {
    farm.textContent = error.status === 401 ? "" : "out of reach";
    farm.className = "farm asleep";
  }
}

function tellTheme(now) {
  const [sign, words] = THEMES[now];
  themeButton.textContent = sign;
  themeButton.ariaLabel = words;
  themeButton.title = `${words} (t)`;
}

const nextTheme = () => tellTheme(window.theme.next());

function toPrompt() {
  if (shown?.prompt) { shown.prompt(); return; }
  location.hash = "#/";
  setTimeout(() => shown?.prompt?.(), 0);
}

onLocked(askForKey);
install({ "/": toPrompt, t: nextTheme });
tellTheme(window.theme.now());
themeButton.addEventListener("click", nextTheme);
document.getElementById("help").addEventListener("click", help);
forget.addEventListener("click", () => { key.forget(); route(true); });
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); view.focus(); });
window.addEventListener("hashchange", () => route(locked));
setInterval(() => { if (!document.hidden) look(); }, FARM);
route();
