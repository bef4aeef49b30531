// The public API from a browser: requests, the key, files to save.

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

export function headers(more = {}) {
  return key.get() ? { ...more, authorization: `Bearer ${key.get()}` } : more;
}

export async function checked(response) {
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const error = body?.error ?? { message: `the farm answered ${response.status}`, code: "" };
  throw new ApiError(response.status, error);
}

export function url(path, query = {}) {
  const made = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") made.searchParams.append(name, value);
  }
  return made;
}

/** json: a value to send. body, type: what else to send. */
export async function call(method, path, { query, json, body, type, signal } = {}) {
  const options = { method, signal, headers: headers() };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["content-type"] = "application/json";
  } else if (body !== undefined) {
    options.body = body;
    options.headers["content-type"] = type;
  }
  const response = await checked(await fetch(url(path, query), options));
  return response.json();
}

export const get = (path, query, signal) => call("GET", path, { query, signal });

/** Saves what a path answers as a file. A link cannot send a key, so that with one the bytes
 *  come first and are saved then. */
export async function save(path, name, query) {
  const link = document.createElement("a");
  link.download = name;
  if (!key.get()) {
    link.href = url(path, query);
    link.click();
    return;
  }
  const response = await checked(await fetch(url(path, query), { headers: headers() }));
  link.href = URL.createObjectURL(await response.blob());
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
