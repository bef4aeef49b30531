// The public API from a browser: requests, the key, pictures, server-sent events.

const KEY = "promptmill-key";

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    Object.assign(this, { status, code: error.code, line: error.line, param: error.param });
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

function headers(more = {}) {
  return key.get() ? { ...more, authorization: `Bearer ${key.get()}` } : more;
}

async function checked(response) {
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const error = body?.error ?? { message: `the farm answered ${response.status}`, code: "" };
  throw new ApiError(response.status, error);
}

export async function call(method, path, { query, json, text, signal } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.append(name, value);
  }
  const options = { method, signal, headers: headers() };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["content-type"] = "application/json";
  } else if (text !== undefined) {
    options.body = text;
    options.headers["content-type"] = "text/plain; charset=utf-8";
  }
  const response = await checked(await fetch(url, options));
  return response.json();
}

export const get = (path, query, signal) => call("GET", path, { query, signal });

const content = (image) => `/v1/jobs/${image.job_id}/images/${image.index}/content`;

/** Puts an image's picture into an <img>. With a key, its bytes are fetched when it nears
 *  the screen, since an <img> cannot send the key. */
const nearing = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    nearing.unobserve(target);
    fetch(target.dataset.from, { headers: headers() })
      .then(checked).then((response) => response.blob())
      .then((blob) => {
        const url = URL.createObjectURL(blob);
        target.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
        target.src = url;
      })
      .catch(() => target.classList.add("broken"));
  }
}, { rootMargin: "300px" });

export function show(img, image) {
  if (!key.get()) {
    img.src = content(image);
    return;
  }
  img.dataset.from = content(image);
  nearing.observe(img);
}

/** Calls on(event, data) for each server-sent event of a job, resuming after a cut, until
 *  the job's end or `signal`. EventSource cannot send a key; fetch can. */
export async function listen(jobId, on, signal) {
  let last = null;
  while (!signal.aborted) {
    try {
      const more = last ? { "last-event-id": last } : {};
      const path = `/v1/jobs/${jobId}/events`;
      const response = await checked(await fetch(path, { headers: headers(more), signal }));
      if (response.status === 204) return;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) last = tell(part, on) ?? last;
      }
    } catch (error) {
      if (signal.aborted || [401, 404].includes(error.status)) return;
    }
    await new Promise((wake) => setTimeout(wake, 1500));
  }
}

function tell(part, on) {
  const fields = {};
  for (const line of part.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  if (fields.event) on(fields.event, JSON.parse(fields.data));
  return fields.id;
}
