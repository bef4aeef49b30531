// Numbers and times for people.

const whole = new Intl.NumberFormat("en");

export const number = (value) => whole.format(value);

export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function rate(value) {
  if (!value) return "–";
  return `${value >= 100 ? number(Math.round(value)) : value.toFixed(1)}/s`;
}

export function ago(time) {
  const s = Date.now() / 1000 - time;
  if (s < 10) return "just now";
  return s < 86400 ? `${duration(s).split(" ").slice(0, 2).join(" ")} ago`
    : new Date(time * 1000).toLocaleDateString();
}

/** A bucket (`task=…,width=…,height=…`) in short. */
export function bucket(text) {
  const { width, height, task, ...rest } = Object.fromEntries(text.split(",").map((part) => part.split("=")));
  const size = width && height ? `${width} × ${height}` : "";
  const others = Object.entries(rest).map(([name, value]) => `${name} ${value}`);
  return [size, task === "text2image" ? "" : task, ...others].filter(Boolean).join(", ");
}

export const moment = (time) => (time ? new Date(time * 1000).toLocaleString() : "–");

/** A share of a whole that is 100 % only when it is all. */
export function percent(part, total) {
  if (!total) return "0 %";
  const share = (100 * part) / total;
  return `${part < total ? Math.min(99, Math.floor(share)) : 100} %`;
}
