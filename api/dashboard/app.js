// The frame: which view is shown, the key, errors, the state of the farm.

import { ApiError, get, key } from "./api.js";
import { el, number } from "./dom.js";
import { jobView } from "./job.js";
import { jobsView } from "./jobs.js";

const view = document.getElementById("view");
const toast = document.getElementById("toast");
const farm = document.getElementById("farm");
const forget = document.getElementById("forget");
let leaving = null; // ends what the present view started

export function complain(error) {
  if (error.name === "AbortError") return;
  if (error instanceof ApiError && error.status === 401) {
    askForKey(key.get() ? "This key is not known here." : "");
    return;
  }
  const place = error.line ? `Line ${error.line}: ` : "";
  toast.textContent = place + (error instanceof TypeError ? "The farm does not answer." : error.message);
  toast.hidden = false;
  clearTimeout(complain.timer);
  complain.timer = setTimeout(() => { toast.hidden = true; }, 8000);
}

function askForKey(message) {
  leaving?.abort();
  forget.hidden = true;
  const field = el("input", { type: "password", name: "key", autocomplete: "off", required: true,
    placeholder: "pm_…", ariaLabel: "API key" });
  const form = el("form.card.keyform", {
    onsubmit(event) {
      event.preventDefault();
      key.set(field.value.trim());
      route();
    },
  }, el("h1", {}, "API key"),
  el("p.hint", {}, "This farm asks for a key. It stays in this tab and is gone when you close it."),
  message ? el("p.error", {}, message) : null,
  el("div.line", {}, field, el("button.primary", {}, "Open")));
  view.replaceChildren(form);
  field.focus();
}

async function look() {
  try {
    const { data } = await get("/v1/models");
    const workers = data.reduce((sum, model) => sum + model.workers, 0);
    const known = data.every((model) => model.cold !== null);
    farm.textContent = !known ? "queue out of reach"
      : workers ? `${number(workers)} worker${workers === 1 ? "" : "s"}` : "no worker";
    farm.className = `farm ${workers ? "alive" : "asleep"}`;
    farm.title = data.map((model) => `${model.id}: ${model.workers}`).join("\n");
  } catch (error) {
    farm.textContent = error.status === 401 ? "" : "out of reach";
    farm.className = "farm asleep";
  }
}

function route() {
  leaving?.abort();
  leaving = new AbortController();
  forget.hidden = !key.get();
  const [, kind, id] = location.hash.split("/");
  const open = kind === "jobs" && id ? jobView(id, leaving.signal, complain)
    : jobsView(leaving.signal, complain);
  view.replaceChildren(open);
  window.scrollTo(0, 0);
  look();
}

forget.addEventListener("click", () => { key.forget(); route(); });
window.addEventListener("hashchange", route);
setInterval(() => { if (!document.hidden) look(); }, 10000);
route();
